"""The drivers that pass the suite, and the machine that each is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor.api import Boot, Hypervisor, Memory, SharedDirectory, VmSpec
from kata_qemu.driver import QemuHypervisor
from tests.conftest import GUEST
from tests.drivers.memory import MemoryHypervisor
from tests.drivers.namespace import NamespaceHypervisor
from tests.functional.qemu import stub

SANDBOX = "conformance"


def configuration(name: str) -> Configuration:
    """What the driver is made with."""
    config = HypervisorConfig(
        name, path=Path("/usr/bin/qemu-system-x86_64"), virtio_fs_daemon=Path("/usr/lib/qemu/virtiofsd")
    )
    return Configuration(config, Path("/etc/kata-containers/configuration.toml"))


@dataclass(frozen=True)
class Case:
    """A driver, and what its machines boot: a guest that idles, or one with an agent."""

    name: str
    make: Callable[[Configuration], Hypervisor]
    idle: Callable[[Path], Boot] = lambda top: Boot(top / "kernel")
    whole: Callable[[], Boot] = lambda: Boot(Path("kernel"))

    def driver(self) -> Hypervisor:
        return self.make(configuration(self.name))

    def spec(self, top: Path, *, whole: bool = False) -> VmSpec:
        """A machine with a share, its files below the directory."""
        source = top / "share"
        source.mkdir(exist_ok=True)
        return VmSpec(
            SANDBOX,
            top / "vm" / SANDBOX,
            self.whole() if whole else self.idle(top),
            memory=Memory(512 if whole else 128, 512, 0),
            devices=(SharedDirectory("kataShared", source),),
        )


def _built() -> Boot:
    boot = json.loads((GUEST / "boot.json").read_text())
    return Boot(
        GUEST / boot["kernel"], GUEST / boot["initramfs"], GUEST / boot["image"], boot["image_fstype"],
        tuple(boot["parameters"]),
    )  # fmt: skip


CASES = {
    case.name: case
    for case in (
        Case("memory", MemoryHypervisor),
        Case("namespace", NamespaceHypervisor),
        Case("qemu", QemuHypervisor, lambda top: Boot(stub.write(top / "kernel", "idle")), _built),
    )
}
