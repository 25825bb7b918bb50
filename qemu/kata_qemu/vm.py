"""A running machine: its end, whatever brought it about, and devices plugged into it."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from types import MappingProxyType

from kata_py.config.hypervisor import BlockConfig
from kata_py.hypervisor.api import (
    BlockDevice,
    Device,
    GuestDevice,
    HypervisorError,
    Nic,
    Ports,
    SharedDirectory,
    Size,
    VfioDevice,
    VmExit,
)
from kata_py.network.tap import attach_queues
from kata_py.resource.cgroup import OomKills
from kata_py.ttrpc.address import Address
from kata_qemu.bus import Place
from kata_qemu.devices.block import SERIAL_MAX, Disk
from kata_qemu.devices.nic import Interface
from kata_qemu.devices.share import Share
from kata_qemu.devices.vfio import Vfio
from kata_qemu.lines import Tail
from kata_qemu.monitor import CommandFailed, DeviceNotFound, Event, Monitor, MonitorError
from kata_qemu.parts import BlockNode, Command, Frontend, Part, TapBackend
from kata_qemu.process import Program
from kata_qemu.resize import Resizer

_KILLED = f"killed by signal {signal.SIGKILL:d}"

UNPLUG_TIMEOUT = 5.0  # seconds that the guest may take to let go of a device
LAST_WORDS_TIMEOUT = 1.0  # seconds to read what QEMU said before it died

# Starts a share's daemon; gives the device and the daemon.
OpenShare = Callable[[SharedDirectory, Place], AbstractAsyncContextManager[tuple[Share, Program]]]


@dataclass(frozen=True, slots=True)
class Later:
    """Where devices are plugged into a running machine. What is taken is taken out of the lists, and put back.

    Attributes:
        places: For devices of all kinds.
        disks: For disks; the same list, unless they are SCSI's.
        host_devices: For devices of the host.
        threads: Threads that serve disks of virtio-blk, in turns.
    """

    places: list[Place]
    disks: list[Place]
    host_devices: list[Place]
    threads: tuple[str, ...] = ()

    def places_of(self, device: Device) -> list[Place]:
        """The places of a device's kind."""
        if isinstance(device, VfioDevice):
            return self.host_devices
        return self.disks if isinstance(device, BlockDevice) else self.places


