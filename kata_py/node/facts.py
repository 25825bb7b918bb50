"""What a node is: processor, modules of the kernel, devices. Read from below a root: any node's files will do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("kvm", "vhost-net", "vhost-vsock", "net/tun")
_NESTED = ("kvm_intel", "kvm_amd", "kvm")  # the modules that have the parameter, kvm on s390x


@dataclass(frozen=True, slots=True)
class Facts:
    """A node.

    Attributes:
        architecture: As `uname -m` has it.
        release: The kernel's, as `uname -r` has it.
        vendor: The processor's maker: `GenuineIntel`, `AuthenticAMD`, `IBM/S390`; empty where it is not told.
        flags: The processor's features, in the kernel's words.
        modules: Modules of the kernel that are loaded, or part of it.
        loadable: Modules that there are for this kernel, loaded or not.
        nested: The parameter `nested` of the modules that have it.
        devices: What of `DEVICES` there is.
        memory: In bytes.
        model: What the processor calls itself; empty where it is not told.
    """

    architecture: str
    release: str
    vendor: str
    flags: frozenset[str]
    modules: frozenset[str]
    loadable: frozenset[str]
    nested: Mapping[str, bool]
    devices: frozenset[str]
    memory: int
    model: str = ""

    @property
    def virtual(self) -> bool:
        """Whether the node is a virtual machine itself, as far as its processor says."""
        return "hypervisor" in self.flags


def read(root: Path = Path("/"), *, architecture: str = "", release: str = "") -> Facts:
    """Read what a node is. What cannot be read counts as not there.

    Args:
        root: Where its /proc, /sys, /dev and /lib/modules are.
        architecture: As `uname -m` has it; empty asks this node.
        release: As `uname -r` has it; empty asks this node.
    """
    release = release or os.uname().release
    processor = _text(root / "proc/cpuinfo")
    builtin, loadable = (
        frozenset(map(_module, _text(root / "lib/modules" / release / name).splitlines()))
        for name in ("modules.builtin", "modules.dep")
    )
    loaded = {line.split()[0] for line in _text(root / "proc/modules").splitlines() if line.strip()}
    shown = {path.name for path in (root / "sys/module").glob("*")}  # with those that the kernel has built in
    nested = {name: _text(root / "sys/module" / name / "parameters/nested").strip() for name in _NESTED}
    return Facts(
        architecture=architecture or os.uname().machine,
        release=release,
        vendor=_field(processor, "vendor_id"),
        flags=frozenset((_field(processor, "flags") or _field(processor, "features")).split()),
        modules=frozenset(loaded | shown | builtin),
        loadable=loadable | builtin,
        nested={name: value in ("Y", "1") for name, value in nested.items() if value},
        devices=frozenset(name for name in DEVICES if (root / "dev" / name).exists()),
        memory=memory(root).get("MemTotal", 0),
        model=_field(processor, "model name"),
    )


def memory(root: Path = Path("/")) -> dict[str, int]:
    """The fields of /proc/meminfo: bytes, or numbers of pages where they are no sizes."""
    fields: dict[str, int] = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        amount, *unit = rest.split() or ["0"]
        if amount.isdigit():
            fields[name.strip()] = int(amount) * (1024 if unit == ["kB"] else 1)
    return fields


def os_release(root: Path = Path("/")) -> dict[str, str]:
    """The fields of os-release(5); none where it cannot be read."""
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release")
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value[1:-1] if value[:1] in ("'", '"') else value for key, equals, value in pairs if equals}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """The first of /proc's fields of that name."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return ""


def _module(line: str) -> str:
    """A module's name by its file: `kernel/virt/kvm/kvm-intel.ko.xz: ...` is kvm_intel."""
    return line.partition(":")[0].rpartition("/")[2].partition(".")[0].replace("-", "_")
