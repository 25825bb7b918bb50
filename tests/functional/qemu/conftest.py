"""Machines with the real QEMU and virtiofsd, and a guest of a hundred bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor.api import Boot, Memory, SharedDirectory, VmSpec
from kata_py.resource.undo import KillProcess
from kata_qemu.driver import QemuHypervisor
from kata_qemu.vm import QemuVm
from tests.drivers.journal import ListJournal
from tests.functional.qemu import stub

CONFIG = HypervisorConfig(
    "qemu", path=Path("/usr/bin/qemu-system-x86_64"), virtio_fs_daemon=Path("/usr/lib/qemu/virtiofsd")
)


@dataclass
class Bench:
    """Where a test builds its machine: change what is to be different, then launch."""

    place: Path
    spec: VmSpec
    config: HypervisorConfig = CONFIG
    journal: ListJournal = field(default_factory=ListJournal)

    def guest(self, *lines: str, ending: stub.Ending = stub.Ending.IDLE) -> None:
        """Boot a guest that says these lines."""
        self.spec = replace(self.spec, boot=Boot(stub.write(self.place / "kernel", *lines, ending=ending)))

    def share(self) -> Path:
        """Give the machine a shared directory."""
        source = self.place / "share"
        source.mkdir()
        self.spec = replace(self.spec, devices=(*self.spec.devices, SharedDirectory("kataShared", source)))
        return source

    def s390x(self) -> None:
        """Emulate an s390x machine; the guest's code is nonsense to it."""
        self.config = replace(self.config, path=Path("/usr/bin/qemu-system-s390x"))
        self.spec = replace(self.spec, machine="s390-ccw-virtio")

    @property
    def driver(self) -> QemuHypervisor:
        return QemuHypervisor(Configuration(self.config, Path("/etc/kata-containers/configuration.toml")))

    def launch(self) -> AbstractAsyncContextManager[QemuVm]:
        return self.driver.launch(self.spec, self.journal)

    def pid_of(self, name: str) -> int:
        """The pid on record of a program that runs."""
        return next(e.pid for e in self.journal.entries if isinstance(e, KillProcess) and e.name == name)

    def left_behind(self) -> list[object]:
        """What a launch must not leave: entries of the journal, and files."""
        machines = self.place / "vm"
        return [*self.journal.entries, *(machines.iterdir() if machines.exists() else ())]


@pytest.fixture
def bench(short_tmp: Path) -> Iterator[Bench]:
    place = next(path for n in itertools.count() if not (path := short_tmp / f"q{n}").exists())
    place.mkdir()
    bench = Bench(place, VmSpec("pod1", place / "vm" / "pod1", Boot(place / "kernel"), memory=Memory(128, 128, 0)))
    bench.guest("kata-boot: initramfs", "kata-boot: agent")
    yield bench
    assert bench.left_behind() == []
