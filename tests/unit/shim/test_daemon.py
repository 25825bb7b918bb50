"""The daemon in this process, at a real socket, with a Task service that keeps a list of ids."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from kata_protos.task_v2_pb2 import ConnectRequest, ConnectResponse, ShutdownRequest, WaitRequest, WaitResponse
from kata_protos.task_v2_ttrpc import TaskClient, TaskService
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.stdio import StdioOpener
from kata_py.shim import daemon as daemons
from kata_py.shim import listener
from kata_py.shim.daemon import Daemon
from kata_py.shim.log import LogrusFormatter, logging_to
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.context import Context


class Tasks(TaskService):
    """Connect, Wait and Shutdown, as far as the daemon's behaviour depends on them."""

    def __init__(self, events: EventQueue, open_stdio: StdioOpener, shut_down: Callable[[], None]) -> None:
        self.vacant = asyncio.Event()
        self.vacant.set()
        self.closed = False
        self._shut_down = shut_down

    async def Connect(self, request: ConnectRequest, context: Context) -> ConnectResponse:
        return ConnectResponse(shim_pid=os.getpid())

    async def Wait(self, request: WaitRequest, context: Context) -> WaitResponse:
        await self.vacant.wait()
        return WaitResponse(exit_status=7)

    async def Shutdown(self, request: ShutdownRequest, context: Context) -> Empty:
        if self.vacant.is_set():
            self._shut_down()
        return Empty()

    async def aclose(self) -> None:
        self.closed = True

    async def drained(self, timeout: float) -> None:
        assert self.closed


Tasks.__abstractmethods__ = frozenset()  # the rest is never called


class Running:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "s" / "socket"
        self.bundle = directory
        (directory / "address").write_text(f"unix://{self.path}")
        taken = listener.take(str(self.path))
        assert taken is not None
        listening = socket.socket(fileno=taken.detach())
        self.daemon = Daemon(listening, directory, "default")
        self.tasks: Tasks
        self.serving = asyncio.create_task(self.daemon.serve("", self._make_tasks))

    def _make_tasks(self, *parts: Any) -> Tasks:
        self.tasks = Tasks(*parts)
        return self.tasks

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            await self.serving
        assert not self.path.exists()
        assert not (self.bundle / "address").exists()
        assert self.tasks.closed

    def connected(self) -> Any:
        return connect(UnixAddress(str(self.path)), timeout=5)


@pytest.fixture
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    running = Running(tmp_path_factory.mktemp("b"))
    async with running.connected() as client:
        await TaskClient(client).Connect(ConnectRequest(), timeout=5)
    yield running
    running.serving.cancel()
    await asyncio.wait([running.serving])


async def test_shutdown_is_answered_after_the_socket_is_gone(running: Running) -> None:
    async with running.connected() as client:
        await TaskClient(client).Shutdown(ShutdownRequest(), timeout=5)
        assert not running.path.exists()
    await running.ended()


async def test_shutdown_with_tasks_changes_nothing(running: Running) -> None:
    running.tasks.vacant.clear()
    async with running.connected() as client:
        await TaskClient(client).Shutdown(ShutdownRequest(), timeout=5)
        reply = await TaskClient(client).Connect(ConnectRequest(), timeout=5)
    assert reply.shim_pid == os.getpid()
    assert not running.serving.done()


async def test_a_socket_of_the_same_name_made_after_shutdown_is_left_alone(running: Running) -> None:
    async with running.connected() as client:
        await TaskClient(client).Shutdown(ShutdownRequest(), timeout=5)
    successor = listener.take(str(running.path))
    assert successor is not None
    async with asyncio.timeout(5):
        await running.serving
    assert running.path.exists()
    successor.close()


async def test_version_3_is_served_by_the_same_handlers(running: Running) -> None:
    async with running.connected() as client:
        payload = await client.call("containerd.task.v3.Task", "Connect", b"", timeout=5)
    assert ConnectResponse.FromString(payload).shim_pid == os.getpid()


async def test_the_kernel_names_the_daemon_as_the_one_who_listens(running: Running) -> None:
    assert listener.probe(str(running.path)) == os.getpid()


async def test_a_pending_wait_does_not_stop_others_and_is_answered_before_the_end(running: Running) -> None:
    running.tasks.vacant.clear()
    async with running.connected() as one, running.connected() as two:
        waiting = asyncio.create_task(TaskClient(one).Wait(WaitRequest(), timeout=5))
        await TaskClient(two).Connect(ConnectRequest(), timeout=5)
        running.tasks.vacant.set()
        await TaskClient(two).Shutdown(ShutdownRequest(), timeout=5)
        assert (await waiting).exit_status == 7
    await running.ended()


async def test_a_peer_of_another_user_is_turned_away(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    async with running.connected() as client:
        async with asyncio.timeout(5):
            await client.wait_closed()


async def test_a_forgotten_shim_ends(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemons, "IDLE_TIMEOUT", 0.05)
    running.tasks.vacant.clear()
    idle = asyncio.create_task(running.daemon._end_when_idle(running.tasks))
    ended, _ = await asyncio.wait([idle], timeout=0.1)
    assert not ended  # it holds a task
    running.tasks.vacant.set()
    await running.ended()
    await idle
    assert "the manager has forgotten this shim" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_shim_without_tasks_alone(
    number: signal.Signals, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.tasks.vacant.clear()
    os.kill(os.getpid(), number)
    async with running.connected() as client:
        await TaskClient(client).Connect(ConnectRequest(), timeout=5)
    assert f"{number.name} ignored" in caplog.text
    running.tasks.vacant.set()
    os.kill(os.getpid(), number)
    await running.ended()


async def test_sigusr1_writes_what_every_task_and_thread_does(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    os.kill(os.getpid(), signal.SIGUSR1)
    async with running.connected() as client:
        await TaskClient(client).Connect(ConnectRequest(), timeout=5)
    stacks = {record.getMessage(): record.stack for record in caplog.records if hasattr(record, "stack")}
    assert "_end_when_idle" in stacks["task idle"]
    assert any(name.startswith("thread ") for name in stacks)


async def test_a_failure_while_serving_still_removes_the_socket(running: Running) -> None:
    running.serving.cancel()
    await asyncio.wait([running.serving])
    assert running.tasks.closed
    assert not running.path.exists()


@pytest.mark.parametrize(("enable_debug", "level"), [("true", logging.DEBUG), ("false", logging.WARNING)])
def test_the_configuration_can_let_the_shim_talk(
    enable_debug: str, level: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    file = tmp_path / "configuration.toml"
    file.write_text(f"[runtime]\nenable_debug = {enable_debug}\n")
    assert daemons.configuration_of(file).source == file
    assert logging.getLogger().level == level


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_configuration_says_in_which_form_the_shim_logs(form: str, tmp_path: Path) -> None:
    file = tmp_path / "configuration.toml"
    file.write_text(f'[runtime]\nlog_format = "{form}"\n')
    with logging_to(tmp_path / "log", "aa11", debug=False):
        daemons.configuration_of(file)
        formatters = [handler.formatter for handler in logging.getLogger().handlers]
    forms = [formatter.form for formatter in formatters if isinstance(formatter, LogrusFormatter)]
    assert forms == [form, form], "of the fifo and of the journal"
