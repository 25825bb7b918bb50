"""The daemon: one process per pod, from `start` until Shutdown.

It serves the Task API at the socket that `start` left it, whatever becomes of the virtual machine. Heavy
imports happen here, where nobody waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn, Protocol

from kata_py.config.model import Configuration, Source
from kata_py.resource.mntns import MountNamespace
from kata_py.sandbox import shims
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.record import Record
from kata_py.sandbox.stdio import StdioOpener
from kata_py.shim import bundle, process
from kata_py.shim.invocation import Invocation
from kata_py.shim.listener import LISTEN_FD
from kata_py.shim.log import logging_to, write_as
from kata_py.shim.publisher import publisher
from kata_py.shim.stdio import ManagerStdioOpener
from kata_py.ttrpc.server import Server, same_user
from kata_py.ttrpc.service import Entry, Service

logger = logging.getLogger(__name__)

IDLE_TIMEOUT = 120.0  # seconds; a manager's Create follows its start at once
DRAIN_TIMEOUT = 2.0  # seconds that a trace may still take to be told
ANSWER_TIMEOUT = 2.0  # seconds the last answers may take to be sent


class Tasks(Service, Protocol):
    """The Task service, as far as the daemon knows it."""

    @property
    def vacant(self) -> asyncio.Event:
        """Set while there is no task, none is being created, and nothing is being torn down."""

    async def aclose(self) -> None:
        """Tear down what there still is; called once, when no more requests come."""

    async def drained(self, timeout: float) -> None:
        """Wait, for some seconds at most, until what is told in the background is told; called at the very last."""


TasksFactory = Callable[[EventQueue, StdioOpener, Callable[[], None]], Tasks]
"""Makes the service of the events' queue, the opener of streams, and what its Shutdown calls before it answers."""


class Daemon:
    """One pod's server.

    Args:
        listening: The socket, listening.
        directory: The sandbox's bundle.
        namespace: The manager's namespace.
    """

    def __init__(self, listening: socket.socket, directory: Path, namespace: str) -> None:
        self._listening = listening
        self._path = listening.getsockname()
        self._directory = directory
        self._namespace = namespace
        self._ending = asyncio.Event()

    async def serve(self, manager: str, make_tasks: TasksFactory) -> None:
        """Serve until Shutdown, or until the shim has been idle for long.

        Args:
            manager: The manager's ttrpc address for events; empty when it takes none.
            make_tasks: Makes the Task service.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.end)
            opener = await stack.enter_async_context(ManagerStdioOpener())
            publish = await stack.enter_async_context(publisher(manager, self._namespace))
            events = EventQueue(publish)
            await stack.enter_async_context(events.sending())
            tasks = make_tasks(events, opener, self.end)
            stack.push_async_callback(tasks.drained, DRAIN_TIMEOUT)
            stack.push_async_callback(tasks.aclose)
            server = Server(admit=same_user)
            server.add(tasks)
            server.add(_Version3(tasks))
            stack.push_async_callback(server.wait_closed, ANSWER_TIMEOUT)
            stack.callback(server.close)
            await server.serve(self._listening)
            idle = asyncio.create_task(self._end_when_idle(tasks), name="idle")
            stack.callback(idle.cancel)
            self._handle_signals(tasks)
            logger.info("serving at %s", self._path)
            await self._ending.wait()

    def end(self) -> None:
        """Be found by nobody any more, and end; a shim of the same id may be started from now on."""
        if not self._ending.is_set():
            self._ending.set()
            Path(self._path).unlink(missing_ok=True)
            shims.forget(self._path)
            bundle.remove(str(self._directory), bundle.ADDRESS)

    async def _end_when_idle(self, tasks: Tasks) -> None:
        # A manager that loses its connection between start and Create, or between Delete and Shutdown, forgets us.
        while True:
            await tasks.vacant.wait()
            await asyncio.sleep(IDLE_TIMEOUT)
            if tasks.vacant.is_set():
                logger.warning("no task for %g s: the manager has forgotten this shim, which ends", IDLE_TIMEOUT)
                self.end()
                return

    def _handle_signals(self, tasks: Tasks) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_end, number, tasks)
        loop.add_signal_handler(signal.SIGUSR1, _dump_stacks)

    def _asked_to_end(self, number: signal.Signals, tasks: Tasks) -> None:
        # systemd signals every process of a pod's unit while the manager's Delete and Shutdown are still to come.
        if tasks.vacant.is_set():
            self.end()
        else:
            logger.warning("%s ignored: there are tasks, which only the manager ends", number.name)


class _Version3:
    """The same handlers as `containerd.task.v3.Task`, whose messages differ in their package's name alone."""

    ttrpc_name = "containerd.task.v3.Task"

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        return self._tasks.ttrpc_methods()


def _dump_stacks() -> None:
    from kata_py.http.debug import stacks

    for whose, stack in stacks():
        logger.info("%s", whose, extra={"stack": stack})


def serve(invocation: Invocation) -> NoReturn:
    """Run the daemon on the socket that `start` left. Never returns.

    An unexpected end undoes what the sandbox's record names: under CRI-O nobody else would.
    """
    process.close_inherited(above=LISTEN_FD)
    process.ignore_signals()
    directory = Path(invocation.bundle)
    code = 0
    with logging_to(directory / bundle.LOG, invocation.id, debug=invocation.debug):
        daemon = Daemon(socket.socket(fileno=LISTEN_FD), directory, invocation.namespace)
        try:
            node = process.separate()
            if sys.version_info < (3, 12):  # the default would wait for each child in a thread
                asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())
            asyncio.Runner().run(daemon.serve(os.environ.get("TTRPC_ADDRESS", ""), _task_service(invocation, node)))
        except BaseException as error:
            logger.critical("the shim ends, and its sandbox with it", exc_info=True)
            if isinstance(error, Exception):
                from kata_py.shim.post_mortem import keep

                keep(invocation, error)
            _unwind(invocation.id)
            code = 1
        finally:
            daemon.end()
    os._exit(code)  # a thread stuck in the write to a file would be waited for, without end


def _task_service(invocation: Invocation, node: MountNamespace | None) -> TasksFactory:
    def make(events: EventQueue, open_stdio: StdioOpener, shut_down: Callable[[], None]) -> Tasks:
        from kata_py.shim.service import TaskService

        return TaskService(
            invocation.namespace,
            events=events,
            open_stdio=open_stdio,
            shut_down=shut_down,
            load_configuration=configuration_of,
            node=node,
        )

    return make


def configuration_of(named: Source) -> Configuration:
    """Read the configuration, and log as it says: its `[runtime] enable_debug` does what `-debug` does; `log_format`.

    Raises:
        ConfigurationError: As `kata_py.config.load.load`.
    """
    from kata_py.config.load import load

    configuration = load(named)
    if configuration.runtime.enable_debug:
        logging.getLogger().setLevel(logging.DEBUG)
    write_as(configuration.runtime.log_format)
    return configuration


def _unwind(sandbox_id: str) -> None:
    try:
        for leftover in Record.load(sandbox_id).unwind():
            logger.error("left behind: %s", leftover)
    except SandboxError as error:
        logger.info("nothing to undo: %s", error)
