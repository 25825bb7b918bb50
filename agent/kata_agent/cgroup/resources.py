"""New limits for a cgroup that is in use, by its files.

Not by `crun update`: that cannot say which limit the kernel refuses, lowers a memory limit of v2 by killing what is
above it, and fails at whatever a host repeats though this generation lacks it. Device rules alone are crun's,
because v2's are a program.

Source: the kernel's cgroup-v1 and cgroup-v2 guides; runtime-spec's config-linux.md; the conversions of shares and
weights are those that crun and runc share.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kata_agent.cgroup.hierarchy import ROOT, Cgroup, CgroupV1, CgroupV2
from kata_agent.errors import AgentError, InvalidArgument

if TYPE_CHECKING:
    from kata_py.oci.spec import LinuxBlockIO, LinuxCPU, LinuxMemory, LinuxResources, LinuxThrottleDevice

_LOG = logging.getLogger(__name__)

_UNLIMITED_V1 = (1 << 63) - (1 << 12)  # what v1 shows for no limit, to the page


@dataclass(frozen=True, slots=True)
class _Write:
    """A value for a file, and the field of the spec that it is for.

    Attributes:
        optional: Whether a kernel without the file has the limit anyway.
    """

    field: str
    file: Path
    text: str
    optional: bool = False


def apply(cgroup: Cgroup, wanted: LinuxResources, current: LinuxResources) -> None:
    """Set what is wanted, in an order in which the kernel takes it. Blocks: memory may have to be freed.

    Args:
        cgroup: Which one.
        wanted: What changes; device rules are not looked at.
        current: What the spec has said so far.

    Raises:
        InvalidArgument: A limit that this generation of cgroups lacks, or that contradicts another; nothing is changed.
        AgentError: The kernel refuses one; names it. Those before it are set.
    """
    if "network" in wanted:
        _LOG.warning("resources.network is not for a guest, whose network all containers share")
    match cgroup:
        case CgroupV1(directories):
            writes = list(_v1(directories, wanted))
        case CgroupV2(directory):
            writes = list(_v2(directory, wanted, current))
    for write in writes:
        _carry_out(write)


def renew_cpus(cgroup: Cgroup, cpus: str, root: Path = ROOT) -> None:
    """Set the processors anew after others have come online.

    v2 keeps what was asked for and follows by itself, v1 had to leave out what was offline, also above the cgroup.

    Raises:
        AgentError: The kernel refuses.
    """
    match cgroup:
        case CgroupV1(directories) if "cpuset" in directories:
            top, directory = root / "cpuset", directories["cpuset"]
            online = (top / "cpuset.cpus").read_text().strip()
            for above in reversed([path for path in directory.parents if top in path.parents]):
                _carry_out(_Write("cpu.cpus", above / "cpuset.cpus", online))
            _carry_out(_Write("cpu.cpus", directory / "cpuset.cpus", cpus))
        case CgroupV2(directory):
            _carry_out(_Write("cpu.cpus", directory / "cpuset.cpus", cpus))
        case _:
            pass


def merged(current: LinuxResources, update: LinuxResources) -> LinuxResources:
    """The spec's resources after an update, which says only what changes."""
    result: dict[str, object] = dict(current)
    for key, value in update.items():
        before = result.get(key)
        result[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return cast("LinuxResources", result)


def _carry_out(write: _Write) -> None:
    if write.file.name == "memory.max" and write.text != "max":
        _make_room(write.file.parent, int(write.text))
    try:
        write.file.write_text(write.text)
    except FileNotFoundError:
        if not write.optional:
            raise AgentError(f"cannot set {write.field}: this kernel has no {write.file.name}") from None
    except OSError as error:
        if error.errno == errno.EBUSY and write.field == "memory.limit":
            usage = (write.file.parent / "memory.usage_in_bytes").read_text().strip()
            raise _too_low(write.text, usage) from error
        raise AgentError(f"cannot set {write.field} to {write.text}: {error.strerror} ({write.file.name})") from error


def _make_room(directory: Path, limit: int) -> None:
    """Have the kernel free memory down to a limit, which it would else enforce by killing.

    Raises:
        AgentError: What is in use is more.
    """
    usage = directory / "memory.current"
    try:
        if (excess := int(usage.read_text()) - limit) > 0:
            with contextlib.suppress(OSError):  # EAGAIN: not all of it
                (directory / "memory.reclaim").write_text(str(excess))
        if (used := int(usage.read_text())) > limit:
            raise _too_low(limit, used)
    except FileNotFoundError:
        return  # the write tells


def _too_low(limit: int | str, usage: int | str) -> AgentError:
    return AgentError(
        f"cannot set memory.limit to {limit}: the container uses {usage} bytes that cannot be freed; "
        "end processes in it or choose a higher limit"
    )


def _v2(directory: Path, wanted: LinuxResources, current: LinuxResources) -> Iterator[_Write]:
    memory = wanted.get("memory", {})
    _refuse("memory", memory, ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"))
    cpu = wanted.get("cpu", {})
    _refuse("cpu", cpu, ("realtimeRuntime", "realtimePeriod"))
    block = wanted.get("blockIO", {})
    _refuse("blockIO", block, ("leafWeight",))
    yield from _memory_v2(directory, memory, current.get("memory", {}))
    yield from _cpu_v2(directory, cpu)
    if "pids" in wanted:
        yield _Write("pids.limit", directory / "pids.max", _or_max(wanted["pids"]["limit"]))
    for page in wanted.get("hugepageLimits", ()):
        size = page["pageSize"]
        name = f"hugepageLimits[{size}]"
        yield _Write(name, directory / f"hugetlb.{size}.max", _or_max(page["limit"]))
        yield _Write(name, directory / f"hugetlb.{size}.rsvd.max", _or_max(page["limit"]), optional=True)
    yield from _block_v2(directory, block)


def _refuse(section: str, values: Mapping[str, object], keys: Iterable[str]) -> None:
    for key in keys:
        if values.get(key):
            raise InvalidArgument(f"resources.{section}.{key} cannot be set: cgroup v2 has no such setting")


def _memory_v2(directory: Path, memory: LinuxMemory, current: LinuxMemory) -> Iterator[_Write]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        yield _Write("memory.limit", directory / "memory.max", _or_max(limit))
        if limit < 0 and swap is None:
            swap = -1
    if swap is not None and swap < 0:
        yield _Write("memory.swap", directory / "memory.swap.max", "max", optional=True)
    elif swap is not None:
        base = limit if limit is not None else current.get("limit", -1)
        if base < 0:
            raise InvalidArgument(f"memory.swap of {swap} bytes is with memory, but memory.limit is not set")
        if swap < base:
            raise InvalidArgument(f"memory.swap of {swap} bytes is with memory, but memory.limit alone is {base}")
        # Without swap accounting there is no swap to be had, which is what zero asks for.
        yield _Write("memory.swap", directory / "memory.swap.max", str(swap - base), optional=swap == base)
    if "reservation" in memory:
        yield _Write("memory.reservation", directory / "memory.low", _or_max(memory["reservation"]))


def _cpu_v2(directory: Path, cpu: LinuxCPU) -> Iterator[_Write]:
    if "shares" in cpu:
        weight = 1 + (min(max(cpu["shares"], 2), 262144) - 2) * 9999 // 262142
        yield _Write("cpu.shares", directory / "cpu.weight", str(weight))
    if "quota" in cpu:
        text = " ".join([_or_max(cpu["quota"]), *([str(cpu["period"])] if "period" in cpu else [])])
        yield _Write("cpu.quota", directory / "cpu.max", text)
    elif "period" in cpu:
        with contextlib.suppress(FileNotFoundError):  # the write tells
            quota = (directory / "cpu.max").read_text().split()[0]
            yield _Write("cpu.period", directory / "cpu.max", f"{quota} {cpu['period']}")
    if "cpus" in cpu:
        yield _Write("cpu.cpus", directory / "cpuset.cpus", cpu["cpus"])
    if "mems" in cpu:
        yield _Write("cpu.mems", directory / "cpuset.mems", cpu["mems"])


def _block_v2(directory: Path, block: LinuxBlockIO) -> Iterator[_Write]:
    bfq = directory / "io.bfq.weight"
    weights, scale = (bfq, int) if bfq.exists() else (directory / "io.weight", _io_weight)
    if "weight" in block:
        yield _Write("blockIO.weight", weights, str(scale(block["weight"])))
    for device in block.get("weightDevice", ()):
        number = f"{device['major']}:{device['minor']}"
        if "leafWeight" in device:
            raise InvalidArgument(
                "resources.blockIO.weightDevice.leafWeight cannot be set: cgroup v2 has no such setting"
            )
        if "weight" in device:
            yield _Write(f"blockIO.weightDevice[{number}]", weights, f"{number} {scale(device['weight'])}")
    for name, key, devices in _throttles(block):
        for throttle in devices:
            number = f"{throttle['major']}:{throttle['minor']}"
            text = f"{number} {key}={throttle['rate'] or 'max'}"
            yield _Write(f"blockIO.{name}[{number}]", directory / "io.max", text)


def _io_weight(weight: int) -> int:
    """The spec's 10 to 1000 as io.weight's 1 to 10000."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def _throttles(block: LinuxBlockIO) -> Iterator[tuple[str, str, list[LinuxThrottleDevice]]]:
    yield "throttleReadBpsDevice", "rbps", block.get("throttleReadBpsDevice", [])
    yield "throttleWriteBpsDevice", "wbps", block.get("throttleWriteBpsDevice", [])
    yield "throttleReadIOPSDevice", "riops", block.get("throttleReadIOPSDevice", [])
    yield "throttleWriteIOPSDevice", "wiops", block.get("throttleWriteIOPSDevice", [])


_THROTTLE_FILES_V1 = {
    "rbps": "read_bps_device", "wbps": "write_bps_device", "riops": "read_iops_device", "wiops": "write_iops_device",
}  # fmt: skip


def _v1(directories: Mapping[str, Path], wanted: LinuxResources) -> Iterator[_Write]:
    nowhere = Path("/sys/fs/cgroup/none")
    place = {name: directories.get(name, nowhere) for name in ("memory", "cpu", "cpuset", "pids", "hugetlb", "blkio")}
    yield from _memory_v1(place["memory"], wanted.get("memory", {}))
    cpu = wanted.get("cpu", {})
    for field, value in (
        ("cpu.shares", cpu.get("shares")),
        ("cpu.cfs_period_us", cpu.get("period")),
        ("cpu.cfs_quota_us", cpu.get("quota")),
        ("cpu.rt_period_us", cpu.get("realtimePeriod")),
        ("cpu.rt_runtime_us", cpu.get("realtimeRuntime")),
    ):
        if value is not None:
            yield _Write(f"cpu ({field})", place["cpu"] / field, str(value))
    if "cpus" in cpu:
        yield _Write("cpu.cpus", place["cpuset"] / "cpuset.cpus", cpu["cpus"])
    if "mems" in cpu:
        yield _Write("cpu.mems", place["cpuset"] / "cpuset.mems", cpu["mems"])
    if "pids" in wanted:
        yield _Write("pids.limit", place["pids"] / "pids.max", _or_max(wanted["pids"]["limit"]))
    for page in wanted.get("hugepageLimits", ()):
        size = page["pageSize"]
        file = place["hugetlb"] / f"hugetlb.{size}.limit_in_bytes"
        yield _Write(f"hugepageLimits[{size}]", file, str(page["limit"]))
    yield from _block_v1(place["blkio"], wanted.get("blockIO", {}))


def _memory_v1(directory: Path, memory: LinuxMemory) -> Iterator[_Write]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and limit < 0 and swap is None and (directory / "memory.memsw.limit_in_bytes").exists():
        swap = -1
    writes = []
    if limit is not None:
        writes.append(_Write("memory.limit", directory / "memory.limit_in_bytes", str(limit)))
    if swap is not None:
        writes.append(_Write("memory.swap", directory / "memory.memsw.limit_in_bytes", str(swap)))
    # memory.limit may never be above memory.swap, so what grows is widened from the outside.
    if len(writes) == 2 and _is_raised(writes[1]):
        writes.reverse()
    yield from writes
    for key, name in (
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernel", "memory.kmem.limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
        ("swappiness", "memory.swappiness"),
        ("disableOOMKiller", "memory.oom_control"),
    ):
        if key in memory:
            yield _Write(f"memory.{key}", directory / name, str(int(cast("Mapping[str, int]", memory)[key])))


def _is_raised(write: _Write) -> bool:
    try:
        current = int(write.file.read_text())
    except OSError:
        return False
    wanted = int(write.text)
    return (wanted if wanted >= 0 else _UNLIMITED_V1) > current


def _block_v1(directory: Path, block: LinuxBlockIO) -> Iterator[_Write]:
    bfq = "bfq." if (directory / "blkio.bfq.weight").exists() else ""
    if "weight" in block:
        yield _Write("blockIO.weight", directory / f"blkio.{bfq}weight", str(block["weight"]))
    if "leafWeight" in block:
        yield _Write("blockIO.leafWeight", directory / "blkio.leaf_weight", str(block["leafWeight"]))
    for device in block.get("weightDevice", ()):
        number = f"{device['major']}:{device['minor']}"
        name = f"blockIO.weightDevice[{number}]"
        if "weight" in device:
            yield _Write(name, directory / f"blkio.{bfq}weight_device", f"{number} {device['weight']}")
        if "leafWeight" in device:
            yield _Write(name, directory / "blkio.leaf_weight_device", f"{number} {device['leafWeight']}")
    for name, key, devices in _throttles(block):
        for throttle in devices:
            number = f"{throttle['major']}:{throttle['minor']}"
            file = directory / f"blkio.throttle.{_THROTTLE_FILES_V1[key]}"
            yield _Write(f"blockIO.{name}[{number}]", file, f"{number} {throttle['rate']}")


def _or_max(limit: int) -> str:
    return "max" if limit < 0 else str(limit)
