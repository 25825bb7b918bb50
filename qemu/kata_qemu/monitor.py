"""Our own QMP session over the library `qemu.qmp`: bounded commands, events as a stream, an end that is noticed.

Source: QEMU `docs/interop/qmp-spec.rst`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.parts import Command

COMMAND_TIMEOUT = 10.0  # seconds
_CLOSE_TIMEOUT = 1.0

log = logging.getLogger(__name__)


class MonitorError(HypervisorError):
    """QEMU refused a command, did not answer in time, or is gone.

    MonitorError
    ├── CommandFailed
    │   └── DeviceNotFound
    └── MonitorClosed
    """

    def __init__(self, cause: str, *, budget: float | None = None) -> None:
        super().__init__("qemu", cause, budget=budget)


class CommandFailed(MonitorError):
    """QEMU refused a command.

    Attributes:
        command: The command.
        error_class: QMP's: `GenericError`, `DeviceNotFound`.
    """

    def __init__(self, command: Command, error_class: str, description: str) -> None:
        super().__init__(f"{command.name}: {description}")
        self.command = command
        self.error_class = error_class


class DeviceNotFound(CommandFailed):
    """There is no device of that name, or no more."""


class MonitorClosed(MonitorError):
    """The session has ended, most often because QEMU has."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the machine, such as `SHUTDOWN` or `DEVICE_DELETED`."""

    name: str
    data: Mapping[str, object] = field(default_factory=dict)


class Monitor:
    """A session with QEMU; made by `connect`."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client
        self._listeners: list[_Listener] = []

    async def execute(self, command: Command, *, timeout: float = COMMAND_TIMEOUT) -> object:
        """Run a command and return its value.

        Args:
            command: The command.
            timeout: Seconds that QEMU may take.

        Raises:
            CommandFailed: QEMU refused it.
            MonitorClosed: QEMU is gone, or has closed the session.
            MonitorError: It did not answer in time; whether the command took effect is not known.
        """
        log.debug("qmp: %s %s", command.name, command.arguments)
        try:
            async with asyncio.timeout(timeout):
                return await self._client.execute(command.name, command.arguments)
        except ExecuteError as error:
            kind = DeviceNotFound if error.error_class == DeviceNotFound.__name__ else CommandFailed
            raise kind(command, error.error_class, str(error)) from error
        except (ExecInterruptedError, StateError) as error:
            raise MonitorClosed(f"{command.name}: the monitor is closed") from error
        except QMPError as error:
            raise MonitorError(f"{command.name}: an answer that is not understood: {error}") from error
        except TimeoutError:
            raise MonitorError(f"{command.name}: no answer within {timeout:g} s", budget=timeout) from None

    async def lend(self, name: str, descriptor: int) -> None:
        """Give QEMU a duplicate of a descriptor, under a name that the next commands may use; each use takes it away.

        Raises:
            MonitorError: As `execute`.
        """
        try:
            self._client.send_fd_scm(descriptor)
        except (OSError, QMPError) as error:
            raise MonitorClosed(f"getfd {name}: {error}") from error
        await self.execute(Command("getfd", {"fdname": name}))

    @contextmanager
    def events(self, *names: str) -> Iterator[AsyncIterator[Event]]:
        """The events of these names from now on, as a stream that ends with the session.

        Subscribe before the command that brings the event about.
        """
        listener = _Listener(names)
        self._listeners.append(listener)
        if self._client.runstate is not Runstate.RUNNING:
            listener.end()
        try:
            with self._client.listen(listener):
                yield listener.stream()
        finally:
            self._listeners.remove(listener)

    async def watch(self) -> None:
        """Return at the session's end, and end the streams of events."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        for listener in self._listeners:
            listener.end()


class _Listener(EventListener):
    """The library's own keeps every event for ever, and falls silent when the session ends."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def put(self, event: Message) -> None:
        if self.accept(event):
            data = event.get("data")
            self._events.put_nowait(Event(str(event["event"]), data if isinstance(data, dict) else {}))

    def end(self) -> None:
        self._events.put_nowait(None)

    async def stream(self) -> AsyncIterator[Event]:
        while event := await self._events.get():
            log.debug("qmp event: %s %s", event.name, event.data)
            yield event


@asynccontextmanager
async def connect(sock: socket.socket, *, timeout: float = COMMAND_TIMEOUT) -> AsyncIterator[Monitor]:
    """Open a session over a connected socket; the context's end closes it.

    Args:
        sock: Connected to QEMU's listening socket, whether or not QEMU has accepted yet.
        timeout: Seconds until QEMU must have greeted.

    Raises:
        MonitorError: No greeting in time, or none that was understood.
        MonitorClosed: QEMU has gone instead.
    """
    client = QMPClient()
    client.logger = logging.Logger("qemu.qmp", logging.CRITICAL + 1)  # all it logs, it also raises
    client.events.event_filter = lambda _: False  # it would keep for ever what nobody reads
    monitor = Monitor(client)
    try:
        async with asyncio.timeout(timeout):
            await client.connect(sock)
    except TimeoutError:
        raise MonitorError(f"no greeting within {timeout:g} s", budget=timeout) from None
    except ConnectError as error:
        gone = isinstance(error.exc, EOFError | OSError)
        raise (MonitorClosed("no greeting: QEMU closed the monitor") if gone else MonitorError(str(error))) from error
    except AssertionError as error:  # the library's own, where the session ends while it is being opened
        await _close(client)
        raise MonitorClosed("QEMU closed the monitor right after its greeting") from error
    watcher = asyncio.create_task(monitor.watch(), name="qmp session")
    try:
        yield monitor
    finally:
        await _close(client)
        await watcher


async def _close(client: QMPClient) -> None:
    with suppress(Exception):  # it raises whatever the reader met in QEMU's lines; however it ends, it is over
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await client.disconnect()
