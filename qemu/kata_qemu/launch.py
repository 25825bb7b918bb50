"""A machine on its way up: its sockets, its daemons, its parts, its process, its monitor."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from kata_py.config.model import HypervisorConfig
from kata_py.hypervisor.api import Accelerator, GuestDevice, HypervisorError, Nic, SharedDirectory, VfioDevice, VmSpec
from kata_py.resource.confinement import User
from kata_py.resource.journal import Journal
from kata_qemu import monitor, privileges, virtiofsd
from kata_qemu.bus import Bus, Place, ScsiPlace
from kata_qemu.channel import open_channel
from kata_qemu.cmdline import Machine, kernel_parameters
from kata_qemu.console import Console
from kata_qemu.devices.balloon import Balloon
from kata_qemu.devices.block import Disk, ScsiController, iothread
from kata_qemu.devices.entropy import RandomNumbers
from kata_qemu.devices.memory import Dimm, GrowingMemory, Ram
from kata_qemu.devices.serial import ConsoleDevice
from kata_qemu.devices.share import Share
from kata_qemu.devices.vfio import Vfio, ports
from kata_qemu.lines import Tail, reading
from kata_qemu.monitor import Monitor, MonitorError
from kata_qemu.parts import Frontend, Part
from kata_qemu.platform import Platform
from kata_qemu.process import Program, running
from kata_qemu.resize import Resizer, growing
from kata_qemu.sockets import connected, listening
from kata_qemu.vm import LAST_WORDS_TIMEOUT, Later, QemuVm, plain

BRIDGES_MAX = 5  # as upstream
SCSI_DISKS = 256  # more than any pod has; SCSI itself would take some thousands

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """What one machine is made from, and with.

    Attributes:
        config: How QEMU and virtiofsd are run.
        spec: The machine wanted; its files were checked, its directory is there.
        platform: Its machine type.
        accelerator: What runs its instructions: not AUTO any more.
        journal: Where changes to the host are written down.
        daemons: Gets what is to be ended after QEMU.
        life: Gets QEMU, and what is to be ended before it.
        user: Whom QEMU runs as; None is root.
        tail: Keeps the last lines of console and processes.
    """

    config: HypervisorConfig
    spec: VmSpec
    platform: Platform
    accelerator: Accelerator
    journal: Journal
    daemons: AsyncExitStack
    life: AsyncExitStack
    user: User | None = None
    tail: Tail = field(default_factory=Tail)
    _share_numbers: Iterator[int] = field(default_factory=itertools.count)

    async def run(self) -> QemuVm:
        """Start the machine; it runs when this returns, its guest may not yet.

        Raises:
            HypervisorError: It could not be started.
            OSError: No disk space, memory, processes or descriptors left.
        """
        directory = self.spec.directory
        bus = self.platform.bus()
        privileges.lend(directory, self.user, 0o710)
        with ExitStack() as handover:  # what is ours only until QEMU has inherited it
            monitor_socket = handover.enter_context(listening(directory / "qmp.sock"))
            console_socket = handover.enter_context(listening(directory / "console.sock"))
            extra_monitor = self._extra_monitor(handover)
            parts: list[Part] = [
                *Ram(
                    self.spec.memory.size,
                    huge_pages=self.config.enable_hugepages,
                    preallocated=self.config.enable_mem_prealloc,
                ).parts(),
                *ConsoleDevice(self.platform.console[1], console_socket.fileno()).parts(),
                *self._iommu(),
            ]
            if image := self.spec.boot.image:  # the first disk, so /dev/vda
                parts += Disk("image", image, bus.place(), True, image.is_block_device()).parts()
            channel = await open_channel(
                self.spec.agent_channel, directory, bus.place(), self.journal, self.tail,
                life=self.daemons, handover=handover,
                log=self.spec.agent_log, debug_console=self.spec.debug_console,
            )  # fmt: skip
            parts += channel.device.parts()
            if source := self.config.entropy_source:
                parts += RandomNumbers(source, bus.place()).parts()
            if self.config.reclaim_guest_freed_memory:
                parts += Balloon(bus.place()).parts()
            programs = await self._add_devices(parts, bus)
            if channel.program:
                programs.append(channel.program)
            if self.spec.memory.virtio_mem and (most := growing(self.spec.memory)):
                parts += GrowingMemory(
                    most, bus.place(), self.config.enable_hugepages, self.config.enable_mem_prealloc
                ).parts()
            host_ports, present = self._add_host_devices(parts, bus)
            later = self._add_places_for_later(parts, bus, host_ports)

            line = self._machine(channel.guest_address, parts, monitor_socket.fileno(), extra_monitor).argv()
            ours = self.life.enter_context(connected(directory / "qmp.sock"))
            console = self.life.enter_context(connected(directory / "console.sock"))
            with self.journal.span("qemu"):
                inherited = (monitor_socket.fileno(), console_socket.fileno(), *channel.descriptors)
                inherited += extra_monitor[:1] if extra_monitor else ()
                inherited += tuple(
                    fd for nic in self.spec.devices if isinstance(nic, Nic) for fd in (*nic.tap_fds, *nic.vhost_fds)
                )
                qemu = await self.life.enter_async_context(self._qemu(line, inherited))
                handover.close()  # from now on our ends of the sockets hear of QEMU's end
                lines = Console(directory / "console.sock", self.tail, self.journal)
                self.life.enter_context(reading(console.fileno(), lines.take))
                session = await self._connect(ours, qemu, programs)
        vm = QemuVm(
            qemu, session, channel.address, self.tail, later, self.open_share, self._resizer(session),
            daemons=self.daemons, life=self.life, block=self.config, ports=channel.ports,
            present=present,
        )  # fmt: skip
        for program in programs:
            vm.depend_on(program)
        return vm

    @asynccontextmanager
    async def open_share(self, shared: SharedDirectory, place: Place) -> AsyncIterator[tuple[Share, Program]]:
        """Serve a directory; gives its device, and the daemon that the machine depends on from then on."""
        if not shared.source.is_dir():
            raise HypervisorError(virtiofsd.NAME, f"there is no directory {shared.source} to share")
        number = next(self._share_numbers)
        path = self.spec.directory / (f"vhost-fs-{number}.sock" if number else "vhost-fs.sock")
        settings = virtiofsd.Settings(
            self.config.virtio_fs_daemon, self.config.virtio_fs_cache, self.config.virtio_fs_extra_args, self.spec.debug
        )
        confinement = privileges.of_virtiofsd(self.spec)
        async with virtiofsd.serving(settings, shared.source, path, self.journal, self.tail, confinement) as daemon:
            privileges.lend(path, self.user, 0o600)
            yield Share(f"share{number}", shared.tag, path, place, self.config.virtio_fs_queue_size), daemon

    async def _add_devices(self, parts: list[Part], bus: Bus) -> list[Program]:
        """The devices that the spec asks for; a share always behind a port, to be unplugged and restored."""
        programs = []
        with self.journal.span("virtiofsd"):
            for device in self.spec.devices:
                if isinstance(device, SharedDirectory):
                    place, port = bus.port()
                    share, daemon = await self.daemons.enter_async_context(self.open_share(device, place))
                    parts += [*port, *share.parts()]
                    programs.append(daemon)
                elif not isinstance(device, VfioDevice):
                    parts += plain(device, bus.place(), self.config).parts()
        return programs

    def _resizer(self, session: Monitor) -> Resizer:
        pages = {"huge_pages": self.config.enable_hugepages, "preallocated": self.config.enable_mem_prealloc}
        dimm = partial(Dimm, **pages) if self.platform.memory_slots else None
        # QEMU 7.2 corrupts its memory when it unplugs a processor under TCG, and dies at the next one plugged in.
        keeps_cpus = self.accelerator is Accelerator.TCG or not self.platform.removable_cpus
        return Resizer(session, self.spec.cpus, self.spec.memory, dimm, keeps_cpus=keeps_cpus)

    def _add_host_devices(self, parts: list[Part], bus: Bus) -> tuple[list[Place], dict[VfioDevice, GuestDevice]]:
        """The ports that the configuration keeps for devices of the host, and those that are there from the start."""
        config = self.config
        cold = [device for device in self.spec.devices if isinstance(device, VfioDevice)]
        kind = config.cold_plug_vfio if cold else config.hot_plug_vfio
        kept = config.pcie_switch_port if kind == "switch-port" else config.pcie_root_port
        if kind == "no-port" and (kept or cold):
            kind = "root-port"
        places, made = ports(kind, max(kept, len(cold), 0 if kind == "no-port" else 1), bus)
        parts += made
        present = {}
        for device in cold:
            place = places.pop(0)
            parts += Vfio(device, place).parts()
            present[device] = GuestDevice(device.id, place.guest_address)
        return places, present

    def _iommu(self) -> tuple[Part, ...]:
        """The guest's IOMMU; devices that come after it are behind it."""
        if not self.config.enable_iommu:
            return ()
        if self.platform.architecture != "x86_64":
            raise HypervisorError(
                "qemu", f"enable_iommu is true, and {self.platform.machine} has no IOMMU", hint="set it to false"
            )  # fmt: skip
        properties = {"intremap": True, "device-iotlb": True, "caching-mode": True}
        return (Frontend("intel-iommu", "iommu", properties),)

    def _interrupts(self) -> str:
        """KVM must leave interrupts to QEMU where an IOMMU remaps them."""
        return "kernel_irqchip=split" if self.config.enable_iommu and self.accelerator is Accelerator.KVM else ""

    def _add_places_for_later(self, parts: list[Part], bus: Bus, host_ports: list[Place]) -> Later:
        """What devices are plugged into once the machine runs: disks at a controller, if they are to be SCSI's."""
        config = self.config
        threads = [f"disk-thread-{number}" for number in range(config.indep_iothreads)]
        parts += map(iothread, threads)
        disks: list[Place] | None = None
        if config.block_device_driver == "virtio-scsi":
            thread = "scsi-thread" if config.enable_iothreads else ""
            if thread:
                parts.append(iothread(thread))
            parts += ScsiController(bus.place(), thread).parts()
            disks = [ScsiPlace(number) for number in range(SCSI_DISKS)]
        places, bridges = bus.for_later(min(max(config.default_bridges, 1), BRIDGES_MAX))
        parts += bridges
        return Later(places, disks if disks is not None else places, host_ports, tuple(threads))

    def _extra_monitor(self, handover: ExitStack) -> tuple[int, str] | None:
        form = self.config.extra_monitor_socket
        if not form:
            return None
        return handover.enter_context(listening(self.spec.directory / "extra-monitor.sock")).fileno(), form

    def _machine(
        self, agent: str, parts: Sequence[Part], monitor: int, extra_monitor: tuple[int, str] | None
    ) -> Machine:
        spec = self.spec
        return Machine(
            binary=self.config.path,
            platform=self.platform,
            name=f"sandbox-{spec.sandbox_id}",
            uuid=str(uuid.uuid4()),
            accelerator=self.accelerator,
            cpus=spec.cpus,
            memory=spec.memory,
            boot=spec.boot,
            append=kernel_parameters(self.platform, spec.boot, spec.cpus, agent, debug=spec.debug),
            parts=tuple(parts),
            monitor=monitor,
            extra_monitor=extra_monitor,
            pid_file=spec.directory / "pid",
            machine_options=",".join(filter(None, (self._interrupts(), self.config.machine_accelerators))),
            seccomp=self.config.seccompsandbox,
            firmware=self.config.firmware,
        )

    @asynccontextmanager
    async def _qemu(self, line: Sequence[str], inherited: Sequence[int]) -> AsyncIterator[Program]:
        """QEMU's process, its stderr in the log as the OpenShift guide promises (11.2.2)."""

        def on_line(pid: int, text: str) -> None:
            self.tail.add(text)
            mild = ": warning: " in text or ": info: " in text  # QEMU marks these, and never an error
            log.log(logging.WARNING if mild else logging.ERROR, "%s", text, extra={"qemuPid": pid})

        pid_file = self.spec.directory / "pid"
        pid_file.touch(mode=0o600)
        privileges.lend(pid_file, self.user, 0o600)
        confinement = privileges.of_qemu(self.config, self.spec, self.user)
        async with running(
            self.journal, "qemu", line, pass_fds=inherited, confinement=confinement, on_line=on_line
        ) as qemu:
            log.info("Start logging QEMU (qemuPid=%d)", qemu.pid, extra={"qemuPid": qemu.pid})
            try:
                yield qemu
            finally:
                log.info("Stop logging QEMU (qemuPid=%d)", qemu.pid, extra={"qemuPid": qemu.pid})

    async def _connect(self, ours: socket.socket, qemu: Program, daemons: Sequence[Program]) -> Monitor:
        try:
            return await self.life.enter_async_context(monitor.connect(ours))
        except MonitorError as error:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_TIMEOUT):
                    await qemu.wait()
            for program in (*daemons, qemu):  # QEMU does not start without its daemons
                if program.failed:
                    stage = program.name if program.name == virtiofsd.NAME else "qemu"
                    raise HypervisorError(stage, await program.wait(), evidence=self.tail.lines) from error
            raise HypervisorError(error.stage, error.cause, evidence=self.tail.lines, budget=error.budget) from error
