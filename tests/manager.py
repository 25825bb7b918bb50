"""A container manager for tests: starts the real shim and calls it as CRI-O does.

It starts the launcher once per container, with an empty address and the namespace `default`, makes the fifos and
speaks Task v2 over its own connection. At last it runs the delete binary, as containerd would, and makes sure that
nothing was left for it to do. What containerd does differently is tested with a real containerd.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from kata_protos import cgroups_v1_pb2, cgroups_v2_pb2, runtimeoptions_pb2, task_v2_pb2
from kata_protos.mount_pb2 import Mount
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.sandbox import record as records
from kata_py.ttrpc import address
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectionClosed, TtrpcError
from tests import bundle as bundles

NAMESPACE = "default"
PACE = float(os.environ.get("TESTS_PACE", "1"))  # how many times as long a host may take that is itself emulated
START_TIMEOUT = 10.0 * PACE
CREATE_TIMEOUT = 90.0 * PACE
CALL_TIMEOUT = 30.0 * PACE
DELETE_TIMEOUT = 5.0 * PACE  # containerd's
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


@dataclass(frozen=True, slots=True)
class Exit:
    """What Wait answered."""

    status: int
    exited_at: int  # ns since the epoch


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses, by its statistics."""

    cpu_time: int  # ns
    memory: int  # bytes
    memory_limit: int  # bytes
    processes: int


class Streams:
    """The manager's ends of a process's fifos: outputs are collected, stdin is written."""

    def __init__(self, directory: Path, name: str, *, stdin: bool, terminal: bool, pipe_size: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.terminal = terminal
        self._pipe_size = pipe_size
        self._paths = {stream: directory / f"{name}-{stream}" for stream in ("stdin", "stdout", "stderr")}
        if not stdin:
            del self._paths["stdin"]
        for path in self._paths.values():
            os.mkfifo(path, 0o700)
        self._collected: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._ended: dict[str, asyncio.Event] = {}
        self._grown = asyncio.Condition()
        self._transports: list[asyncio.ReadTransport] = []
        self._stdin: int | None = None

    def path(self, stream: str) -> str:
        """A stream's fifo, or empty."""
        return str(self._paths.get(stream, ""))

    async def open(self) -> None:
        """Open our ends, without waiting for the shim's."""
        loop = asyncio.get_running_loop()
        self._ended = {stream: asyncio.Event() for stream in self._collected}
        for stream in ("stdout",) if self.terminal else ("stdout", "stderr"):
            # Without a writer yet there is nothing to poll: the end is seen only after one came and went.
            fd = os.open(self._paths[stream], os.O_RDONLY | os.O_NONBLOCK)
            if self._pipe_size:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, self._pipe_size)
            transport, _ = await loop.connect_read_pipe(
                lambda stream=stream: _Collector(self, stream, self._ended[stream]), os.fdopen(fd, "rb", buffering=0)
            )
            self._transports.append(transport)
        if "stdin" in self._paths:
            self._stdin = os.open(self._paths["stdin"], os.O_RDWR | os.O_NONBLOCK)

    def pause(self) -> None:
        """Stop reading: the stalled reader."""
        for transport in self._transports:
            transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        for transport in self._transports:
            transport.resume_reading()

    async def write(self, data: bytes) -> None:
        """Write to stdin as fast as it takes it."""
        assert self._stdin is not None
        loop, view = asyncio.get_running_loop(), memoryview(data)
        while view:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._stdin, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(self._stdin)

    def collect(self, stream: str, data: bytes) -> None:
        """Bytes came out of a stream."""
        self._collected[stream] += data
        asyncio.ensure_future(self._notify())  # noqa: RUF006 ends at once

    async def _notify(self) -> None:
        async with self._grown:
            self._grown.notify_all()

    def output(self, stream: str = "stdout") -> bytes:
        """What came out so far."""
        return bytes(self._collected[stream])

    async def until(self, text: bytes, stream: str = "stdout", timeout: float = CALL_TIMEOUT) -> None:
        """Wait until the text has come out."""
        async with asyncio.timeout(timeout), self._grown:
            await self._grown.wait_for(lambda: text in self._collected[stream])

    async def ended(self, stream: str = "stdout", timeout: float = CALL_TIMEOUT) -> bytes:
        """Wait for a stream's end, as containerd does, and return all of it."""
        async with asyncio.timeout(timeout):
            await self._ended[stream].wait()
        return self.output(stream)

    def detach(self) -> None:
        """Close our ends: the manager is gone, and may come back and `open` them again."""
        while self._transports:
            self._transports.pop().close()
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def close(self) -> None:
        """Close our ends and remove the fifos."""
        self.detach()
        for path in self._paths.values():
            path.unlink(missing_ok=True)


