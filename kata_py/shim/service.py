"""The Task service: each method decodes its request, looks up whom it is for, and makes one call.

What is answered from memory (State, Connect, Pids, Wait) never waits for the guest. Only Create, and what
ends a sandbox, take time.
Source: containerd `api/runtime/task/v2/shim.proto`, `docs/runtime-v2.md`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from kata_protos import events_pb2, task_types_pb2, task_v2_ttrpc
from kata_protos import task_v2_pb2 as task
from kata_py.config.annotations import annotated
from kata_py.config.load import load
from kata_py.config.model import Configuration, Source
from kata_py.hypervisor.api import Hypervisor
from kata_py.oci.load import load_spec, parse_process, parse_resources
from kata_py.oci.spec import Spec
from kata_py.oci.wire import process_to_agent
from kata_py.resource.mntns import MountNamespace
from kata_py.sandbox import failure, stats
from kata_py.sandbox.container import Container, timestamp
from kata_py.sandbox.container_plan import guest_process, terminal_size
from kata_py.sandbox.driver import find_driver
from kata_py.sandbox.durations import of_tasks
from kata_py.sandbox.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SandboxError,
    Unimplemented,
)
from kata_py.sandbox.events import EventQueue, Topic
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.pod import Role
from kata_py.sandbox.process import LOST, Exit, Status
from kata_py.sandbox.record import Record
from kata_py.sandbox.sandbox import Sandbox
from kata_py.sandbox.stdio import StdioOpener
from kata_py.sandbox.sweep import sweep
from kata_py.shim import bundle, management, planning
from kata_py.shim.errors import UsageError
from kata_py.shim.status import answered
from kata_py.shim.tracing import Tracing
from kata_py.storage.share import off_loop
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.service import Entry, Handler
from kata_py.ttrpc.trace_context import TraceContext

logger = logging.getLogger(__name__)

_SPECS = "types.containerd.io/opencontainers/runtime-spec/1/"  # containerd `core/runtime/typeurl.go`
_SIGNAL_MAX = 64

_ACTIONS = {"CloseIO": "close_io", "ResizePty": "resize_pty"}  # kata's names for calls, where they are not the calls'

_STATUSES = {
    Status.CREATED: task_types_pb2.CREATED,
    Status.STARTING: task_types_pb2.CREATED,
    Status.RUNNING: task_types_pb2.RUNNING,
    Status.PAUSED: task_types_pb2.PAUSED,
    Status.STOPPED: task_types_pb2.STOPPED,
    Status.DELETED: task_types_pb2.STOPPED,
}


class TaskService(task_v2_ttrpc.TaskService):
    """Serves the tasks of one sandbox: a container alone, or a pod's.

    Args:
        namespace: The manager's namespace.
        events: Where the manager is told what happens.
        open_stdio: Opens the manager's ends of streams.
        shut_down: Called by Shutdown, before it answers.
        load_configuration: Reads a configuration; its argument is what the runtime class names.
        find_driver: Makes the hypervisor driver that a configuration names.
        paths: Where sandboxes' files go.
        node: Where is seen what the manager mounts; without it in the namespace of this process.

    Attributes:
        vacant: Set while there is no task, none is being created, and nothing is being torn down.
    """

    def __init__(
        self,
        namespace: str,
        *,
        events: EventQueue,
        open_stdio: StdioOpener,
        shut_down: Callable[[], None],
        load_configuration: Callable[[Source], Configuration] = load,
        find_driver: Callable[[Configuration], Hypervisor] = find_driver,
        paths: HostPaths | None = None,
        node: MountNamespace | None = None,
    ) -> None:
        self.vacant = asyncio.Event()
        self.vacant.set()
        self._namespace = namespace
        self._events = events
        self._open_stdio = partial(open_stdio, namespace=namespace)
        self._shut_down = shut_down
        self._load_configuration = load_configuration
        self._find_driver = find_driver
        self._paths = paths or HostPaths()
        self._node = node
        self._sandbox: Sandbox | None = None
        self._configuration: Configuration | None = None
        self._creations: dict[str, asyncio.Task[Container]] = {}
        self._sweep: asyncio.Task[None] | None = None
        self._durations = of_tasks()
        self._tracing = Tracing()

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """As the base class, each method measured."""
        methods = super().ttrpc_methods().items()
        return {name: (self._measured(name, each[0]), *each[1:]) for name, each in methods}

    def _measured(self, name: str, method: Handler) -> Handler:
        action = _ACTIONS.get(name, name.lower())

        async def handle(request: object, context: Context) -> object:
            with self._durations.measured(action):
                return await method(request, context)

        return handle

    async def aclose(self) -> None:
        """End all there is: creations are undone, the sandbox is stopped."""
        for creation in list(self._creations.values()):
            await _cancelled(creation)
        if self._sandbox is not None:
            await self._sandbox.stop()
            self._sandbox = None
        if self._sweep is not None:
            await asyncio.wait([self._sweep])
        self._note_vacancy()

    async def drained(self, timeout: float) -> None:
        """Wait, for some seconds at most, until traces are told."""
        await self._tracing.drained(timeout)

    @answered
    async def Create(self, request: task.CreateTaskRequest, context: Context) -> task.CreateTaskResponse:
        """Create a container, of a pod that runs or of a sandbox that is booted for it. Out of time, all is undone."""
        _check_id("id", request.id)
        if request.checkpoint:
            raise Unimplemented("restoring a checkpoint is not supported")
        try:
            role, sandbox_id = bundle.membership(request.bundle, request.id)
        except UsageError as error:
            await self._keep_failure(request, request.id, error)
            raise
        create = self._create_container if role is Role.CONTAINER else self._create_sandbox
        self._check_place(request.id, sandbox_id, role)
        caller = TraceContext.of(context.metadata)
        making = create(request, role, time.monotonic_ns(), caller)
        creation = asyncio.create_task(making, name=f"creation of {request.id}")
        creation.add_done_callback(lambda _: self._creation_ended(request.id))
        self._creations[request.id] = creation
        self._note_vacancy()
        budget = context.remaining()
        try:
            await asyncio.wait([creation], timeout=budget)
            if budget is not None and not creation.done():
                await off_loop(self._keep_lateness, request.id, sandbox_id, budget)
        finally:
            await _cancelled(creation)
            await self._keep_failure(request, sandbox_id, None if creation.cancelled() else creation.exception())
        if creation.cancelled():
            raise DeadlineExceeded(
                f"creation of {request.id} was given up: its caller's time was up, or it was deleted"
            )
        return task.CreateTaskResponse(pid=creation.result().pid)

    @answered
    async def Start(self, request: task.StartRequest, context: Context) -> task.StartResponse:
        """Start the container's process, or an exec."""
        sandbox = self._sandbox_of(request.id)
        container = sandbox.container(request.id)
        with nullcontext() if request.exec_id else self._tracing.starting(request.id, sandbox):
            await sandbox.start_process(container, request.exec_id)
        return task.StartResponse(pid=container.pid)

    @answered
    async def State(self, request: task.StateRequest, context: Context) -> task.StateResponse:
        """What is known of a process; from memory."""
        container = self._container(request.id)
        process = container.process(request.exec_id)
        response = task.StateResponse(
            id=request.id,
            exec_id=request.exec_id,
            bundle=str(container.bundle),
            pid=container.pid,
            status=_STATUSES[process.status],
            stdin=process.stdio.stdin,
            stdout=process.stdio.stdout,
            stderr=process.stdio.stderr,
            terminal=process.stdio.terminal,
        )
        if process.exit is not None:
            response.exit_status = process.exit.status
            response.exited_at.CopyFrom(timestamp(process.exit))
        return response

    @answered
    async def Wait(self, request: task.WaitRequest, context: Context) -> task.WaitResponse:
        """Wait for a process's end, in whatever state it is; from memory."""
        process = self._container(request.id).process(request.exec_id)
        context.cancel_if_abandoned()
        exit = await process.wait()
        return task.WaitResponse(exit_status=exit.status, exited_at=timestamp(exit))

    @answered
    async def Kill(self, request: task.KillRequest, context: Context) -> Empty:
        """Signal a process. SIGKILL for a container reaches all of its processes, whether `all` is set or not."""
        if request.signal > _SIGNAL_MAX:
            raise InvalidArgument(f"signal {request.signal} does not exist")
        sandbox = self._sandbox_of(request.id)
        await sandbox.kill(sandbox.container(request.id), request.exec_id, request.signal)
        return Empty()

    @answered
    async def Delete(self, request: task.DeleteRequest, context: Context) -> task.DeleteResponse:
        """Forget a process; with its first container the sandbox ends. A creation under way is undone."""
        creation = self._creations.get(request.id)
        if creation is not None:
            await _cancelled(creation)
            if creation.cancelled() or creation.exception() is not None:
                return _deleted(os.getpid(), Exit(LOST))
        sandbox = self._sandbox_of(request.id)
        container = sandbox.container(request.id)
        if request.exec_id:
            return _deleted(container.pid, container.delete_exec(request.exec_id))
        self._tracing.deleted(request.id, sandbox)
        exit = await sandbox.delete(container)
        if sandbox.vacant:
            self._sandbox = None
            self._note_vacancy()
        return _deleted(container.pid, exit)

    @answered
    async def Exec(self, request: task.ExecProcessRequest, context: Context) -> Empty:
        """Register an exec; Start runs it."""
        _check_id("exec_id", request.exec_id)
        container = self._container(request.id)
        process = parse_process(_json(request.spec, "Process"), source=f"spec of exec {request.exec_id}")
        container.add_exec(
            request.exec_id,
            process_to_agent(guest_process(process, terminal=request.terminal)),
            planning.stdio_of(request),
            terminal_size(process),
        )
        return Empty()

    @answered
    async def ResizePty(self, request: task.ResizePtyRequest, context: Context) -> Empty:
        """Give a terminal another size."""
        process = self._container(request.id).process(request.exec_id)
        await process.resize(request.height, request.width)
        return Empty()

    @answered
    async def CloseIO(self, request: task.CloseIORequest, context: Context) -> Empty:
        """End a process's stdin after what was written to it so far."""
        process = self._container(request.id).process(request.exec_id)
        if request.stdin:
            process.end_stdin()
        return Empty()

    @answered
    async def Pause(self, request: task.PauseRequest, context: Context) -> Empty:
        """Freeze a container."""
        await self._container(request.id).pause()
        return Empty()

    @answered
    async def Resume(self, request: task.ResumeRequest, context: Context) -> Empty:
        """Let a container go on."""
        await self._container(request.id).resume()
        return Empty()

    @answered
    async def Update(self, request: task.UpdateTaskRequest, context: Context) -> Empty:
        """Give a container other limits."""
        sandbox = self._sandbox_of(request.id)
        container = sandbox.container(request.id)
        resources = parse_resources(_json(request.resources, "LinuxResources"), source=f"resources of {request.id}")
        await sandbox.update(container, resources)
        return Empty()

    @answered
    async def Stats(self, request: task.StatsRequest, context: Context) -> task.StatsResponse:
        """What a container uses."""
        response = await self._container(request.id).stats()
        metrics = stats.metrics_v2(response) if stats.host_is_unified() else stats.metrics_v1(response)
        return task.StatsResponse(
            stats=Any(type_url=metrics.DESCRIPTOR.full_name, value=metrics.SerializeToString())
        )  # fmt: skip

    @answered
    async def Pids(self, request: task.PidsRequest, context: Context) -> task.PidsResponse:
        """The host's process that stands for the container's; from memory."""
        pid = self._container(request.id).pid
        return task.PidsResponse(processes=[task_types_pb2.ProcessInfo(pid=pid)])

    @answered
    async def Connect(self, request: task.ConnectRequest, context: Context) -> task.ConnectResponse:
        """Whom one speaks to; from memory. An unknown task has pid 0."""
        try:
            pid = self._container(request.id).pid
        except NotFound:
            pid = 0
        return task.ConnectResponse(shim_pid=os.getpid(), task_pid=pid)

    @answered
    async def Checkpoint(self, request: task.CheckpointTaskRequest, context: Context) -> Empty:
        """Not supported."""
        raise Unimplemented("checkpoints are not supported")

    @answered
    async def Shutdown(self, request: task.ShutdownRequest, context: Context) -> Empty:
        """End the shim, unless there are tasks and it need not be `now`. What is being torn down is waited for."""
        if request.now or not (self._sandbox or self._creations):
            await self.aclose()
            self._shut_down()
        return Empty()

    async def _keep_failure(
        self, request: task.CreateTaskRequest, sandbox_id: str, error: BaseException | None
    ) -> None:
        """Keep what `kata-ctl explain` reads: once a creation is undone, nothing else tells of it."""
        if isinstance(error, Exception):
            failed = failure.of_container("create", sandbox_id, request.id, self._namespace, request.bundle, error)
            await off_loop(failure.keep, failed, self._paths.failures)

    def _keep_lateness(self, container_id: str, sandbox_id: str, budget: float) -> None:
        with suppress(SandboxError):  # nothing is on record yet
            late = failure.of_lateness(Record.load(sandbox_id, root=self._paths.records), container_id, budget)
            failure.keep(late, self._paths.failures)

    def _check_place(self, id: str, sandbox_id: str, role: Role) -> None:
        """Refuse a container for which there is no place here: one sandbox is served, and the containers in it."""
        if id in self._creations or (self._sandbox is not None and self._sandbox.has(id)):
            raise AlreadyExists(f"task {id} exists already")
        serves = self._sandbox.id if self._sandbox is not None else next(iter(self._creations), None)
        if role is not Role.CONTAINER and serves is not None:
            raise FailedPrecondition(f"this shim serves sandbox {serves}, it cannot create {id}")
        if role is Role.CONTAINER and (self._sandbox is None or serves != sandbox_id):
            raise FailedPrecondition(f"this shim serves {serves or 'no sandbox'}, not sandbox {sandbox_id} of {id}")

    async def _create_sandbox(
        self, request: task.CreateTaskRequest, role: Role, began: int, caller: TraceContext | None
    ) -> Container:
        spec = load_spec(Path(request.bundle))
        annotations = spec.get("annotations", {})
        configuration = annotated(self._load_configuration(planning.source_of(request.options)), annotations)
        with self._tracing.creating_pod(configuration, request.id, annotations, began, caller):
            self._sandbox = await self._started(request, role, configuration, spec, began)
        self._configuration = configuration
        self._sweep = asyncio.create_task(off_loop(self._sweep_up), name="sweep after other shims")
        container = self._sandbox.container(request.id)
        self._tell_created(request, container)
        return container

    async def _started(
        self, request: task.CreateTaskRequest, role: Role, configuration: Configuration, spec: Spec, began: int
    ) -> Sandbox:
        sandbox_plan, container_plan = await planning.sandbox(
            request, configuration, spec, role, self._paths, self._node
        )
        return await Sandbox.start(
            sandbox_plan,
            container_plan,
            self._find_driver(configuration),
            self._open_stdio,
            self._events,
            namespace=self._namespace,
            planned=(began, time.monotonic_ns()),
            node=self._node,
            serve=partial(management.serving, tasks=self._durations, debug=configuration.runtime.enable_pprof),
        )

    async def _create_container(
        self, request: task.CreateTaskRequest, role: Role, began: int, caller: TraceContext | None
    ) -> Container:
        assert self._sandbox is not None
        assert self._configuration is not None  # of the runtime class that the sandbox was made with
        spec = load_spec(Path(request.bundle))
        with self._tracing.creating(request.id, began, caller, self._sandbox):
            container_plan = await planning.container(
                request, self._configuration, spec, role, self._node, self._sandbox.id
            )
            container = await self._sandbox.add(container_plan)
        self._tell_created(request, container)
        return container

    def _sweep_up(self) -> None:
        try:
            sweep(self._paths)
        except OSError as error:  # the next pod's shim tries again
            logger.warning("cannot sweep up after shims that died: %s", error)

    def _tell_created(self, request: task.CreateTaskRequest, container: Container) -> None:
        io = events_pb2.TaskIO(
            stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal
        )  # fmt: skip
        created = events_pb2.TaskCreate(
            container_id=request.id, bundle=request.bundle, rootfs=request.rootfs, io=io, pid=container.pid
        )
        self._events.put(Topic.CREATE, created)

    def _sandbox_of(self, id: str) -> Sandbox:
        if self._sandbox is None:
            raise NotFound(f"no task {id!r}")
        return self._sandbox

    def _container(self, id: str) -> Container:
        return self._sandbox_of(id).container(id)

    def _creation_ended(self, id: str) -> None:
        del self._creations[id]
        self._note_vacancy()

    def _note_vacancy(self) -> None:
        if self._sandbox or self._creations:
            self.vacant.clear()
        else:
            self.vacant.set()


async def _cancelled(creation: asyncio.Task[Container]) -> None:
    """Cancel a creation unless it is done; returns when its undo list has run to the end.

    A second cancellation would only cut the undoing short.
    """
    if not creation.cancelling():
        creation.cancel()
    await asyncio.wait([creation])


def _check_id(what: str, value: str) -> None:
    if not value:
        raise InvalidArgument(f"{what} is empty")
    bundle.check_id(what, value)


def _json(message: Any, kind: str) -> bytes:
    if message.type_url != _SPECS + kind:
        raise InvalidArgument(f"expected {_SPECS}{kind} as JSON, got {message.type_url or 'nothing'}")
    return message.value


def _deleted(pid: int, exit: Exit) -> task.DeleteResponse:
    return task.DeleteResponse(pid=pid, exit_status=exit.status, exited_at=timestamp(exit))
