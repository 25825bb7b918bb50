"""A container: from its bundle to its removal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kata_agent.cgroup import freezer, hierarchy
from kata_agent.cgroup.hierarchy import CgroupV2
from kata_agent.cgroup.oom import OomWatch
from kata_agent.container import hooks as guest_hooks
from kata_agent.container.hooks import GuestHooks
from kata_agent.container.process import Process, ProcessTable
from kata_agent.errors import AgentError, FailedPrecondition
from kata_agent.trace import span

if TYPE_CHECKING:
    from kata_agent.cgroup.hierarchy import Cgroup
    from kata_agent.container.bundle import Bundle
    from kata_agent.container.crun import Crun
    from kata_py.oci import spec as oci

_LOG = logging.getLogger(__name__)

_NAMES = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name")  # containerd's and CRI-O's annotations

_END_TIMEOUT = 10.0  # seconds from SIGKILL to a process's end; longer means stuck in the kernel


class Container:
    """A container that crun has created; see `create`.

    Attributes:
        id: Its id.
        spec: Its adapted spec, with the resources that were last given.
        init: Its first process.
        processes: All its processes that were asked for, by id.
        cgroup: Where it was put.
    """

    def __init__(
        self,
        container_id: str,
        spec: oci.Spec,
        bundle: Bundle,
        crun: Crun,
        init: Process,
        cgroup: Cgroup,
        hooks: GuestHooks,
    ) -> None:
        self.id = container_id
        self.spec = spec
        self.init = init
        self.cgroup = cgroup
        self.processes = ProcessTable(container_id)
        self.processes.add(container_id, init)
        self._bundle = bundle
        self._crun = crun
        self._hooks = hooks
        self._started = False
        self._paused = False
        self._freezing = asyncio.Lock()  # whoever freezes or thaws
        self._entering = 0  # calls of crun under way that a frozen container would hold up
        self._entered = asyncio.Event()
        self._updating = asyncio.Lock()
        self._oom: OomWatch | None = None
        self._removal: asyncio.Task[None] | None = None

    @classmethod
    async def create(
        cls,
        container_id: str,
        spec: oci.Spec,
        bundle: Bundle,
        crun: Crun,
        *,
        no_pivot: bool = False,
        hooks: GuestHooks | None = None,
    ) -> Container:
        """Create a container; its program waits for `start`.

        Args:
            container_id: Its id.
            spec: The adapted spec.
            bundle: Where its bundle goes.
            crun: The runtime.
            no_pivot: As for `Crun.create`.
            hooks: The guest's hooks.

        Raises:
            AgentError: The bundle could not be made, or crun refused; nothing is left.
        """
        hooks = hooks or GuestHooks()
        if hooks.prestart:
            own = spec.get("hooks", {})  # of CDI devices
            prestart = [*own.get("prestart", ()), *hooks.prestart_entries(bundle.hook_log)]
            spec = {**spec, "hooks": {**own, "prestart": prestart}}
        with span("bundle"):
            bundle.write(spec)
        with ExitStack() as undo:
            undo.callback(bundle.remove)
            terminal = spec["process"].get("terminal", False)
            try:
                child, stdio = await crun.create(container_id, bundle.directory, terminal=terminal, no_pivot=no_pivot)
            finally:
                bundle.report_hooks()
            init = Process(child, stdio)
            try:
                cgroup = hierarchy.of(child.pid)
            except OSError as error:
                stdio.close()
                await crun.delete(container_id)
                raise AgentError(f"container {container_id} ended before it was started") from error
            undo.pop_all()
        return cls(container_id, spec, bundle, crun, init, cgroup, hooks)

    @property
    def name(self) -> str:
        """What its pod calls it; empty if the manager did not tell."""
        annotations = self.spec.get("annotations", {})
        return next((annotations[key] for key in _NAMES if key in annotations), "")

    @property
    def status(self) -> str:
        """Where in its life it is, in runtime-spec's words: `created`, `running`, `paused`, `stopped`."""
        if self.init.ended:
            return "stopped"
        if self._paused:
            return "paused"
        return "running" if self._started else "created"

    async def start(self, killed_for_memory: Callable[[], object] | None = None) -> None:
        """Let its program begin.

        Args:
            killed_for_memory: Called from then on whenever the kernel has killed a process of it for want of memory.

        Raises:
            FailedPrecondition: It is paused.
            CrunError: crun refused: it has begun already, or has ended.
        """
        with self._enter("start"):
            if killed_for_memory is not None and self._oom is None:
                self._oom = OomWatch(self.cgroup, killed_for_memory)
                self.init.at_end(self._oom.check)  # so that the cause is known no later than the end
            await self._crun.start(self.id)
            self._started = True
        await guest_hooks.run(self._crun.reaper, self._hooks.poststart, "poststart", self._state())

    async def exec(self, exec_id: str, process: oci.Process) -> None:
        """Start one more process in it.

        Args:
            exec_id: Its id.
            process: The process document; without capabilities it gets those of the first process.

        Raises:
            AlreadyExists: The id is taken.
            FailedPrecondition: The container is paused, or being removed.
            CrunError: crun refused.
        """
        self.processes.reserve(exec_id)
        try:
            inherited = self.spec["process"].get("capabilities")
            if "capabilities" not in process and inherited is not None:
                process = {**process, "capabilities": inherited}
            with self._enter(f"exec {exec_id} in"):
                child, stdio = await self._crun.exec(self.id, process, terminal=process.get("terminal", False))
            started = Process(child, stdio)
            if self._removal is not None:
                started.kill()
                stdio.close()
                raise FailedPrecondition(f"container {self.id} is being removed")
            self.processes.add(exec_id, started)
        finally:
            self.processes.release(exec_id)

    async def pause(self) -> None:
        """Stop all its processes where they are. Calls of crun that have begun are waited for.

        Raises:
            AgentError: It neither runs nor waits for its start, or a process would not stop.
        """
        async with self._freezing:
            if self.status not in ("created", "running"):
                raise AgentError(f"failed to pause container {self.id}: current status is: {self.status}")
            self._paused = True  # from here on nothing new begins in it
            try:
                async with asyncio.timeout(freezer.FREEZE_TIMEOUT):
                    while self._entering:
                        self._entered.clear()
                        await self._entered.wait()
                await freezer.freeze(self.cgroup)
            except TimeoutError:
                self._paused = False
                raise AgentError(f"failed to pause container {self.id}: a start or exec in it has not ended") from None
            except BaseException:
                self._paused = False
                raise

    async def resume(self) -> None:
        """Let its processes continue.

        Raises:
            AgentError: It is not paused.
        """
        async with self._freezing:
            if self.status != "paused":
                raise AgentError(f"failed to resume container {self.id}: current status is: {self.status}, not paused")
            self._thaw()

    async def signal(self, process: Process, number: int) -> None:
        """Send a signal to one of its processes.

        A paused one gets it when it continues, but SIGKILL: that ends the first process, and with it the pause.

        Raises:
            OSError: There is no such signal.
        """
        if process is self.init and number == signal.SIGTERM and process.ignores(signal.SIGTERM):
            number = signal.SIGKILL  # the kernel would drop SIGTERM, and the host wait for nothing
        if number != signal.SIGKILL:
            process.signal(number)
            return
        async with self._freezing:
            process.kill()
            # Of what is frozen, v1 lets nothing die, and v2 all.
            if self._paused and (process is self.init or not isinstance(self.cgroup, CgroupV2)):
                self._thaw()

    async def kill(self) -> None:
        """Kill all its processes, paused or not."""
        async with self._freezing:
            self.cgroup.kill()
            if self._paused:
                self._thaw()

    async def update(self, resources: oci.LinuxResources) -> None:
        """Give it other resources.

        Args:
            resources: What changes; the rest stays.

        Raises:
            InvalidArgument: The guest's cgroups have no such limit.
            AgentError: The kernel refuses one.
        """
        from kata_agent.cgroup import resources as limits

        async with self._updating:
            current = self.spec["linux"].get("resources", {})
            await asyncio.to_thread(limits.apply, self.cgroup, resources, current)
            if resources.get("devices"):
                await self._crun.update(self.id, {"devices": resources["devices"]})
            section = self.spec["linux"].copy()
            section["resources"] = limits.merged(current, resources)
            self.spec = {**self.spec, "linux": section}

    async def renew_cpus(self) -> None:
        """Set the processors that its spec names anew: some have come online.

        Raises:
            AgentError: The kernel refuses.
        """
        cpus = self.spec["linux"].get("resources", {}).get("cpu", {}).get("cpus")
        if cpus and self.status != "stopped":
            from kata_agent.cgroup import resources as limits

            async with self._updating:
                await asyncio.to_thread(limits.renew_cpus, self.cgroup, cpus)

    async def remove(self) -> None:
        """Kill all its processes, end its streams, remove what was made for it.

        Calling again joins in, or tries again what has failed.

        Raises:
            OSError: The bundle could not be removed.
        """
        if self._removal is None or (self._removal.done() and self._removal.exception() is not None):
            self._removal = asyncio.create_task(self._remove(), name=f"remove {self.id}")
        await asyncio.shield(self._removal)

    async def _remove(self) -> None:
        self.processes.close()
        try:
            await self.kill()
        except AgentError as error:  # what cannot be thawed is still killed, if late
            _LOG.warning("container %s: %s", self.id, error)
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await self.init.wait()
        except TimeoutError:
            _LOG.warning("container %s: its first process is still there %g s after SIGKILL", self.id, _END_TIMEOUT)
        else:
            await guest_hooks.run(self._crun.reaper, self._hooks.poststop, "poststop", self._state())
            await self._delete()
        finally:
            if self._oom is not None:
                self._oom.close()
        self._bundle.remove()

    async def _delete(self) -> None:
        try:
            await self._crun.delete(self.id)
        except AgentError as error:
            _LOG.warning("container %s: the runtime's state or cgroup stays: %s", self.id, error)

    def _thaw(self) -> None:
        freezer.thaw(self.cgroup)
        self._paused = False

    @contextlib.contextmanager
    def _enter(self, what: str) -> Iterator[None]:
        """While inside, it is not paused.

        Raises:
            FailedPrecondition: It is.
        """
        if self._paused:
            raise FailedPrecondition(f"cannot {what} container {self.id}: it is paused; resume it first")
        self._entering += 1
        try:
            yield
        finally:
            self._entering -= 1
            self._entered.set()

    def _state(self) -> dict[str, object]:
        """Source: runtime-spec, runtime.md, State."""
        status = self.status
        return {
            "ociVersion": self.spec.get("ociVersion", "1.0.2"),
            "id": self.id,
            "status": status,
            "pid": 0 if status == "stopped" else self.init.pid,
            "bundle": str(self._bundle.directory),
            "annotations": self.spec.get("annotations", {}),
        }
