"""A container: its first process, its execs, and the order in which the manager is told of them.

create < start < exit < delete; exec-added < exec-started < that exec's exit; the container's own exit after
those of all its execs (containerd `docs/runtime-v2.md`, `cmd/containerd-shim-runc-v2/task/service.go`).
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
from contextlib import nullcontext
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from kata_protos import agent_pb2, events_pb2, oci_pb2
from kata_py.resource.journal import Journal
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.container_plan import ContainerPlan
from kata_py.sandbox.errors import AlreadyExists, FailedPrecondition, NotFound, SandboxError
from kata_py.sandbox.events import EventQueue, Topic
from kata_py.sandbox.process import ALIVE, LOST, Exit, OpenStdio, Process, Status
from kata_py.sandbox.stdio import StdioSpec

logger = logging.getLogger(__name__)

OOM_FILE = "oom"  # in the bundle: how CRI-O learns of it
EXECS_TIMEOUT = 2.0  # seconds that execs may outlive the first process before they are killed, and after that


class Container:
    """One container that the agent has created.

    Args:
        plan: What was decided for it.
        agent: The agent that runs it.
        open_stdio: Opens the manager's ends of streams.
        events: Where the manager is told.
        journal: Where its start is timed.
        pid: The host's process that stands for all of its processes.
    """

    def __init__(
        self,
        plan: ContainerPlan,
        agent: Agent,
        open_stdio: OpenStdio,
        events: EventQueue,
        journal: Journal,
        *,
        pid: int,
    ) -> None:
        self.id = plan.id
        self.pid = pid
        self.bundle = plan.bundle
        self.stage = plan.stage("start")  # of its start, in the timeline
        self._tells_by_file = plan.oom_file
        self._hooks = plan.hooks
        self._agent = agent
        self._events = events
        self._journal = journal
        self._process = partial(Process, agent, open_stdio, container_id=plan.id)
        self._init = self._process(
            partial(agent.start_container, plan.id), exec_id="", stdio=plan.stdio, terminal_size=plan.terminal_size
        )
        self._execs: dict[str, Process] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._ending = False

    def process(self, exec_id: str = "") -> Process:
        """The process of that exec id; the first one's is empty.

        Raises:
            NotFound: There is none.
        """
        if not exec_id:
            return self._init
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFound(f"container {self.id} has no exec {exec_id}") from None

    def add_exec(
        self, exec_id: str, process: oci_pb2.Process, stdio: StdioSpec, terminal_size: tuple[int, int] | None = None
    ) -> None:
        """Register an exec; `start` runs it.

        Args:
            exec_id: Its id, checked before.
            process: What it runs.
            stdio: Where its streams go.
            terminal_size: Rows and columns of its terminal.

        Raises:
            AlreadyExists: The container has an exec of this id.
            FailedPrecondition: The container does not run.
        """
        if exec_id in self._execs:
            raise AlreadyExists(f"container {self.id} has an exec {exec_id} already")
        if self._ending or self._init.status is Status.STOPPED:
            raise FailedPrecondition(f"container {self.id} is stopped, it cannot run {exec_id}")
        request = agent_pb2.ExecProcessRequest(container_id=self.id, exec_id=exec_id, process=process)
        self._execs[exec_id] = self._process(
            partial(self._agent.exec_process, request), exec_id=exec_id, stdio=stdio, terminal_size=terminal_size
        )
        self._events.put(Topic.EXEC_ADDED, events_pb2.TaskExecAdded(container_id=self.id, exec_id=exec_id))

    async def start(self, exec_id: str = "") -> None:
        """Start a process.

        Raises:
            NotFound: There is no such exec.
            FailedPrecondition: It was started before, or is an exec of a container that does not run.
            SandboxError: It could not be started.
        """
        process = self.process(exec_id)
        if exec_id:
            self._require(Status.RUNNING)
        with nullcontext() if exec_id else self._journal.span(self.stage):
            await process.start()
        # Nothing is awaited between the start event and the watch for the exit: their order cannot turn.
        if exec_id:
            started = events_pb2.TaskExecStarted(container_id=self.id, exec_id=exec_id, pid=self.pid)
            self._events.put(Topic.EXEC_STARTED, started)
        else:
            self._events.put(Topic.START, events_pb2.TaskStart(container_id=self.id, pid=self.pid))
        following = asyncio.create_task(self._follow(process), name=f"end of {process}")
        self._following.add(following)
        following.add_done_callback(self._following.discard)
        if self._hooks and not exec_id:
            await self._hooks.poststart(self.pid, self._journal)

    async def kill(self, exec_id: str, signal: int) -> None:
        """Signal a process; see `Process.signal`. A container that was never started has ended by SIGKILL."""
        process = self.process(exec_id)
        await process.signal(signal)
        if process is self._init and process.status is Status.CREATED and signal in (signals.SIGKILL, signals.SIGTERM):
            self._end_unstarted(Exit(128 + signal))

    async def pause(self) -> None:
        """Freeze the container.

        Raises:
            FailedPrecondition: It does not run.
        """
        self._require(Status.RUNNING)
        await self._agent.pause_container(self.id)
        self._init.move(Status.PAUSED)
        self._events.put(Topic.PAUSED, events_pb2.TaskPaused(container_id=self.id))

    async def resume(self) -> None:
        """Let it go on.

        Raises:
            FailedPrecondition: It is not paused.
        """
        self._require(Status.PAUSED)
        await self._agent.resume_container(self.id)
        self._init.move(Status.RUNNING)
        self._events.put(Topic.RESUMED, events_pb2.TaskResumed(container_id=self.id))

    async def update(self, resources: oci_pb2.LinuxResources) -> None:
        """Give it other limits."""
        await self._agent.update_container(self.id, resources)

    async def stats(self) -> agent_pb2.StatsContainerResponse:
        """What it uses.

        Raises:
            NotFound: It has ended, and its cgroup with it.
        """
        if self._init.status is Status.STOPPED:
            raise NotFound(f"container {self.id} is stopped and uses nothing")
        return await self._agent.stats_container(self.id)

    def out_of_memory(self) -> None:
        """Tell the manager that the kernel killed in the container for want of memory."""
        if self._tells_by_file:
            try:
                (self.bundle / OOM_FILE).touch()
            except OSError as error:  # the bundle goes when the container does
                logger.warning("container %s: its manager is not told of an OOM kill: %s", self.id, error)
        self._events.put(Topic.OOM, events_pb2.TaskOOM(container_id=self.id))

    def delete_exec(self, exec_id: str) -> Exit:
        """Forget an exec that has ended or was never started; returns how it ended.

        Raises:
            NotFound: There is none.
            FailedPrecondition: It runs.
        """
        process = self.process(exec_id)
        exit = self._delete(process)
        del self._execs[exec_id]
        return exit

    def delete(self) -> Exit:
        """Forget the first process; as `delete_exec`."""
        return self._delete(self._init)

    async def end(self, timeout: float) -> None:
        """Kill it if it runs, and wait some seconds at most until its exit is published."""
        if self._init.status in ALIVE:
            try:
                async with asyncio.timeout(timeout):
                    await self._init.signal(signals.SIGKILL)
                    await self._init.wait()
            except (SandboxError, TimeoutError) as error:
                logger.warning("container %s is not seen to end: %s", self.id, str(error) or "no exit in time")

    async def lost(self, timeout: float) -> None:
        """The agent is gone: whatever is not seen to end within some seconds, its outputs taken, ends as `LOST`."""
        await self.closed(timeout)
        self._ending = True
        for process in (*self._execs.values(), self._init):
            self._finish(process, Exit(LOST))

    async def closed(self, timeout: float) -> None:
        """Wait until the streams of every process that ran are closed, for some seconds at most."""
        if self._following:
            await asyncio.wait(self._following, timeout=timeout)

    def _require(self, status: Status) -> None:
        present = Status.STOPPED if self._ending else self._init.status
        if present is not status:
            raise FailedPrecondition(f"container {self.id} is {present.value}, not {status.value}")

    def _delete(self, process: Process) -> Exit:
        if process.status is Status.CREATED:
            process.settle(Exit(LOST))
        process.move(Status.DELETED)
        assert process.exit is not None
        at = timestamp(process.exit)
        self._events.put(
            Topic.DELETE,
            events_pb2.TaskDelete(
                container_id=self.id, pid=self.pid, exit_status=process.exit.status, exited_at=at, id=process.exec_id
            ),
        )
        return process.exit

    async def _follow(self, process: Process) -> None:
        try:
            exit = await process.run()
        except Exception:
            logger.exception("%s: following it failed", process)
            exit = Exit(LOST)
        if process is self._init:
            self._ending = True
            await self._end_execs()
        self._finish(process, exit)
        if process is self._init:
            self._end_unstarted(Exit(LOST))
        await process.close()

    async def _end_execs(self) -> None:
        """See to it that every exec has ended, and its exit is queued, before the container's."""
        if await self._execs_end():
            return
        for process in self._running_execs():
            try:
                await process.signal(signals.SIGKILL)
            except SandboxError as error:
                logger.warning("%s outlives its container: %s", process, error)
        if not await self._execs_end():
            for process in self._running_execs():
                self._finish(process, Exit(LOST))

    async def _execs_end(self) -> bool:
        try:
            async with asyncio.timeout(EXECS_TIMEOUT):
                for process in self._running_execs():
                    await process.wait()
        except TimeoutError:
            return False
        return True

    def _running_execs(self) -> list[Process]:
        return [process for process in self._execs.values() if process.status in ALIVE]

    def _end_unstarted(self, exit: Exit) -> None:
        for process in (*self._execs.values(), self._init):
            if process.status is Status.CREATED:
                process.settle(exit)

    def _finish(self, process: Process, exit: Exit) -> None:
        if process.settle(exit) and process.was_started:
            self._events.put(
                Topic.EXIT,
                events_pb2.TaskExit(
                    container_id=self.id,
                    id=process.exec_id or self.id,
                    pid=self.pid,
                    exit_status=exit.status,
                    exited_at=timestamp(exit),
                ),
            )


def timestamp(exit: Exit) -> Timestamp:
    """When the process ended, as messages have it."""
    seconds, nanoseconds = divmod(exit.at, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanoseconds)
