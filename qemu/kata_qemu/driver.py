"""QEMU as a hypervisor driver: from a spec to a running machine."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor.api import Accelerator, HypervisorError, SharedDirectory, VmSpec
from kata_py.resource.journal import Journal, undone
from kata_py.resource.undo import RemoveTree
from kata_qemu import privileges, virtiofsd
from kata_qemu.accelerator import choose
from kata_qemu.devices.block import io_uring_obstacle
from kata_qemu.devices.memory import free_huge_pages
from kata_qemu.launch import Launch
from kata_qemu.platform import Platform, platform
from kata_qemu.vm import QemuVm

log = logging.getLogger(__name__)


class QemuHypervisor:
    """The driver `qemu`, a `kata_py.hypervisor.api.Hypervisor`.

    Args:
        configuration: Where QEMU and virtiofsd are, and how they are run.
    """

    name = "qemu"

    def __init__(self, configuration: Configuration) -> None:
        self._config = configuration.hypervisor
        self._source = configuration.source
        self._told_fallback = False
        self._told_threads = False

    @asynccontextmanager
    async def launch(self, spec: VmSpec, journal: Journal) -> AsyncIterator[QemuVm]:
        """As `Hypervisor.launch`. Leaving kills QEMU and its daemons; the guest is not asked."""
        kind = platform(spec.machine)
        accelerator = self._accelerator(spec.accelerator, kind)
        self._check_files(spec)
        self._check_disks(kind)
        config = self._usable()
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(_machine_directory(spec.directory, journal))
                daemons = await stack.enter_async_context(AsyncExitStack())
                life = await stack.enter_async_context(AsyncExitStack())
                user = life.enter_context(privileges.user_of(config, spec, accelerator))
                vm = await Launch(config, spec, kind, accelerator, journal, daemons, life, user).run()
            except OSError as error:
                raise HypervisorError("qemu", f"cannot start the machine: {error}") from error
            try:
                yield vm
            finally:
                vm.end("stopped", expected=True)

    def _accelerator(self, wanted: Accelerator, kind: Platform) -> Accelerator:
        accelerator, obstacle = choose(wanted, kind.architecture)
        if obstacle and not self._told_fallback:
            log.warning("guests are emulated, which is slow: %s", obstacle)
            self._told_fallback = True
        return accelerator

    def _usable(self) -> HypervisorConfig:
        """The configuration with what this host has: io_uring is forbidden on some, and threads do as well."""
        if self._config.block_device_aio != "io_uring" or not (obstacle := io_uring_obstacle()):
            return self._config
        if not self._told_threads:
            log.warning("disks are read and written by threads, not by io_uring: %s", obstacle)
            self._told_threads = True
        return replace(self._config, block_device_aio="threads")

    def _check_files(self, spec: VmSpec) -> None:
        boot = spec.boot
        self._need("qemu", "path", self._config.path, "install qemu-system", os.X_OK)
        self._need("qemu", "kernel", boot.kernel, "build the guest with `make guest`")
        if boot.initramfs:
            self._need("qemu", "initramfs", boot.initramfs, "build the guest with `make guest`")
        if boot.image:
            self._need("qemu", "image", boot.image, "build the guest with `make guest`")
        if self._config.enable_hugepages and (free := free_huge_pages()) < spec.memory.size:
            raise HypervisorError(
                "qemu",
                f"the guest needs {spec.memory.size} MiB of huge pages, and {free} MiB are free",
                hint=f"raise vm.nr_hugepages, or set `enable_hugepages` in {self._source} to false",
            )
        if self._config.firmware:
            self._need("qemu", "firmware", self._config.firmware, "install it")
        if any(isinstance(device, SharedDirectory) for device in spec.devices):
            fix = f"install one: {virtiofsd.DEBIAN}"
            self._need(virtiofsd.NAME, "virtio_fs_daemon", self._config.virtio_fs_daemon, fix, os.X_OK)

    def _check_disks(self, kind: Platform) -> None:
        driver = self._config.block_device_driver
        if driver == "virtio-blk-ccw" and kind.architecture != "s390x":
            raise HypervisorError(
                "qemu",
                f"a machine {kind.machine} has no {driver}",
                hint=f"set `block_device_driver` in {self._source} to virtio-blk or virtio-scsi",
            )

    def _need(self, stage: str, key: str, path: Path, fix: str, mode: int = os.R_OK) -> None:
        if not path.exists():
            fault = "does not exist"
        elif not path.is_file() and not path.is_block_device():
            fault = "is not a file"
        elif not os.access(path, mode):
            fault = "is not executable" if mode == os.X_OK else "cannot be read"
        else:
            return
        raise HypervisorError(stage, f"{path} {fault}", hint=f"correct `{key}` in {self._source}, or {fix}")


@contextmanager
def _machine_directory(path: Path, journal: Journal) -> Iterator[None]:
    """Make the directory of the machine's sockets; it is gone again when the context ends."""
    if path.exists():
        raise HypervisorError(
            "qemu", f"{path} is there already: the sandbox has a machine, or an earlier one was not cleaned up"
        )
    with undone(journal, RemoveTree(str(path))):
        path.mkdir(mode=0o700, parents=True)
        yield
