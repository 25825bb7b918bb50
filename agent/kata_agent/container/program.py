"""A container's program before it begins: whether it is for this machine.

What the kernel refuses then is told by nobody but the container's own output, and its manager sees a mere exit.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kata_agent import linux

if TYPE_CHECKING:
    from kata_py.oci.spec import Process

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where a container has none of its own

# elf(5), `e_machine`: what images are made for.
_MACHINES = {3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_ALSO = {62: 3}  # kernels of the one may run the other


def foreign(pid: int, process: Process) -> str:
    """The architecture that a container's program is for, if that is not this machine's; else empty. Blocks.

    Args:
        pid: The container's first process, which has its root already.
        process: What it is to run. A program that cannot be found or read is nobody's: its start will tell.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        theirs = next((machine for path in _paths(process) if (machine := _machine(root, path)) is not None), 0)
    finally:
        os.close(root)
    with open("/proc/self/exe", "rb") as file:  # noqa: PTH123 pathlib is not loaded for this
        ours = _of(file.read(20))
    if not theirs or not ours or theirs in (ours, _ALSO.get(ours)):
        return ""
    return _MACHINES.get(theirs, f"machine {theirs}")


def _paths(process: Process) -> list[str]:
    program = process["args"][0]
    if "/" in program:
        return [os.path.join(process.get("cwd", "/"), program)]  # noqa: PTH118
    pairs = (pair.partition("=") for pair in process.get("env", ()))
    search = next((value for name, _, value in pairs if name == "PATH"), _PATH)
    return [f"{directory}/{program}" for directory in search.split(":") if directory]


def _machine(root: int, path: str) -> int | None:
    """What the file at a path is for; 0 where that cannot be said, None where there is none."""
    try:
        fd = linux.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _of(os.read(fd, 20))
    except OSError:
        return 0
    finally:
        os.close(fd)


def _of(header: bytes) -> int:
    """`e_machine` of an ELF file; 0 of any other."""
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return 0
    return int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
