"""The programs that sandboxes need: which versions they are, and whether those work here.

A program is asked by `--version`, as kata's `kata-runtime env` does. What runs in the guest is told by the list of the
guest's parts, beside its image.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from kata_py.node.eligibility import Finding, Verdict

TIMEOUT = 5.0  # seconds until a program must have said what it is
MANIFEST = "manifest.json"  # beside the guest's image
UNKNOWN = "unknown"

_LINE_MAX = 200  # characters of what a program says of itself
_NUMBER = re.compile(r"\d+(?:\.\d+)+")


# The oldest versions that are known to work: those that tests run with, and of the virtiofsd in Rust, which they do
# not, the first whose options are those of today. The one in C is a part of QEMU and has its number.
QEMU = (7, 2)
VIRTIOFSD_IN_C = (7, 2)
VIRTIOFSD_IN_RUST = (1, 0)
CRUN = (1, 8)


def version(program: Path) -> str:
    """The first line of what a program says of itself; `unknown` where it says nothing, or cannot be run."""
    try:
        ran = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return UNKNOWN
    lines = ran.stdout.decode(errors="replace").strip().splitlines()
    return lines[0][:_LINE_MAX] if lines else UNKNOWN


def guest_package(image: Path | None, name: str) -> str:
    """The version of a package in the guest's image, by the list beside it; `unknown` where there is none."""
    if image is None:
        return UNKNOWN
    try:
        packages = json.loads((image.resolve().parent / MANIFEST).read_bytes())["packages"]
        return next((str(each["version"]) for each in packages if each["name"] == name), UNKNOWN)
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def judged(name: str, said: str, least: tuple[int, ...]) -> Finding:
    """Judge a version.

    Args:
        name: What is judged.
        said: What the program says, or its package.
        least: The oldest that is known to work.
    """
    wanted = f"{_dotted(least)} or later"
    found = _NUMBER.search(said)
    if found is None:
        return Finding(name, Verdict.WARN, f"version {said}, wanted {wanted}", f"make sure that it is {wanted}")
    if tuple(map(int, found[0].split("."))) < least:
        return Finding(name, Verdict.WARN, f"{said}: older than any that is known to work", f"install {wanted}")
    return Finding(name, Verdict.OK, f"{said}; wanted {wanted}")


def virtiofsd_least(said: str) -> tuple[int, ...]:
    """The oldest that is known to work of the virtiofsd that says so: QEMU's says `version` before its number."""
    return VIRTIOFSD_IN_C if said.startswith("virtiofsd version") else VIRTIOFSD_IN_RUST


def _dotted(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))
