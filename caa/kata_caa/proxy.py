"""The agent's socket of a pod on its node: what the runtime asks there, the agent in the pod VM answers.

Each connection of the runtime has one of its own to the forwarder in the machine. Calls pass whole, but for the few
that are rewritten. If the machine's side breaks, the runtime's stays: what was under way is answered `UNAVAILABLE`,
as nobody knows whether it took effect, or asked again, if that does no harm. What comes next waits a while for a new
connection to the machine.
Source: cloud-api-adaptor `pkg/adaptor/proxy/proxy.go`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kata_caa import dialing
from kata_caa.dialing import Endpoint as Endpoint
from kata_caa.errors import ProxyError
from kata_caa.rewrite import HOOKED, Rewrite
from kata_py.ttrpc import transport
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import ListenError, StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.splice import Splice
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

SOCKET_NAME: Final = "agent.ttrpc"
"""The socket's name in the directory of its pod."""

REDIAL_PATIENCE: Final = 30.0
"""Seconds that calls wait for a new connection to the machine; after that they are answered at once until it stands."""

LOSS_AFTER: Final = 60.0
"""Seconds that a machine is dialled before it is given up, and its pod with it."""

_CLOSE_TIMEOUT: Final = 5.0  # seconds

REPEATED: Final = (
    ("grpc.Health", "Check"),
    ("grpc.AgentService", "WaitProcess"),
    ("grpc.AgentService", "GetOOMEvent"),
)
"""Calls that wait for news, which a runtime has under way at any time: answered with an error, they would be taken for
the end of a container that lives. They change nothing and are made again. Reads of output are not: what was read and
got lost would be missing without a word."""

LOST: Final = "the connection to the pod VM was lost before the agent answered; whether the call took effect is unknown"


@dataclass(frozen=True, slots=True)
class Stats:
    """What a proxy has done so far.

    Attributes:
        connections: Of the runtime, that stand now.
        accepted: Connections of the runtime, in all.
        redials: Connections to the machine that followed a lost one.
        requests: Calls that went on to the machine.
        refused: Calls that were answered here.
        bytes_to_vm: Of calls.
        bytes_to_shim: Of answers.
    """

    connections: int = 0
    accepted: int = 0
    redials: int = 0
    requests: int = 0
    refused: int = 0
    bytes_to_vm: int = 0
    bytes_to_shim: int = 0


