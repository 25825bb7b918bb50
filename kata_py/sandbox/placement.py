"""Where a pod's processes live among the host's cgroups, and on which processors its machine runs.

With `sandbox_cgroup_only` all of them are in the sandbox's cgroup, below the pod's. Without it, shim and hypervisor
are in one of their own that nobody limits, and only the threads that run the guest's processors are in the sandbox's.
A thread cannot leave its process in v2, where the former is therefore always so.
Source: kata `virtcontainers/sandbox.go` (createResourceController, resourceControllerUpdate, checkVCPUsPinning),
`docs/design/host-cgroups.md`, `docs/design/vcpu-threads-pinning.md`.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.model import Configuration
from kata_py.hypervisor.api import HypervisorError, VcpuThreads, Vm
from kata_py.oci.spec import LinuxDeviceCgroup, LinuxResources, Spec
from kata_py.resource.blocking import off_loop
from kata_py.resource.cgroup import Cgroup, Hierarchy, hierarchies, is_systemd, joined, made, sandbox_path
from kata_py.resource.cpuset import format_cpuset, parse_cpuset
from kata_py.resource.journal import Journal

logger = logging.getLogger(__name__)

OVERHEAD = "/kata_overhead"

# What shim, hypervisor and its daemons open; a pod's own list has the harmless ones as a rule.
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/vfio/vfio",
            "/dev/iommu", "/dev/net/tun")  # fmt: skip
_PTS = "c 136:* rwm"
_PTMX = "c 5:2 rwm"


@dataclass(frozen=True, slots=True)
class CgroupPlan:
    """What was decided of a sandbox's cgroups.

    Attributes:
        path: Of the sandbox's.
        overhead: Of that for shim and hypervisor; empty where these are in the sandbox's.
        devices: What may be used in the sandbox's, by the spec.
        pinning: Whether each of the guest's processors gets one of the host's.
    """

    path: str
    overhead: str
    devices: tuple[str, ...]
    pinning: bool = False

    @classmethod
    def of(cls, configuration: Configuration, spec: Spec, sandbox_id: str, overhead: str = OVERHEAD) -> CgroupPlan:
        """As configuration and the spec of the sandbox's first container say.

        Args:
            configuration: Whether all processes of the sandbox are in its cgroup.
            spec: Where the manager wants that.
            sandbox_id: The sandbox's id.
            overhead: Below which cgroup those of shims and hypervisors are.
        """
        linux = spec.get("linux", {})
        rules = linux.get("resources", {}).get("devices", [])
        only = configuration.runtime.sandbox_cgroup_only
        path = linux.get("cgroupsPath", "")
        if is_systemd(path):
            logger.info("systemd is not asked for a scope: the sandbox's cgroup is made in the slice's directory")
        return cls(
            path=sandbox_path(path, sandbox_id),
            overhead="" if only else f"{overhead}/{sandbox_id}",
            devices=tuple(_rule(rule) for rule in rules if rule["allow"]),
            pinning=configuration.runtime.enable_vcpus_pinning,
        )


class Placement:
    """The cgroups of one sandbox; made by `placed`.

    Args:
        sandbox: The sandbox's cgroup.
        threads_apart: Whether its threads are moved one by one.
        pinning: Whether each of the guest's processors gets one of the host's.
    """

    def __init__(self, sandbox: Cgroup, *, threads_apart: bool, pinning: bool) -> None:
        self._sandbox = sandbox
        self._threads_apart = threads_apart
        self._pinning = pinning
        self._moved: set[int] = set()
        self._pinned = False
        self._cpuset = ("", "")
        self._told: set[str] = set()

    async def settle(self, vm: Vm, containers: Sequence[LinuxResources]) -> None:
        """See to it that processors and threads are where the containers' resources want them."""
        cpus, mems = _union(containers, "cpus"), _union(containers, "mems")
        lists = format_cpuset(cpus), format_cpuset(mems)
        if lists != self._cpuset:
            self._cpuset = lists
            with self._warned_of("the pod's processors and memory nodes are not set"):
                await off_loop(lambda: self._sandbox.confine(*lists))
        if isinstance(vm, VcpuThreads) and (self._threads_apart or self._pinning):
            with self._warned_of("the guest's processors are not where they belong"):
                threads = await vm.vcpu_threads()
                await off_loop(lambda: self._move(threads, cpus))

    async def admit(self, devices: Iterable[Path]) -> None:
        """See to it that shim and hypervisor may use devices of the host that a container is given.

        Args:
            devices: Their nodes, or other paths, which do not matter.
        """
        if not self._threads_apart:  # else nobody limits them
            with self._warned_of("the pod's cgroup does not let it use all devices of its containers"):
                await off_loop(lambda: self._sandbox.admit(_rules(devices)))

    def _move(self, threads: Sequence[int], cpus: frozenset[int]) -> None:
        if self._threads_apart:
            for tid in threads:
                if tid not in self._moved:
                    self._sandbox.join_thread(tid)
                    self._moved.add(tid)
        if self._pinning:
            self._pin(threads, cpus)

    def _pin(self, threads: Sequence[int], cpus: frozenset[int]) -> None:
        """One by one in order, if there are as many of the one as of the other."""
        if len(threads) == len(cpus):
            for tid, cpu in zip(threads, sorted(cpus), strict=True):
                os.sched_setaffinity(tid, {cpu})
            self._pinned = True
        elif self._pinned:
            for tid in threads:
                os.sched_setaffinity(tid, cpus or os.sched_getaffinity(0))
            self._pinned = False

    @contextmanager
    def _warned_of(self, what: str) -> Iterator[None]:
        """A pod runs without; it is told once."""
        try:
            yield
        except (OSError, HypervisorError) as error:
            if what not in self._told:
                logger.warning("%s: %s", what, error)
                self._told.add(what)


