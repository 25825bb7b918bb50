"""A running machine that grows and shrinks: processors one by one, memory in slots or by virtio-mem.

Source: kata `virtcontainers/qemu.go` (hotplugCPUs, ResizeMemory), whose ids are kept; QEMU `qapi/machine.json`,
`qapi/acpi.json`, `docs/specs/acpi_{cpu,mem}_hotplug.rst`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import cast

from kata_py.hypervisor.api import HypervisorError, Memory, Size, Vcpus
from kata_qemu.devices.memory import MIB, Dimm, GrowingMemory
from kata_qemu.monitor import Monitor, MonitorError
from kata_qemu.parts import Command, Frontend, Part, Properties

UNPLUG_TIMEOUT = 5.0  # seconds that the guest may take to let go of a processor
MEMORY_TIMEOUT = 3.0  # seconds without progress in which virtio-mem is given up
STEP = 48  # times its memory that a guest can take in at once: each page costs it a 64th of one

# The guest's answers that a device does not go. Source: ACPI 6.4, section 6.3.5.2, status of an ejection.
_EJECTION, _PENDING = 3, 0x84

MakeDimm = Callable[[int, int], Dimm]

log = logging.getLogger(__name__)


class Resizer:
    """Grows and shrinks one machine; its owner sees to it that one thing is done at a time.

    Args:
        monitor: The QMP session.
        cpus: What the machine was started with.
        memory: Likewise.
        dimm: Makes a piece of memory of a slot and a size in MiB; None where this machine has no slots.
        keeps_cpus: Whether processors that were plugged in stay for good.
    """

    def __init__(
        self, monitor: Monitor, cpus: Vcpus, memory: Memory, dimm: MakeDimm | None, *, keeps_cpus: bool
    ) -> None:
        self._monitor = monitor
        self._keeps_cpus = keeps_cpus
        self._max_cpus = cpus.maximum
        self._boot_cpus = cpus.count
        self._memory = memory
        self._dimm = dimm
        self._cpus: list[Frontend] = []
        self._dimms: list[Dimm] = []
        self._grown = 0  # MiB of virtio-mem

    @property
    def size(self) -> Size:
        """How large the machine is."""
        plugged = sum(dimm.size for dimm in self._dimms) + self._grown
        return Size(self._boot_cpus + len(self._cpus), self._memory.size + plugged)

    async def step(self, wanted: Size, block: int) -> Size:
        """As `Resizable.resize`."""
        if not self._keeps_cpus:
            while self.size.cpus > max(wanted.cpus, self._boot_cpus) and await self._drop_cpu():
                pass
        if wanted.cpus > self.size.cpus:
            await self._add_cpus(min(wanted.cpus, self._max_cpus) - self.size.cpus)
        if self._memory.virtio_mem:
            await self._ask_for_memory(wanted.memory - self._memory.size, block)
        elif wanted.memory > self.size.memory:
            await self._add_memory(wanted.memory - self.size.memory, block)
        elif wanted.memory < self.size.memory:
            while self._dimms and self.size.memory - self._dimms[-1].size >= wanted.memory:
                if not await self._drop_dimm():
                    break
        return self.size

    async def vcpu_threads(self) -> tuple[int, ...]:
        """As `VcpuThreads.vcpu_threads`."""
        threads = {number(cpu, "cpu-index"): number(cpu, "thread-id") for cpu in await self._query("query-cpus-fast")}
        return tuple(threads[index] for index in sorted(threads))

    async def _add_cpus(self, count: int) -> None:
        # QEMU lists the last place first.
        places = [place for place in await self._query("query-hotpluggable-cpus") if "qom-path" not in place]
        fault: MonitorError | None = None
        for place in reversed(places):
            if count <= 0:
                return
            properties = cast(Properties, place["props"])
            cpu = Frontend(str(place["type"]), f"cpu-{len(self._cpus)}", dict(properties))
            try:
                await self._monitor.execute(cpu.addition())
            except MonitorError as error:
                log.warning("a processor is not taken in: %s", error)
                fault = error
                continue
            self._cpus.append(cpu)
            count -= 1
        if fault is not None:
            raise fault

    async def _drop_cpu(self) -> bool:
        """Unplug the newest processor. Its place tells that it is gone; the event comes late, or under TCG never."""
        cpu = self._cpus[-1]

        async def gone() -> bool:
            path = f"/machine/peripheral/{cpu.id}"
            return path not in [place.get("qom-path") for place in await self._query("query-hotpluggable-cpus")]

        if await self._eject(cpu, gone):
            self._cpus.pop()
            return True
        return False

    async def _add_memory(self, more: int, block: int) -> None:
        if self._dimm is None or not self._memory.slots:
            log.warning("this machine takes no memory while it runs: set memory_slots, or enable_virtio_mem")
            return
        slot = next((n for n in range(self._memory.slots) if n not in [dimm.slot for dimm in self._dimms]), None)
        if slot is None:
            log.warning("all %d memory_slots are taken: no memory can be plugged in", self._memory.slots)
            return
        room = (self._memory.maximum - self.size.memory) // block * block
        piece = min(-(-more // block) * block, room, max(STEP * self.size.memory // block * block, block))
        if piece > 0:
            dimm = self._dimm(slot, piece)
            await self._plug(dimm.parts())
            self._dimms.append(dimm)

    async def _drop_dimm(self) -> bool:
        """Unplug the newest piece of memory, which a guest can rarely spare: its kernel has settled there."""
        backend, front = self._dimms[-1].parts()

        async def gone() -> bool:
            devices = await self._query("query-memory-devices")
            return self._dimms[-1].id not in [
                cast("Mapping[str, object]", device["data"]).get("id") for device in devices
            ]

        if not await self._eject(front, gone):
            return False
        self._dimms.pop()
        await self._monitor.execute(backend.removal())
        return True

    async def _ask_for_memory(self, more: int, block: int) -> None:
        """Ask the guest to take memory, or to give it back, and wait while it does."""
        most = growing(self._memory)
        wanted = min(max(-(-more // block) * block, 0), most // block * block)
        wanted = min(wanted, self._grown + STEP * self.size.memory)
        if wanted == self._grown:
            return
        with self._monitor.events("MEMORY_DEVICE_SIZE_CHANGE") as changes:
            path = f"/machine/peripheral/{GrowingMemory.ID}"
            request = {"path": path, "property": "requested-size", "value": wanted * MIB}
            await self._monitor.execute(Command("qom-set", request))
            with suppress(TimeoutError):
                while self._grown != wanted:
                    async with asyncio.timeout(MEMORY_TIMEOUT):
                        change = await anext(changes, None)
                    if change is None:
                        raise HypervisorError("qemu", "the machine has ended while its memory was changed")
                    self._grown = number(change.data, "size") // MIB
        if self._grown != wanted:
            log.warning("the guest is at %d of %d MiB of virtio-mem", self._grown, wanted)

    async def _plug(self, parts: Sequence[Part]) -> None:
        begun: list[Part] = []
        try:
            for part in parts:
                begun.append(part)
                await self._monitor.execute(part.addition())
        except BaseException:
            for part in reversed(begun):
                with suppress(MonitorError):
                    await self._monitor.execute(part.removal())
            raise

    async def _eject(self, device: Part, gone: Callable[[], Awaitable[bool]]) -> bool:
        """Ask the guest to let go of a device; whether it did, in time."""
        id = device.removal().arguments["id"]
        with self._monitor.events("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "ACPI_DEVICE_OST") as answers:
            await self._monitor.execute(device.removal())
            with suppress(TimeoutError):
                async with asyncio.timeout(UNPLUG_TIMEOUT):
                    async for answer in answers:
                        if await gone():
                            return True
                        if answer.name == "DEVICE_UNPLUG_GUEST_ERROR" or _refuses(answer.data.get("info"), id):
                            log.warning("the guest does not let go of %s", id)
                            return False
        log.warning("the guest does not let go of %s within %g s", id, UNPLUG_TIMEOUT)
        return False

    async def _query(self, name: str) -> list[Mapping[str, object]]:
        return cast("list[Mapping[str, object]]", await self._monitor.execute(Command(name)))


def growing(memory: Memory) -> int:
    """MiB of virtio-mem that a machine can have at most."""
    return max(memory.maximum - memory.size, 0) // GrowingMemory.UNIT * GrowingMemory.UNIT


def number(data: Mapping[str, object], key: str) -> int:
    """A number in QMP's answers."""
    value = data[key]
    assert isinstance(value, int)
    return value


def _refuses(info: object, id: object) -> bool:
    """Whether the guest's word on a device is that an ejection has failed."""
    if not isinstance(info, dict) or info.get("device") != id or info.get("source") != _EJECTION:
        return False
    return info.get("status") not in (0, _PENDING)