class AgentProxy:
    """Listens while its context lasts. A socket that an earlier adaptor has left in its place is replaced.

    Args:
        socket: Where the runtime connects.
        endpoint: The forwarder in the machine.
        timeout: Seconds for the machine to come up.
        rewrite: Changes the calls that pod VMs want otherwise; None is by this node's volumes.
        patience: Seconds that calls wait for a lost connection to the machine.
        loss_after: Seconds that it is dialled before it is given up: whoever asks then is told that it is lost.
        reached: Whether its agent has answered before, to an earlier adaptor: then it does not come up any more.
    """

    def __init__(
        self,
        socket: Path,
        endpoint: Endpoint,
        *,
        timeout: float,
        rewrite: Rewrite | None = None,
        patience: float = REDIAL_PATIENCE,
        loss_after: float = LOSS_AFTER,
        reached: bool = False,
    ) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._timeout = timeout
        self._rewrite = rewrite or Rewrite()
        self._patience = patience
        self._listener: transport.Listener | None = None
        self._inode = 0
        self._is_ready = reached
        self._met: _Met | None = None
        self._loss_after = loss_after
        self._loss = ""  # what is told of a machine that was given up
        self._obituary = Server()
        self._obituary.add_raw("grpc.Health", "Check", self._tell_loss)
        self._passages: dict[_Passage, asyncio.Task[None]] = {}
        self._accepted = 0
        self._done = Stats()

    async def __aenter__(self) -> AgentProxy:
        """Listen.

        Raises:
            ProxyError: The socket cannot be made.
        """
        try:
            self._socket.unlink(missing_ok=True)  # also of an adaptor that lives, whose place we take
            self._listener = await transport.listen(UnixAddress(str(self._socket)), self._accept)
            self._inode = self._socket.stat().st_ino
        except (ListenError, OSError) as error:
            raise ProxyError(f"the agent's socket for {self._endpoint}: {error}") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End all connections, and remove the socket unless it is another one by now."""
        if self._listener is not None:
            self._listener.close()
        try:
            if self._socket.lstat().st_ino == self._inode:
                self._socket.unlink()
        except FileNotFoundError:
            pass  # with its directory, mostly
        tasks = list(self._passages.values())
        for passage in self._passages:
            passage.splice.close("server")
        if tasks:
            await asyncio.wait(tasks)
        self._obituary.close()
        await self._obituary.wait_closed(_CLOSE_TIMEOUT)

    async def ready(self) -> None:
        """Wait until the agent answers; any number of times, and as long as it takes, so be ready to cancel it.

        Raises:
            ProxyError: It did not in time, or is the wrong one.
        """
        met = self._met = _Met()
        attempts = 0
        try:
            async with asyncio.timeout(self._timeout):
                for pause in dialing.pauses():
                    attempts += 1
                    try:
                        await dialing.probe(self._endpoint, met.note)
                        break
                    except dialing.FAILURES as error:
                        met.note(dialing.reason(error))
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise ProxyError(
                f"{self._endpoint} was not ready within {self._timeout:g} s, in {attempts} attempts: {met}; "
                "look at the machine's console, and whether the node reaches its port"
            ) from None
        self._is_ready = True
        logger.info("%s is ready after %d attempts", self._endpoint, attempts)

    @property
    def met(self) -> str:
        """What `ready` has met last, and for how long."""
        return str(self._met or "it was not dialled yet")

    @property
    def stats(self) -> Stats:
        """What it has done so far."""
        stats = self._done
        for passage in self._passages:
            stats = passage.added_to(stats)
        return Stats(
            len(self._passages), self._accepted, stats.redials, stats.requests, stats.refused, stats.bytes_to_vm,
            stats.bytes_to_shim,
        )  # fmt: skip

    def _accept(self) -> asyncio.BaseProtocol:
        # Before the machine was ready once, it may be booting still.
        if self._loss:
            return self._obituary.accept()
        patience = self._patience if self._is_ready else self._timeout
        passage = _Passage(self._endpoint, self._rewrite, patience, self._patience, self._loss_after, self._lose)
        self._accepted += 1
        task = asyncio.get_running_loop().create_task(passage.run(), name=f"runtime of {self._endpoint.server_name}")
        self._passages[passage] = task
        task.add_done_callback(lambda task: self._ended(passage))
        return passage.splice.client

    def _lose(self, text: str) -> None:
        self._loss = text

    async def _tell_loss(self, payload: bytes, context: Context) -> bytes:
        raise StatusError(Code.FAILED_PRECONDITION, f"the pod VM is lost: {self._loss}")

    def _ended(self, passage: _Passage) -> None:
        del self._passages[passage]
        self._done = passage.added_to(self._done)


class _Passage:
    """A connection of the runtime, and the one to the machine that belongs to it.

    Args:
        endpoint: The machine.
        rewrite: Changes the calls that pod VMs want otherwise.
        first_patience: Seconds that calls wait for the first connection to the machine.
        patience: Seconds that they wait for each further one.
        loss_after: Seconds after which the machine is given up.
        lose: Called then, with what is to be told.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        rewrite: Rewrite,
        first_patience: float,
        patience: float,
        loss_after: float,
        lose: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._first_patience = first_patience
        self._patience = patience
        self._loss_after = loss_after
        self._lose = lose
        self._lost: asyncio.Future[Exception | None] | None = None  # while a connection to the machine stands
        self._redials = 0
        self.splice = Splice(rewrite, HOOKED, server_lost=self._server_lost, lost=LOST, repeated=REPEATED)

    async def run(self) -> None:
        """Keep a connection to the machine until the runtime's ends."""
        logger.info("%s: the runtime has connected", self._endpoint)
        keeping = asyncio.create_task(self._keep_connected(), name=f"connection to {self._endpoint.server_name}")
        keeping.add_done_callback(self._kept)
        try:
            ending = await self.splice.wait()
        finally:
            keeping.cancel()
            self.splice.close()
            await asyncio.wait([keeping])
        side = "the runtime's connection" if ending.side == "client" else "the proxy"
        why = f": {ending.error}" if ending.error is not None else ""
        logger.info("%s: %s has ended after %d calls%s", self._endpoint, side, self.splice.counters.requests, why)

    def added_to(self, stats: Stats) -> Stats:
        """The sums with this one's."""
        counters = self.splice.counters
        return Stats(
            redials=stats.redials + self._redials,
            requests=stats.requests + counters.requests,
            refused=stats.refused + counters.refused,
            bytes_to_vm=stats.bytes_to_vm + counters.bytes_to_server,
            bytes_to_shim=stats.bytes_to_shim + counters.bytes_to_client,
        )

    def _kept(self, keeping: asyncio.Task[None]) -> None:
        error = None if keeping.cancelled() else keeping.exception()
        if error is not None:
            logger.error("%s: dialling failed", self._endpoint, exc_info=error)
        self.splice.close("server", error if isinstance(error, Exception) else None)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pauses = dialing.pauses()
        patience = self._first_patience
        was_connected = False
        giving_up = loop.call_later(patience, self._give_up_waiting, patience)
        losing = loop.call_later(max(patience, self._loss_after), self._give_up, max(patience, self._loss_after))
        try:
            while True:
                answered = self.splice.counters.frames_to_client
                lost = self._lost = loop.create_future()
                try:
                    await dialing.connect(self._endpoint, self.splice.server)
                    giving_up.cancel()
                    losing.cancel()
                    connected = loop.time()
                    self._redials += was_connected
                    was_connected = True
                    cause = await lost
                    if (refusal := dialing.refused(self._endpoint, cause)) is not None:
                        raise refusal
                except OSError as error:
                    logger.debug("%s: %s", self._endpoint, dialing.reason(error))
                except ProxyError as error:
                    logger.error("%s", error)
                    self.splice.close("server", error)
                    return
                else:
                    logger.warning("%s: the connection was lost: %s", self._endpoint, cause or "closed by the machine")
                    giving_up = loop.call_later(self._patience, self._give_up_waiting, self._patience)
                    losing = loop.call_later(self._loss_after, self._give_up, self._loss_after)
                    lasted = loop.time() - connected
                    if self.splice.counters.frames_to_client > answered or lasted > dialing.PAUSE_MAX:
                        pauses = dialing.pauses()
                        continue  # it was a good one: at once
                if self.splice.client.hung_up():
                    self.splice.close()
                    return
                await asyncio.sleep(next(pauses))
        finally:
            giving_up.cancel()
            losing.cancel()

    def _give_up(self, after: float) -> None:
        text = f"{self._endpoint} has not been reached for {after:g} s"
        logger.error("%s; it is given up", text)
        self._lose(text)
        self.splice.close("server", ProxyError(text))

    def _give_up_waiting(self, patience: float) -> None:
        text = f"{self._endpoint} has not been reached for {patience:g} s"
        logger.warning("%s; its runtime's calls wait no longer", text)
        self.splice.refuse(text)

    def _server_lost(self, error: Exception | None) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(error)


class _Met:
    """What attempts have met last, and since when."""

    def __init__(self) -> None:
        self._text = "nothing was met"
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()

    def note(self, text: str) -> None:
        """It is this now."""
        if text != self._text:
            self._text, self._since = text, self._loop.time()

    def __str__(self) -> str:
        return f"{self._text}, for {self._loop.time() - self._since:.1f} s"
