"""A hypervisor driver without a machine: the real agent in fresh namespaces of this host.

It makes the whole path from manager to crun testable in a second. The guest's kernel is the host's, the share
is a bind mount, the agent's channel a Unix socket that listens before the agent runs; cgroups are its own. Its
network interfaces are tap devices with a wire to those of the pod (`wire`).
Not for production: nothing here isolates anybody.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.model import Configuration
from kata_py.hypervisor.api import (
    BlockDevice,
    Device,
    GuestDevice,
    HypervisorError,
    Nic,
    SharedDirectory,
    VmExit,
    VmSpec,
)
from kata_py.resource import process
from kata_py.resource.cgroup import hand_down
from kata_py.resource.journal import Journal, undone
from kata_py.resource.process import KillError
from kata_py.resource.undo import RemoveCgroup, RemoveTree
from kata_py.ttrpc.address import UnixAddress
from tests.drivers.wire import Wires, fresh

_GUEST_SHARE = "kata-containers/shared/containers"  # below /run
_CONSOLE_LINES = 100
_CONSOLE_TIMEOUT = 1.0  # seconds from the agent's end to its last line


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup hierarchy of this host: v2, or one of v1 with its controllers."""

    place: Path
    fstype: str
    options: str

    @classmethod
    def all(cls) -> list[Hierarchy]:
        """Those of this host. Source: proc(5), `/proc/self/mountinfo`."""
        found = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mounted, _, behind = line.partition(" - ")
            fstype, _, options = behind.split()
            if fstype in ("cgroup", "cgroup2"):
                place = Path(mounted.split()[4])
                named = "none," if "name=" in options else ""
                wanted = ",".join(option for option in options.split(",") if option not in ("rw", "nsdelegate"))
                found.append(cls(place, fstype, named + wanted))
        return found

    @property
    def is_whole(self) -> bool:
        """Whether it is v2 alone, with all controllers."""
        return self.place == Path("/sys/fs/cgroup")


Plug = Callable[[Nic], AbstractAsyncContextManager[None]]  # makes an interface of the machine


class NamespaceVm:
    """A running agent; satisfies `kata_py.hypervisor.api.Vm`."""

    def __init__(self, agent: UnixAddress, child: asyncio.subprocess.Process, plug: Plug) -> None:
        self.agent = agent
        self._child = child
        self._plug = plug
        self._plugged: dict[str, AsyncExitStack] = {}
        self._leaving = False
        self._lines: deque[str] = deque(maxlen=_CONSOLE_LINES)
        self._console = asyncio.create_task(self._follow_console(), name="console")

    @property
    def pid(self) -> int:
        """The process that holds the namespaces; its end is theirs."""
        return self._child.pid

    def console_tail(self) -> tuple[str, ...]:
        """What the agent last wrote to its stdout and stderr."""
        return tuple(self._lines)

    async def wait(self) -> VmExit:
        """Wait for the agent's end."""
        status = await self._child.wait()
        await asyncio.wait([self._console], timeout=_CONSOLE_TIMEOUT)
        if status == 0:
            cause = "guest powered off"
        elif status < 0:
            cause = f"agent was killed by signal {-status}"
        else:  # also when the agent alone was killed
            cause = f"agent ended with status {status}"
        return VmExit(cause, expected=self._leaving, evidence=self.console_tail())

    async def attach(self, device: Device) -> GuestDevice:
        """Plug in a network interface; namespaces have no slots for anything else."""
        if not isinstance(device, Nic):
            raise HypervisorError("attach", f"the namespace driver cannot attach a {type(device).__name__}")
        if self._child.returncode is not None:
            raise HypervisorError("attach", "the machine has ended")
        plugged = AsyncExitStack()
        try:
            await plugged.enter_async_context(self._plug(device))
        except (OSError, KillError) as error:
            raise HypervisorError("attach", f"{device.id}: {error}") from error
        self._plugged[device.id] = plugged
        return GuestDevice(device.id)

    async def detach(self, device: GuestDevice) -> None:
        """As `Vm.detach`."""
        if device.id not in self._plugged:
            raise HypervisorError("detach", f"{device.id} was not plugged in")
        await self._plugged.pop(device.id).aclose()

    async def leave(self) -> None:
        """Stop following the console; the machine is about to be ended."""
        self._leaving = True
        for plugged in self._plugged.values():
            await plugged.aclose()
        self._console.cancel()
        await asyncio.wait([self._console])

    async def _follow_console(self) -> None:
        assert self._child.stdout is not None
        async for line in self._child.stdout:
            self._lines.append(line.decode(errors="replace").rstrip())


