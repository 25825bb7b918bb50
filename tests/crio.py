"""A CRI-O for tests: its own sequence of calls for each operation on a `runtime_type = "vm"` container, call by call.

`tests.manager` makes single calls for tests of single methods. This one is what the real CRI-O is to a shim: it opens
and closes fifos and sends calls in CRI-O's order, reads answers as carelessly, forgives what CRI-O forgives, and never
runs the delete binary. What it sent is kept, to be compared with a recording of a real one (tests/data/crio).
Source: CRI-O `internal/oci/runtime_vm.go`, `internal/oci/runtime_vm_linux.go`, `internal/oci/container.go`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from kata_protos import runtimeoptions_pb2
from kata_protos import task_v2_pb2 as task
from kata_protos.task_types_pb2 import Status
from kata_py.ttrpc.errors import ConnectionClosed, TtrpcError
from tests.crio_calls import CONNECT_TIMEOUT, HANG, CrioError, Sent, Task, as_any, decoded
from tests.crio_container import Container, ExecResult, Log, State
from tests.fifos import Fifos

logger = logging.getLogger(__name__)

RECORDED = Path(__file__).parent / "data" / "crio"
CREATE_TIMEOUT = 90.0  # seconds; CRI-O's own is 240
KILL_TIMEOUT = 60.0  # seconds until a stop is given up; CRI-O's own is 120
START_ENVIRONMENT = {
    "GOMAXPROCS": "2", "MAX_SHIM_VERSION": "2", "TTRPC_ADDRESS": "", "GRPC_ADDRESS": "", "NAMESPACE": "default"
}  # fmt: skip
PREFIX = "io.kubernetes.cri-o."  # of its annotations
TIMED_OUT = -1  # the exit code of an ExecSync that took too long


class Crio:
    """CRI-O on one node.

    Args:
        launcher: `runtime_path`.
        config: `runtime_config_path`; None leaves it out of the handler.
        directory: Where its directories go; short, and empty.
        image: The root file system of every image.
    """

    def __init__(self, launcher: Path, config: Path | None, directory: Path, image: Path) -> None:
        self.launcher, self.config, self.image = launcher, config, image
        self.containers: dict[str, Container] = {}
        self.sent: list[Sent] = []
        self.create_timeout = CREATE_TIMEOUT
        self.places = {
            "<run>": directory / "run", "<lib>": directory / "lib", "<ns>": directory / "ns",
            "<srv>": directory / "srv", "<log>": directory / "pods",
        }  # fmt: skip
        self.exits = directory / "exits"
        self.fifos = directory / "vc" / "crio" / "fifo"
        self._connections = 0

    # --- what CRI-O prepares

    def prepare_sandbox(self, pod: str, *, args: Sequence[str] = ()) -> Container:
        """Make a pod's namespaces, files and its sandbox's bundle."""
        for kind in ("netns", "ipcns", "utsns"):
            path = self.places["<ns>"] / kind / pod
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        self._run("unshare", f"--net={self.places['<ns>'] / 'netns' / pod}", "ip", "link", "set", "lo", "up")
        container = self._prepare(pod, pod, "sandbox.json", {}, args)
        for name in ("hostname", "resolv.conf"):
            (container.bundle / name).write_text("web\n" if name == "hostname" else "nameserver 10.85.0.1\n")
        (container.bundle / "shm").mkdir()
        self._run("mount", "-t", "tmpfs", "-o", "mode=1777,size=65536k", "shm", str(container.bundle / "shm"))
        return container

    def prepare_container(
        self, pod: str, id: str, *, args: Sequence[str] = (), stdin: bool = False, tty: bool = False,
        limited: bool = False,
    ) -> Container:  # fmt: skip
        """Make a container's root file system and bundle.

        Args:
            pod: Its pod.
            id: Its id.
            args: What it runs; none is what the recorded one ran.
            stdin: Whether it has one.
            tty: Whether it has a terminal.
            limited: Whether it gets the limits of the recorded one: half a processor, 128 MiB.
        """
        for name in ("data", "cm"):
            (self.places["<srv>"] / name).mkdir(parents=True, exist_ok=True)
        (self.places["<run>"] / pod / "userdata" / ".containerenv").touch()
        names = {"<app>": id, "<pid>": str(self.containers[pod].state.pid)}
        container = self._prepare(pod, id, "container.json", names, args)
        spec = container.spec
        if tty:
            spec["process"]["terminal"] = True
        spec["annotations"] |= {f"{PREFIX}Stdin": str(stdin).lower(), f"{PREFIX}TTY": str(tty).lower()}
        if not limited:
            spec["linux"]["resources"] = {"devices": spec["linux"]["resources"]["devices"]}
        self.write_spec(container)
        return container

    @staticmethod
    def write_spec(container: Container) -> None:
        """Write a container's config.json, as its spec is now."""
        (container.bundle / "config.json").write_text(json.dumps(container.spec))

    def _prepare(self, pod: str, id: str, recorded: str, names: Mapping[str, str], args: Sequence[str]) -> Container:
        text = (RECORDED / recorded).read_text()
        for name, value in {**self.places, **names, "<pod>": pod}.items():
            text = text.replace(name, str(value))
        spec = json.loads(text)
        if args:
            spec["process"]["args"] = list(args)
        bundle = self.places["<run>"] / id / "userdata"
        bundle.mkdir(parents=True)
        rootfs = self._mount_rootfs(id)
        container = self.containers[id] = Container(id, pod, spec, bundle, rootfs)
        self.write_spec(container)
        return container

    def _mount_rootfs(self, id: str) -> Path:
        layers = {name: self.places["<lib>"] / id / name for name in ("upper", "work", "merged")}
        for path in layers.values():
            path.mkdir(parents=True)
        pause = layers["upper"] / "pause"
        pause.write_text("#!/bin/sh\nexec sleep 2147483647\n")
        pause.chmod(0o755)
        options = f"lowerdir={self.image},upperdir={layers['upper']},workdir={layers['work']}"
        self._run("mount", "-t", "overlay", "-o", options, "overlay", str(layers["merged"]))
        return layers["merged"]

    def discard(self, container: Container) -> None:
        """Unmount and remove a container's files, which nobody may hold any more.

        Raises:
            OSError: Somebody does.
        """
        self._run("umount", str(container.rootfs))
        shutil.rmtree(container.rootfs.parent)
        if container.id == container.pod:
            self._run("umount", str(container.bundle / "shm"))
            netns = self.places["<ns>"] / "netns" / container.pod
            subprocess.run(["umount", netns], check=False, capture_output=True)  # a test may have been first
            netns.unlink()
        shutil.rmtree(container.bundle.parent)
        (self.exits / container.id).unlink(missing_ok=True)
        del self.containers[container.id]

    def netns(self, pod: str) -> Path:
        """Where a pod's network namespace is pinned."""
        return self.places["<ns>"] / "netns" / pod

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr}")

    # --- operations on a container

    async def create(self, container: Container) -> None:
        """CreateContainer: start the launcher, make fifos, Create.

        Raises:
            CrioError: It failed, and what CRI-O cleans up was cleaned up.
        """
        container.log = Log(container.bundle / "log")
        try:
            await self._connect(container, await self._start_shim(container))
        except (CrioError, TtrpcError, OSError) as error:  # nothing is sent: there is nobody to send it to
            container.log.close()
            raise CrioError(str(error)) from error
        container.io = Fifos.make(self.fifos, container.id, stdin=_wants(container, "Stdin"))
        container.io.open(terminal=_wants(container, "TTY"))
        request = task.CreateTaskRequest(
            id=container.id,
            bundle=str(container.bundle),
            stdin=container.io.path("stdin"),
            stdout=container.io.path("stdout"),
            stderr=container.io.path("stderr"),
            terminal=_wants(container, "TTY"),
            options=self._options(),
        )
        assert container.task is not None
        creating = asyncio.create_task(container.task.call("Create", request, task.CreateTaskResponse))
        try:
            done, _ = await asyncio.wait([creating], timeout=self.create_timeout)
            if not done:
                await self._remove(container)
                async with asyncio.timeout(HANG):
                    await asyncio.wait([creating])
                raise CrioError(f"CreateContainer timeout ({self.create_timeout:g} s)")
            container.state.pid = creating.result().pid
            container.state.start_time = _start_time(container.state.pid)
        except (CrioError, TtrpcError, OSError) as error:
            container.io.remove()
            with suppress(TtrpcError):
                await self._remove(container)
            with suppress(TtrpcError):
                await self._shut_down(container)
            raise CrioError(str(error)) from error
        finally:
            creating.cancel()
            await asyncio.wait([creating])

    async def start(self, container: Container) -> None:
        """StartContainer: Start, and a Wait in the background, which writes the exit file."""
        await self._task(container).call("Start", task.StartRequest(id=container.id), task.StartResponse)
        await self.status(container)
        container.waiter = asyncio.create_task(self._follow(container), name=f"waiter of {container.id}")
        await asyncio.sleep(0)

    async def _follow(self, container: Container) -> None:
        # CRI-O: a Wait that the connection's end ends writes no exit file.
        with suppress(ConnectionClosed):
            await self._wait(container)
            self.exits.mkdir(exist_ok=True)
            (self.exits / container.id).touch()
            await self.status(container)

    async def exec_sync(self, container: Container, *args: str, timeout: float | None = None) -> ExecResult:
        """ExecSync."""
        process = await self.exec(container, *args)
        try:
            try:
                async with asyncio.timeout(timeout):
                    code = await process.wait()
            except TimeoutError:
                await process.kill(signal.SIGKILL)
                await process.wait()
                code = TIMED_OUT
            # Here CRI-O closes the fifos and looks at what it has read.
            process.io.remove()
            return ExecResult(code, process.io.output("stdout"), process.io.output("stderr"))
        finally:
            await process.delete()

    async def exec(self, container: Container, *args: str, stdin: bool = False, terminal: bool = False) -> ExecProcess:
        """Exec, up to the answer of Start."""
        io = Fifos.make(self.fifos, container.id, stdin=stdin)
        io.open(terminal=terminal)
        spec = {**container.spec["process"], "args": list(args)} | ({"terminal": True} if terminal else {})
        process = ExecProcess(self, container, secrets.token_hex(32), io)
        request = task.ExecProcessRequest(
            id=container.id,
            exec_id=process.id,
            stdin=io.path("stdin"),
            stdout=io.path("stdout"),
            stderr=io.path("stderr"),
            terminal=terminal,
            spec=as_any("Process", spec),
        )
        try:
            await self._task(container).empty("Exec", request)
            start = task.StartRequest(id=container.id, exec_id=process.id)
            await self._task(container).call("Start", start, task.StartResponse)
        except BaseException:
            io.remove()
            with suppress(TtrpcError):
                await process.delete()
            raise
        return process

    async def stop(self, container: Container, timeout: float = 10.0, *, number: int = signal.SIGTERM) -> None:
        """StopContainer: ask it to end for so many seconds, and then kill it."""
        if container.state.status == Status.PAUSED:
            await self._task(container).empty("Resume", task.ResumeRequest(id=container.id))
        waiting = asyncio.create_task(self._wait_forgiving(container), name=f"stop of {container.id}")
        try:
            if timeout > 0:
                await self.kill(container, number)
                await asyncio.wait([waiting], timeout=timeout)
            if not waiting.done():
                await self.kill(container, signal.SIGKILL)
                await asyncio.wait([waiting], timeout=KILL_TIMEOUT)
            if not waiting.done():
                raise CrioError(f"container {container.id} does not end")
            waiting.result()
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
        await self.status(container)
        if container.waiter is not None:
            await asyncio.wait([container.waiter])

    async def delete(self, container: Container) -> task.DeleteResponse | None:
        """DeleteContainer: close its I/O, Delete, Shutdown; then its files go. A closed connection is as good."""
        if container.io is not None:
            container.io.remove()
        answer = None
        with suppress(ConnectionClosed):
            answer = await self._remove(container)
        with suppress(ConnectionClosed):
            await self._shut_down(container)
        await self.forget(container)
        return answer

    async def forget(self, container: Container) -> None:
        """Give up what CRI-O holds of a container, and remove its files."""
        if container.io is not None:
            container.io.remove()
        if container.waiter is not None:
            container.waiter.cancel()
            await asyncio.wait([container.waiter])
        if container.task is not None:
            await container.task.close()
        if container.log is not None:
            container.log.close()
        await asyncio.to_thread(self.discard, container)

    async def kill(self, container: Container, number: int) -> None:
        """Signal a container's first process. Nothing is forgiven."""
        await self._task(container).empty("Kill", task.KillRequest(id=container.id, signal=number))

    async def is_alive(self, container: Container) -> bool:
        """Whether it takes signal 0."""
        try:
            await self.kill(container, 0)
        except TtrpcError:
            return False
        return True

    async def status(self, container: Container) -> State:
        """UpdateContainerStatus: connect if need be, and ask for the state."""
        connected = container.task is not None
        if not connected:
            await self._connect(container, (container.bundle / "address").read_text())
        request = task.StateRequest(id=container.id)
        try:
            answer = await self._task(container).call("State", request, task.StateResponse)
        except ConnectionClosed:
            return container.state
        if not connected and container.io is None:
            names = {"stdin": answer.stdin, "stdout": answer.stdout, "stderr": answer.stderr}
            container.io = Fifos({stream: Path(path) for stream, path in names.items() if path})
            container.io.open(terminal=answer.terminal)
        container.state.status = answer.status
        container.state.exit_code = answer.exit_status
        container.state.finished = answer.exited_at.ToNanoseconds()
        if answer.exit_status:
            container.state.oom_killed = (container.bundle / "oom").exists()
        return container.state

    async def update(self, container: Container, resources: Mapping[str, Any]) -> None:
        """UpdateContainer, without annotations."""
        request = task.UpdateTaskRequest(id=container.id, resources=as_any("LinuxResources", resources))
        await self._task(container).empty("Update", request)

    async def stats(self, container: Container) -> tuple[int, int, int]:
        """ContainerStats: CPU time in ns, bytes of memory, number of processes; from messages taken to be there.

        Raises:
            CrioError: One was not: CRI-O would have ended there and then.
        """
        answer = await self._task(container).call("Stats", task.StatsRequest(id=container.id), task.StatsResponse)
        return decoded(answer.stats)

    async def pause(self, container: Container) -> None:
        """PauseContainer."""
        await self._task(container).empty("Pause", task.PauseRequest(id=container.id))

    async def unpause(self, container: Container) -> None:
        """UnpauseContainer."""
        await self._task(container).empty("Resume", task.ResumeRequest(id=container.id))

    async def restart(self) -> None:
        """CRI-O ends and comes back: connections, its ends of fifos, waiters are gone; `status` makes them anew."""
        for container in self.containers.values():
            if container.waiter is not None:
                container.waiter.cancel()
                await asyncio.wait([container.waiter])
                container.waiter = None
            if container.task is not None:
                await container.task.close()
                container.task = None
            if container.io is not None:
                container.io.close()
                container.io = None
            if container.log is not None:
                container.log.close()  # and never opened again

    # --- operations on a pod

    @asynccontextmanager
    async def pod(self, id: str) -> AsyncIterator[Container]:
        """A pod that runs; stopped and removed afterwards with whatever is in it."""
        sandbox = self.prepare_sandbox(id)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.remove_pod, sandbox)
            await self.create(sandbox)
            await self.start(sandbox)
            yield sandbox

    async def run(
        self, pod: str, id: str, *args: str, stdin: bool = False, tty: bool = False, limited: bool = False
    ) -> Container:
        """Create and start a container."""
        container = self.prepare_container(pod, id, args=args, stdin=stdin, tty=tty, limited=limited)
        await self.create(container)
        await self.status(container)
        await self.start(container)
        return container

    async def stop_pod(self, sandbox: Container, timeout: float = 10.0) -> None:
        """StopPodSandbox: the containers at the same time, the infra container last."""
        others = [each for each in self.containers.values() if each.pod == sandbox.id and each is not sandbox]
        await asyncio.gather(*(self.stop(each, timeout) for each in others if each.state.status != Status.STOPPED))
        await self.stop(sandbox, timeout)

    async def remove_pod(self, sandbox: Container) -> None:
        """RemovePodSandbox, of whatever is still there: stopped, if it was not, and deleted as far as it goes."""
        others = [each for each in self.containers.values() if each.pod == sandbox.id and each is not sandbox]
        for each in (*others, sandbox):
            if each.id not in self.containers:
                continue
            try:
                if each.task is None and (each.bundle / "address").exists():
                    await self.status(each)
                if each.task is not None:
                    await self.stop(each, 0)
                    await self.delete(each)
                    continue
            except (TtrpcError, OSError) as error:
                logger.warning("%s: %s", each.id, error)
            await self.forget(each)

    # --- calls

    async def _start_shim(self, container: Container) -> str:
        arguments = [
            "-namespace", "default", "-address", "", "-publish-binary", "/usr/bin/crio", "-id", container.id, "start"
        ]  # fmt: skip
        self.sent.append(
            Sent(
                0,
                "",
                {
                    "argv": arguments,
                    "env": START_ENVIRONMENT,
                    "cwd": str(container.bundle),
                    "bundle": sorted(path.name for path in container.bundle.iterdir()),
                },
            )
        )
        process = await asyncio.create_subprocess_exec(
            self.launcher, *arguments, cwd=container.bundle, env={**os.environ, **START_ENVIRONMENT},
            process_group=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(CONNECT_TIMEOUT):
            output, _ = await process.communicate()
        if process.returncode:
            raise CrioError(output.decode())
        return output.decode().strip()

    async def _connect(self, container: Container, printed: str) -> None:
        self._connections += 1
        container.task = await Task.connect(printed, self._connections, self.sent)

    def _task(self, container: Container) -> Task:
        assert container.task is not None
        return container.task

    def _options(self) -> AnyMessage | None:
        if self.config is None:
            return None
        value = runtimeoptions_pb2.Options(config_path=str(self.config)).SerializeToString()
        return AnyMessage(type_url="runtimeoptions.v1.Options", value=value)

    async def _wait(self, container: Container) -> int:
        request = task.WaitRequest(id=container.id)
        return (await self._task(container).call("Wait", request, task.WaitResponse, unbounded=True)).exit_status

    async def _wait_forgiving(self, container: Container) -> None:
        with suppress(ConnectionClosed):
            await self._wait(container)

    async def _remove(self, container: Container) -> task.DeleteResponse:
        return await self._task(container).call("Delete", task.DeleteRequest(id=container.id), task.DeleteResponse)

    async def _shut_down(self, container: Container) -> None:
        await self._task(container).empty("Shutdown", task.ShutdownRequest(id=container.id))


class ExecProcess:
    """An exec whose Start was answered."""

    def __init__(self, crio: Crio, container: Container, id: str, io: Fifos) -> None:
        self.id, self.io = id, io
        self._container = container
        self._task = crio._task(container)

    async def wait(self) -> int:
        """Wait for its end."""
        request = task.WaitRequest(id=self._container.id, exec_id=self.id)
        return (await self._task.call("Wait", request, task.WaitResponse, unbounded=True)).exit_status

    async def kill(self, number: int) -> None:
        """Signal it."""
        await self._task.empty("Kill", task.KillRequest(id=self._container.id, exec_id=self.id, signal=number))

    async def close_stdin(self) -> None:
        """The client's stdin has ended."""
        await self._task.empty("CloseIO", task.CloseIORequest(id=self._container.id, exec_id=self.id, stdin=True))

    async def resize(self, width: int, height: int) -> None:
        """The client's terminal has another size."""
        request = task.ResizePtyRequest(id=self._container.id, exec_id=self.id, width=width, height=height)
        await self._task.empty("ResizePty", request)

    async def delete(self) -> None:
        """Forget it."""
        request = task.DeleteRequest(id=self._container.id, exec_id=self.id)
        await self._task.call("Delete", request, task.DeleteResponse)


def _wants(container: Container, name: str) -> bool:
    return bool(container.spec["annotations"].get(f"{PREFIX}{name}") == "true")


def _start_time(pid: int) -> int:
    """Field 22 of a process's stat, which CRI-O reads as soon as it knows the pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