class _Collector(asyncio.Protocol):
    def __init__(self, streams: Streams, stream: str, ended: asyncio.Event) -> None:
        self._streams, self._stream, self._ended = streams, stream, ended

    def data_received(self, data: bytes) -> None:
        self._streams.collect(self._stream, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()  # the last writer is gone


class Process:
    """A container's init (empty exec id) or an exec, with its streams."""

    def __init__(self, container: Container, exec_id: str, streams: Streams) -> None:
        self.container, self.exec_id, self.io = container, exec_id, streams

    @property
    def _ids(self) -> dict[str, str]:
        return {"id": self.container.id, "exec_id": self.exec_id}

    async def start(self, *, timeout: float = CALL_TIMEOUT) -> int:
        """Start it and return the pid answered."""
        reply = await self.container.task.Start(task_v2_pb2.StartRequest(**self._ids), timeout=timeout)
        return int(reply.pid)

    async def wait(self, *, timeout: float = CALL_TIMEOUT) -> Exit:
        """Wait for its exit."""
        reply = await self.container.task.Wait(task_v2_pb2.WaitRequest(**self._ids), timeout=timeout)
        return Exit(reply.exit_status, reply.exited_at.ToNanoseconds())

    async def state(self, *, timeout: float = CALL_TIMEOUT) -> task_v2_pb2.StateResponse:
        """Ask for its state."""
        return await self.container.task.State(task_v2_pb2.StateRequest(**self._ids), timeout=timeout)

    async def kill(self, number: int = signal.SIGKILL, *, all: bool = False, timeout: float = CALL_TIMEOUT) -> None:
        """Signal it."""
        request = task_v2_pb2.KillRequest(signal=number, all=all, **self._ids)
        await self.container.task.Kill(request, timeout=timeout)

    async def resize(self, width: int, height: int) -> None:
        """Resize its terminal."""
        request = task_v2_pb2.ResizePtyRequest(width=width, height=height, **self._ids)
        await self.container.task.ResizePty(request, timeout=CALL_TIMEOUT)

    async def close_stdin(self) -> None:
        """End its stdin."""
        request = task_v2_pb2.CloseIORequest(stdin=True, **self._ids)
        await self.container.task.CloseIO(request, timeout=CALL_TIMEOUT)

    async def delete(self, *, timeout: float = CALL_TIMEOUT) -> Exit:
        """Close our streams, as CRI-O does first, and delete it."""
        self.io.close()
        reply = await self.container.task.Delete(task_v2_pb2.DeleteRequest(**self._ids), timeout=timeout)
        return Exit(reply.exit_status, reply.exited_at.ToNanoseconds())


class Container(Process):
    """A container made through its own start of the launcher and its own connection."""

    def __init__(self, manager: Manager, id: str, bundle: Path, address: str, streams: Streams) -> None:
        self.manager, self.id, self.bundle, self.address = manager, id, bundle, address
        super().__init__(self, "", streams)
        self._connection = AsyncExitStack()
        self._exec_ids = itertools.count(1)

    async def connect(self) -> None:
        """Connect to the shim, as a manager does at first and after its restart."""
        await self.disconnect()
        to = address.parse(self.address)
        client = await self._connection.enter_async_context(connect(to, timeout=START_TIMEOUT))
        self.task = TaskClient(client)

    async def disconnect(self) -> None:
        """Close the connection, in the midst of whatever goes on over it."""
        await self._connection.aclose()

    async def create(self, *, rootfs: Sequence[Mount] = (), timeout: float = CREATE_TIMEOUT) -> int:
        """Ask for it and return the pid answered; the mounts make its root file system, if it has not one already."""
        options = AnyMessage()
        options.Pack(runtimeoptions_pb2.Options(config_path=str(self.manager.config)), type_url_prefix="")
        options.type_url = options.type_url.lstrip("/")
        request = task_v2_pb2.CreateTaskRequest(
            id=self.id,
            bundle=str(self.bundle),
            terminal=self.io.terminal,
            stdin=self.io.path("stdin"),
            stdout=self.io.path("stdout"),
            stderr=self.io.path("stderr"),
            options=options,
            rootfs=rootfs,
        )
        return int((await self.task.Create(request, timeout=timeout)).pid)

    async def exec(
        self,
        *args: str,
        stdin: bool = False,
        terminal: bool = False,
        exec_id: str = "",
        fifos: str = "",
        **process: Any,
    ) -> Process:
        """Register an exec, with its streams open; start it with `start`."""
        exec_id = exec_id or f"exec-{next(self._exec_ids)}"
        streams = Streams(
            self.manager.directory / "fifo", f"{self.id}-{fifos or exec_id}", stdin=stdin, terminal=terminal
        )
        await streams.open()
        value = json.dumps(bundles.process(args, terminal=terminal, **process)).encode()
        request = task_v2_pb2.ExecProcessRequest(
            id=self.id,
            exec_id=exec_id,
            terminal=terminal,
            stdin=streams.path("stdin"),
            stdout=streams.path("stdout"),
            stderr=streams.path("stderr"),
            spec=AnyMessage(type_url=PROCESS_TYPE, value=value),
        )
        try:
            await self.task.Exec(request, timeout=CALL_TIMEOUT)
        except BaseException:
            streams.close()
            raise
        return Process(self, exec_id, streams)

    async def run(self, *args: str, timeout: float = CALL_TIMEOUT, **process: Any) -> tuple[int, bytes]:
        """ExecSync: exit status and stdout of a command, its exec deleted."""
        running = await self.exec(*args, **process)
        try:
            await running.start(timeout=timeout)
            exit = await running.wait(timeout=timeout)
            # CRI-O closes the fifos at this moment: what was written must be in them or read already.
            output = await running.io.ended(timeout=5.0)
        finally:
            await running.delete()
        return exit.status, output

    async def exec_any(self, type_url: str, value: bytes) -> None:
        """Exec with a spec of any type."""
        spec = AnyMessage(type_url=type_url, value=value)
        request = task_v2_pb2.ExecProcessRequest(id=self.id, exec_id="any", spec=spec)
        await self.task.Exec(request, timeout=CALL_TIMEOUT)

    async def update(self, resources: Mapping[str, Any]) -> None:
        """Give the container other limits."""
        value = json.dumps(resources).encode()
        document = AnyMessage(type_url=RESOURCES_TYPE, value=value)
        await self.task.Update(task_v2_pb2.UpdateTaskRequest(id=self.id, resources=document), timeout=CALL_TIMEOUT)

    async def stats(self, *, timeout: float = CALL_TIMEOUT) -> AnyMessage:
        """The statistics, packed."""
        return (await self.task.Stats(task_v2_pb2.StatsRequest(id=self.id), timeout=timeout)).stats

    async def usage(self) -> Usage:
        """What it uses, by the statistics of whichever cgroup generation the host has.

        Raises:
            AssertionError: A part is missing.
        """
        stats = await self.stats()
        if stats.type_url == "io.containerd.cgroups.v1.Metrics":
            v1 = cgroups_v1_pb2.Metrics.FromString(stats.value)
            assert all(v1.HasField(part) for part in ("cpu", "memory", "pids"))
            return Usage(v1.cpu.usage.total, v1.memory.usage.usage, v1.memory.usage.limit, v1.pids.current)
        v2 = cgroups_v2_pb2.Metrics.FromString(stats.value)
        assert all(v2.HasField(part) for part in ("cpu", "memory", "pids"))
        return Usage(v2.cpu.usage_usec * 1000, v2.memory.usage, v2.memory.usage_limit, v2.pids.current)

    async def pids(self) -> list[int]:
        """The pids of the task."""
        reply = await self.task.Pids(task_v2_pb2.PidsRequest(id=self.id), timeout=CALL_TIMEOUT)
        return [process.pid for process in reply.processes]

    async def connected(self) -> tuple[int, int]:
        """What Connect answers: the shim's pid and the task's."""
        reply = await self.task.Connect(task_v2_pb2.ConnectRequest(id=self.id), timeout=CALL_TIMEOUT)
        return reply.shim_pid, reply.task_pid

    @property
    def shim_pid(self) -> int:
        """The daemon's pid, from the bundle."""
        return int((self.bundle / "shim.pid").read_text())

    async def shutdown(self, *, now: bool = False) -> None:
        """Ask the shim to end; a closed connection is as good as an answer."""
        try:
            await self.task.Shutdown(task_v2_pb2.ShutdownRequest(id=self.id, now=now), timeout=CALL_TIMEOUT)
        except ConnectionClosed:
            pass


class Manager:
    """The manager.

    Args:
        launcher: The shim's program.
        directory: Where bundles and fifos go; short.
        config: `configuration.toml`, given as runtime option.
        rootfs: The root file system that all containers share.
        ttrpc_address: Where events go; empty as under CRI-O.
    """

    def __init__(self, launcher: Path, directory: Path, config: Path, rootfs: Path, *, ttrpc_address: str = "") -> None:
        self.launcher, self.directory, self.config, self.rootfs = launcher, directory, config, rootfs
        self._ttrpc_address = ttrpc_address

    def using(self, *, launcher: Path | None = None, config: Path | None = None) -> Manager:
        """The same manager with another launcher or configuration."""
        return Manager(
            launcher or self.launcher, self.directory, config or self.config, self.rootfs,
            ttrpc_address=self._ttrpc_address,
        )  # fmt: skip

    def command(self, container_id: str, *action: str) -> list[str]:
        """The launcher's command line for a container."""
        flags = ["-namespace", NAMESPACE, "-address", "", "-publish-binary", "/usr/bin/crio", "-id", container_id]
        return [str(self.launcher), *flags, *action]

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment CRI-O gives."""
        return {
            **os.environ, "TTRPC_ADDRESS": self._ttrpc_address, "GRPC_ADDRESS": "", "NAMESPACE": NAMESPACE,
            "MAX_SHIM_VERSION": "2", "GOMAXPROCS": "2",
        }  # fmt: skip

    async def start_shim(self, container_id: str, bundle: Path, *flags: str) -> str:
        """Run `start`, with further flags, and return what it printed.

        Raises:
            subprocess.CalledProcessError: It failed; `output` is what the user would see.
        """
        process = await asyncio.create_subprocess_exec(
            *self.command(container_id, *flags, "start"), cwd=bundle, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(START_TIMEOUT):
            output, _ = await process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "start", output)
        return output.decode().strip()

    @asynccontextmanager
    async def container(
        self,
        id: str,
        *args: str,
        stdin: bool = False,
        terminal: bool = False,
        mounts: Sequence[Mapping[str, Any]] = (),
        create: bool = True,
        spec: Mapping[str, Any] | None = None,
        **process: Any,
    ) -> AsyncIterator[Container]:
        """A container, created unless told otherwise; afterwards killed, deleted, its shim shut down.

        Raises:
            AssertionError: The sandbox was still on record after that.
        """
        content = spec or bundles.spec(
            id, self.rootfs, bundles.process(args, terminal=terminal, **process), mounts=mounts
        )
        bundle = bundles.write(self.directory / "bundles" / id, content)
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, bundle)
            streams = Streams(self.directory / "fifo", id, stdin=stdin, terminal=terminal)
            stack.callback(streams.close)
            await streams.open()
            printed = await self.start_shim(id, bundle)
            stack.callback(self._check_gone, id, bundle)
            container = Container(self, id, bundle, printed, streams)
            stack.push_async_callback(container.disconnect)
            await container.connect()
            if create:
                await container.create()
            try:
                yield container
            finally:
                await self._remove(container)

    async def _remove(self, container: Container) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await container.kill(all=True)
        except (TtrpcError, TimeoutError):
            pass
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await container.wait()
                await container.delete()
        except (TtrpcError, TimeoutError):
            pass
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await container.shutdown()
        except (TtrpcError, TimeoutError):
            pass

    def _check_gone(self, container_id: str, bundle: Path) -> None:
        left = (records.ROOT / container_id).exists()
        self.delete(container_id, bundle)
        assert not left, f"{container_id} was still on record after Delete and Shutdown"

    def delete(self, container_id: str, bundle: Path) -> None:
        """Run the delete binary to its end, as containerd does when it has lost a shim.

        Raises:
            AssertionError: It failed, or answered nothing.
            subprocess.TimeoutExpired: It took longer than containerd would wait.
        """
        deleted = subprocess.run(
            self.command(container_id, "-bundle", str(bundle), "delete"), cwd=bundle, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=DELETE_TIMEOUT, check=False,
        )  # fmt: skip
        assert deleted.returncode == 0, deleted.stderr
        assert deleted.stdout  # a DeleteResponse, whatever there was to delete
