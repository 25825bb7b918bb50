"""A container: from its bundle to its removal."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kata_agent.cgroup import hierarchy
from kata_agent.container.process import Process, ProcessTable
from kata_agent.errors import AgentError, FailedPrecondition

if TYPE_CHECKING:
    from kata_agent.cgroup.hierarchy import Cgroup
    from kata_agent.container.bundle import Bundle
    from kata_agent.container.crun import Crun
    from kata_py.oci import spec as oci

_LOG = logging.getLogger(__name__)

_END_TIMEOUT = 10.0  # seconds from SIGKILL to a process's end; longer means stuck in the kernel


class Container:
    """A container that crun has created; see `create`.

    Attributes:
        id: Its id.
        init: Its first process.
        processes: All its processes that were asked for, by id.
        cgroup: Where it was put.
    """

    def __init__(
        self, container_id: str, spec: oci.Spec, bundle: Bundle, crun: Crun, init: Process, cgroup: Cgroup
    ) -> None:
        self.id = container_id
        self.init = init
        self.cgroup = cgroup
        self.processes = ProcessTable(container_id)
        self.processes.add(container_id, init)
        self._spec = spec
        self._bundle = bundle
        self._crun = crun
        self._removal: asyncio.Task[None] | None = None

    @classmethod
    async def create(
        cls, container_id: str, spec: oci.Spec, bundle: Bundle, crun: Crun, *, no_pivot: bool = False
    ) -> Container:
        """Create a container; its program waits for `start`.

        Args:
            container_id: Its id.
            spec: The adapted spec.
            bundle: Where its bundle goes.
            crun: The runtime.
            no_pivot: As for `Crun.create`.

        Raises:
            AgentError: The bundle could not be made, or crun refused; nothing is left.
        """
        bundle.write(spec)
        with ExitStack() as undo:
            undo.callback(bundle.remove)
            terminal = spec["process"].get("terminal", False)
            child, stdio = await crun.create(container_id, bundle.directory, terminal=terminal, no_pivot=no_pivot)
            init = Process(child, stdio)
            try:
                cgroup = hierarchy.of(child.pid)
            except OSError as error:
                stdio.close()
                await crun.delete(container_id)
                raise AgentError(f"container {container_id} ended before it was started") from error
            undo.pop_all()
        return cls(container_id, spec, bundle, crun, init, cgroup)

    async def start(self) -> None:
        """Let its program begin.

        Raises:
            CrunError: crun refused: it has begun already, or has ended.
        """
        await self._crun.start(self.id)

    async def exec(self, exec_id: str, process: oci.Process) -> None:
        """Start one more process in it.

        Args:
            exec_id: Its id.
            process: The process document; without capabilities it gets those of the first process.

        Raises:
            AlreadyExists: The id is taken.
            FailedPrecondition: The container is being removed.
            CrunError: crun refused.
        """
        self.processes.reserve(exec_id)
        try:
            inherited = self._spec["process"].get("capabilities")
            if "capabilities" not in process and inherited is not None:
                process = {**process, "capabilities": inherited}
            child, stdio = await self._crun.exec(self.id, process, terminal=process.get("terminal", False))
            started = Process(child, stdio)
            if self._removal is not None:
                started.kill()
                stdio.close()
                raise FailedPrecondition(f"container {self.id} is being removed")
            self.processes.add(exec_id, started)
        finally:
            self.processes.release(exec_id)

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
        self.cgroup.kill()
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await self.init.wait()
            await self._crun.delete(self.id)
        except TimeoutError:
            _LOG.warning("container %s: its first process is still there %g s after SIGKILL", self.id, _END_TIMEOUT)
        except AgentError as error:
            _LOG.warning("container %s: the runtime's state or cgroup stays: %s", self.id, error)
        self._bundle.remove()