class NamespaceHypervisor:
    """The driver; satisfies `kata_py.hypervisor.api.Hypervisor`."""

    name = "namespace"

    def __init__(self, config: Configuration) -> None:
        self._debug = config.hypervisor.enable_debug

    @asynccontextmanager
    async def launch(self, spec: VmSpec, journal: Journal) -> AsyncIterator[NamespaceVm]:
        """As `Hypervisor.launch`; besides, connecting works from the beginning and waits for the agent."""
        if any(isinstance(device, BlockDevice) for device in spec.devices):
            raise HypervisorError("namespace", "the namespace driver has no block devices")
        async with AsyncExitStack() as stack:
            try:
                with journal.span("namespace"):
                    wires = stack.enter_context(fresh())
                    address, child = await self._start(spec, journal, wires, stack)
            except (OSError, KillError) as error:
                raise HypervisorError("namespace", str(error)) from error
            vm = NamespaceVm(address, child, lambda nic: wires.interface(nic, journal, spec.directory))
            try:
                yield vm
            finally:
                await vm.leave()

    async def _start(
        self, spec: VmSpec, journal: Journal, wires: Wires, stack: AsyncExitStack
    ) -> tuple[UnixAddress, asyncio.subprocess.Process]:
        stack.enter_context(undone(journal, RemoveTree(str(spec.directory))))
        stage = spec.directory / "run"
        stage.mkdir(parents=True)
        hierarchies = Hierarchy.all()
        cgroups = [stack.enter_context(_cgroup(journal, hierarchy, spec.sandbox_id)) for hierarchy in hierarchies]
        shares = [device for device in spec.devices if isinstance(device, SharedDirectory)]
        inside = script(stage, shares, hierarchies, cgroups)
        for nic in spec.devices:
            if isinstance(nic, Nic):
                await stack.enter_async_context(wires.interface(nic, journal, spec.directory))
        address = UnixAddress(str(spec.directory / "agent.sock"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address.path)
            listener.listen()
            child = await stack.enter_async_context(
                process.spawn(
                    journal, "agent", _command(inside, wires.path, listener.fileno(), debug=self._debug),
                    pass_fds=[listener.fileno()], env=_environment(spec),
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                )
            )  # fmt: skip
        return address, child


def _environment(spec: VmSpec) -> dict[str, str]:
    tracing = {"KATA_AGENT_TRACING": "true"} if "agent.trace=true" in spec.boot.parameters else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **tracing}


def _command(script: str, netns: str, listener: int, *, debug: bool) -> list[str]:
    agent = [sys.executable, "-m", "kata_agent", "--listen-fd", str(listener), "--log", "debug" if debug else "info"]
    enter = ["nsenter", f"--net={netns}", "unshare", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    # The clock is the host's and stays so.
    return [*enter, "sh", "-euc", script, "agent", "setpriv", "--bounding-set", "-sys_time", *agent]


def script(
    run: Path, shares: Sequence[SharedDirectory], hierarchies: Sequence[Hierarchy], cgroups: Sequence[Path]
) -> str:
    """What the first process of the pid namespace does before it becomes the agent.

    It joins the cgroups and only then makes their namespace, which so begins there. The new /run is made beside
    and moved into place, because what it will show lies below the host's.
    """
    share = run / _GUEST_SHARE
    mounts = [
        f"mount -n -t tmpfs -o mode=755 tmpfs {shlex.quote(str(run))}",
        *(f"mkdir -p {shlex.quote(str(share))}" for _ in shares),
        *(f"mount -n --rbind {shlex.quote(str(device.source))} {shlex.quote(str(share))}" for device in shares),
        f"mount -n --move {shlex.quote(str(run))} /run",
        "mount -n -t proc proc /proc",
    ]
    for hierarchy in hierarchies:
        mounts.append(f"umount -n -l {hierarchy.place}")  # the same file system is not mounted twice at a place
        mounts.append(f"mount -n -t {hierarchy.fstype} -o {hierarchy.options or 'rw'} cgroup {hierarchy.place}")
        if hierarchy.is_whole:  # controllers can be given on only by a cgroup without processes of its own
            mounts.append(f"mkdir {hierarchy.place}/agent && echo 0 > {hierarchy.place}/agent/cgroup.procs")
    inside = "\n".join([*mounts, "ip link set lo up", 'exec "$@"'])
    joins = [f"echo 0 > {shlex.quote(str(cgroup))}/cgroup.procs" for cgroup in cgroups]
    unshare = "unshare --cgroup --mount --propagation slave"
    return "\n".join([*joins, f'exec {unshare} sh -euc {shlex.quote(inside)} agent "$@"'])


@contextmanager
def _cgroup(journal: Journal, hierarchy: Hierarchy, sandbox_id: str) -> Iterator[Path]:
    """A cgroup of our own, fit for processes."""
    path = hierarchy.place / f"kata-namespace-{sandbox_id}"
    with undone(journal, RemoveCgroup(str(path))):
        path.mkdir()
        if hierarchy.is_whole:
            hand_down(hierarchy.place)
        elif "cpuset" in hierarchy.options.split(","):
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty at first
                (path / name).write_text((hierarchy.place / name).read_text())
        yield path