class QemuVm:
    """A running machine, as `kata_py.hypervisor.api.Vm`; made by the driver.

    Args:
        qemu: Its process.
        monitor: Its QMP session.
        agent: Where its agent is reached.
        tail: What console and processes said last.
        later: Where devices are plugged in.
        open_share: Opens a share.
        resizer: Grows and shrinks it.
        daemons: Holds what is ended after QEMU.
        life: Holds what is ended before QEMU.
        block: How disks are read and written.
        ports: Where the agent's other ports are reached.
        present: Devices of the host that are there from the start, and where.
    """

    def __init__(
        self,
        qemu: Program,
        monitor: Monitor,
        agent: Address,
        tail: Tail,
        later: Later,
        open_share: OpenShare,
        resizer: Resizer,
        *,
        daemons: AsyncExitStack,
        life: AsyncExitStack,
        block: BlockConfig,
        ports: Ports,
        present: Mapping[VfioDevice, GuestDevice] = MappingProxyType({}),
    ) -> None:
        self._qemu = qemu
        self._monitor = monitor
        self._agent = agent
        self._tail = tail
        self._later = later
        self._present = present
        self._plugged: dict[str, _Plugged] = {}
        self._threads = itertools.cycle(later.threads)
        self._open_share = open_share
        self._resizer = resizer
        self._daemons = daemons
        self._life = life
        self._block = block
        self._ports = ports
        self._exit: asyncio.Future[VmExit] = asyncio.get_running_loop().create_future()
        self._plugging = asyncio.Lock()
        self._shutdown: Event | None = None
        events = life.enter_context(monitor.events("SHUTDOWN"))
        self._listening = self._start(self._note_shutdown(events), "shutdown events")
        self._ending = self._start(self._watch_qemu(), "end of qemu")

    @property
    def agent(self) -> Address:
        """As `Vm.agent`."""
        return self._agent

    @property
    def ports(self) -> Ports:
        """As `OffersPorts.ports`."""
        return self._ports

    @property
    def pid(self) -> int:
        """As `Vm.pid`: QEMU's."""
        return self._qemu.pid

    def console_tail(self) -> tuple[str, ...]:
        """As `Vm.console_tail`."""
        return self._tail.lines

    async def wait(self) -> VmExit:
        """As `Vm.wait`."""
        return await asyncio.shield(self._exit)

    def depend_on(self, program: Program) -> None:
        """From now on the machine ends when the program does."""
        self._start(self._watch(program), f"end of {program.name}")

    def end(self, cause: str, *, expected: bool = False) -> None:
        """The machine has ended; the first cause counts."""
        if not self._exit.done():
            self._exit.set_result(VmExit(cause, expected, self._tail.lines))

    async def attach(self, device: Device) -> GuestDevice:
        """As `Vm.attach`."""
        async with self._plugging, AsyncExitStack() as stack:
            if self._exit.done():
                raise HypervisorError("qemu", f"the machine has ended: {self._exit.result().cause}")
            if isinstance(device, VfioDevice) and device in self._present:
                return self._present[device]
            places = self._later.places_of(device)
            if not places:
                keys = "pcie_root_port` or `pcie_switch_port" if isinstance(device, VfioDevice) else "default_bridges"
                raise HypervisorError("qemu", f"no place is left to plug in {device}", hint=f"raise `{keys}`")
            place = places[0]
            try:
                if isinstance(device, SharedDirectory):
                    plugged, program = await stack.enter_async_context(self._open_share(device, place))
                    await self._plug(plugged.parts())
                    self.depend_on(program)
                    id = plugged.id
                else:
                    added = plain(device, place, self._block, self._thread(device, place))
                    await self._plug(added.parts())
                    id = added.id
                    self._plugged[id] = _Plugged(place, places, added.parts())
            except OSError as error:
                raise HypervisorError("qemu", f"cannot plug in {device}: {error}") from error
            places.remove(place)
            self._daemons.push_async_exit(stack.pop_all())
            return GuestDevice(id, place.guest_address, place.driver)

    async def detach(self, device: GuestDevice) -> None:
        """As `Vm.detach`. A guest that does not let go of a device in time keeps it, and may be asked again."""
        async with self._plugging:
            if device in self._present.values():
                return  # it goes with the machine
            if device.id not in self._plugged:
                raise HypervisorError("qemu", f"{device.id} was not plugged in, or cannot be taken out")
            plugged = self._plugged[device.id]
            try:
                while plugged.parts:
                    with suppress(DeviceNotFound):  # it was asked before, and let go of it since
                        await self._unplug(plugged.parts[-1])
                    plugged.parts = plugged.parts[:-1]
            except TimeoutError:
                raise HypervisorError(
                    "qemu", f"the guest did not let go of {device.id} within {UNPLUG_TIMEOUT:g} s"
                ) from None
            del self._plugged[device.id]
            plugged.places.append(plugged.place)

    def _thread(self, device: Device, place: Place) -> str:
        """The thread of a disk there; at a SCSI controller it is the controller's."""
        return next(self._threads, "") if isinstance(device, BlockDevice) and place.disk == "virtio-blk" else ""

    @property
    def size(self) -> Size:
        """As `Resizable.size`."""
        return self._resizer.size

    async def resize(self, wanted: Size, *, block: int) -> Size:
        """As `Resizable.resize`."""
        async with self._plugging:
            return await self._resizer.step(wanted, block)

    async def vcpu_threads(self) -> tuple[int, ...]:
        """As `VcpuThreads.vcpu_threads`."""
        return await self._resizer.vcpu_threads()

    async def grow_disk(self, device: GuestDevice, size: int) -> None:
        """As `GrowsDisks.grow_disk`. Source: QEMU `qapi/block-core.json`, block_resize."""
        async with self._plugging:
            plugged = self._plugged.get(device.id)
            parts = plugged.parts if plugged is not None else ()
            node = next((part for part in parts if isinstance(part, BlockNode)), None)
            if node is None:
                raise HypervisorError("qemu", f"{device.id} was not plugged in, or is no disk")
            try:
                await self._monitor.execute(Command("block_resize", {"node-name": node.id, "size": size}))
            except MonitorError as error:
                raise HypervisorError("qemu", f"cannot let {device.id} have {size} bytes: {error.cause}") from error

    async def _plug(self, parts: Sequence[Part]) -> None:
        """Add the parts in order; if one cannot be added, or we are cancelled, none stays."""
        begun: list[Part] = []
        try:
            for part in parts:
                begun.append(part)
                if isinstance(part, TapBackend):
                    await self._lend(part)
                await self._monitor.execute(part.addition())
        except BaseException as error:
            for part in reversed(begun):  # the last one may have taken effect, too, unless it was refused
                if part is not begun[-1] or not isinstance(error, CommandFailed):
                    with suppress(MonitorError, TimeoutError):
                        await self._unplug(part)
                if isinstance(part, TapBackend):
                    await self._take_back(part)
            raise

    async def _lend(self, tap: TapBackend) -> None:
        for name, descriptor in tap.lent.items():
            await self._monitor.lend(name, descriptor)

    async def _take_back(self, tap: TapBackend) -> None:
        for name in tap.lent:
            with suppress(MonitorError):  # it was used, or never lent
                await self._monitor.execute(Command("closefd", {"fdname": name}))

    async def _unplug(self, part: Part) -> None:
        with self._monitor.events("DEVICE_DELETED") as deletions:
            await self._monitor.execute(part.removal())
            if isinstance(part, Frontend):
                async with asyncio.timeout(UNPLUG_TIMEOUT):
                    async for deletion in deletions:
                        if deletion.data.get("device") == part.id:
                            break
            elif isinstance(part, TapBackend):  # QEMU has detached what its guest did not use, and would abort if
                attach_queues(part.taps)  # it found them so another time

    async def _note_shutdown(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            self._shutdown = event

    async def _watch_qemu(self) -> None:
        kills = await asyncio.to_thread(OomKills, self.pid)
        how = await self._qemu.wait()
        if how.endswith(_KILLED) and (cgroup := kills.told()):
            how = f"qemu was killed by the host for want of memory: {cgroup}"
        await asyncio.wait([self._listening], timeout=LAST_WORDS_TIMEOUT)
        self.end(cause(how, self._shutdown, self._tail.lines))

    async def _watch(self, program: Program) -> None:
        how = await program.wait()
        if not program.failed:  # it has most likely seen the end of QEMU, which tells more
            await asyncio.wait([self._ending], timeout=LAST_WORDS_TIMEOUT)
        if self._qemu.alive:
            self.end(how)
            self._qemu.kill()

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{name} (qemu {self.pid})")
        self._life.push_async_callback(_cancel, task)
        return task


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@dataclass(slots=True)
class _Plugged:
    """A device that can be taken out: where it is, the list that its place is put back into, what is left of it."""

    place: Place
    places: list[Place]
    parts: Sequence[Part]


def plain(
    device: BlockDevice | Nic | VfioDevice, place: Place, block: BlockConfig, thread: str = ""
) -> Disk | Interface | Vfio:
    """What a device becomes that no further program serves; its arguments are those of `disk`.

    Raises:
        HypervisorError: As `disk`.
    """
    if isinstance(device, BlockDevice):
        return disk(device, place, block, thread)
    if isinstance(device, VfioDevice):
        return Vfio(device, place)
    return Interface(device.id, device.mac, device.tap_fds, device.vhost_fds, device.mtu, place)


def disk(device: BlockDevice, place: Place, block: BlockConfig, thread: str = "") -> Disk:
    """The disk that a block device becomes.

    Args:
        device: The block device.
        place: Where it sits.
        block: How it is read and written.
        thread: The thread that serves it.

    Raises:
        HypervisorError: It is not there, or its id is no serial number.
    """
    if not device.id.isascii() or not device.id.replace("-", "").isalnum() or len(device.id) > SERIAL_MAX:
        raise HypervisorError(
            "qemu", f"disk id {device.id!r} is not {SERIAL_MAX} letters, digits or hyphens at most"
        )  # fmt: skip
    if not device.path.exists():
        raise HypervisorError("qemu", f"there is no image or block device at {device.path}")
    return Disk(device.id, device.path, place, device.read_only, device.path.is_block_device(), block, thread)


_GUEST_ENDS = {
    "guest-shutdown": "guest powered off",
    "guest-reset": "guest rebooted",
    "guest-panic": "guest panicked",
}
_PANIC = "Kernel panic - not syncing"


def cause(how: str, shutdown: Event | None, tail: Sequence[str]) -> str:
    """Why the machine ended, in the words that tell most.

    Args:
        how: How QEMU's process ended.
        shutdown: QEMU's last event, if it said one. Source: QEMU `qapi/run-state.json`, ShutdownCause.
        tail: The last lines of the console.
    """
    reason = _GUEST_ENDS.get(str(shutdown.data.get("reason"))) if shutdown else None
    if not reason:
        return how
    panic = next((line for line in tail if _PANIC in line), "")
    return f"{reason} after {panic[panic.index(_PANIC) :]!r}" if panic else reason