@asynccontextmanager
async def placed(
    plan: CgroupPlan, journal: Journal, trees: Sequence[Hierarchy] | None = None
) -> AsyncIterator[Placement]:
    """Be in the sandbox's cgroups, with all that is started from now on, for as long as the context lasts.

    Args:
        plan: What was decided of them.
        journal: Where their undo is written.
        trees: The host's hierarchies; None looks for them.

    Raises:
        OSError: The record cannot be written.
    """
    trees = hierarchies() if trees is None else trees
    apart = bool(plan.overhead) and not any(tree.unified for tree in trees)
    stack = ExitStack()

    def enter() -> Cgroup:
        sandbox = stack.enter_context(made(plan.path, trees, journal))
        try:
            sandbox.allow([*plan.devices, *own_devices(with_shim=not apart)])
        except OSError as error:
            logger.warning("the pod's cgroup does not keep devices from it: %s", error)
        home = stack.enter_context(made(plan.overhead, trees, journal)) if apart else sandbox
        stack.enter_context(joined(home, trees))
        return sandbox

    async with AsyncExitStack() as leaving:
        leaving.push_async_callback(off_loop, stack.close)
        sandbox = await off_loop(enter)
        yield Placement(sandbox, threads_apart=apart, pinning=plan.pinning)


def own_devices(*, with_shim: bool, root: Path = Path("/")) -> list[str]:
    """Rules for the devices that a machine needs, of those that this host has.

    Args:
        with_shim: Whether the shim is in the same cgroup.
        root: Where the host's `/dev` and `/proc` are.
    """
    rules = []
    for name in _DEVICES:
        try:
            number = (root / name.lstrip("/")).stat().st_rdev
        except OSError:
            continue  # this host has none
        rules.append(f"c {os.major(number)}:{os.minor(number)} rwm")
    for line in (root / "proc/devices").read_text().splitlines():
        match line.split():
            case [major, "vfio" | "vfio-dev"]:
                rules.append(f"c {major}:* rwm")
    return [*rules, _PTS, *([_PTMX] if with_shim else ())]


def _rules(devices: Iterable[Path]) -> Iterator[str]:
    """Rules for the nodes among these paths."""
    for path in devices:
        try:
            status = path.stat()
        except OSError:
            continue  # whoever opens it tells of it
        if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
            kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
            yield f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} rwm"


def _rule(rule: LinuxDeviceCgroup) -> str:
    """A rule of the spec in the kernel's form."""

    def number(name: str) -> str:
        value = rule.get(name, -1)
        return "*" if value == -1 else str(value)

    return f"{rule.get('type') or 'a'} {number('major')}:{number('minor')} {rule.get('access') or 'rwm'}"


def _union(containers: Sequence[LinuxResources], key: str) -> frozenset[int]:
    """The numbers in any of the containers' lists."""
    numbers = set[int]()
    for resources in containers:
        text = str(resources.get("cpu", {}).get(key, ""))
        numbers |= parse_cpuset(text)
    return frozenset(numbers)
