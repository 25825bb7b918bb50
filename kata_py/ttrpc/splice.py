"""Two connections joined: what a client asks goes on to a server, what the server answers comes back.

Frames pass whole and undecoded. Requests of chosen methods are decoded, shown to a hook, and go on as it wants
them. The owner brings the transports: a `Splice` has a protocol for either side and knows no addresses.

Stream ids are given anew: a server takes them in rising order only, and a request that waits for its hook must not
hold up the ones behind it. Neither side makes us keep more than a few messages: who does not read is not read for.
A side that ends ends the other, after it was sent what had come: ttrpc has no half-open state.
Source: containerd/ttrpc `PROTOCOL.md`, `server.go`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple, cast

from kata_py.ttrpc import envelope
from kata_py.ttrpc.connection import Connection
from kata_py.ttrpc.envelope import DecodeError, Request, Response
from kata_py.ttrpc.errors import MessageTooLong, StatusError
from kata_py.ttrpc.frames import (
    DATA,
    MESSAGE_LENGTH_MAX,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    Frame,
)
from kata_py.ttrpc.link import Link
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

Hook = Callable[[str, str, bytes], Awaitable[bytes | None]]
"""Takes service, method and the serialised request; gives the request that goes on, or None for the same.

What it raises is answered to the client, and nothing goes on: a `StatusError` as it is, else a bland `UNKNOWN`.
"""

_WAITING_MAX: Final = 16 << 20  # bytes that wait for hooks; beyond it the client is not read
_LINGER: Final = 5.0  # seconds a side has to take what is left for it


class Ending(NamedTuple):
    """How a splice ended.

    Attributes:
        side: Whose connection ended first.
        error: Why; None when it was closed in order.
    """

    side: Literal["client", "server"]
    error: Exception | None


@dataclass(slots=True)
class Counters:
    """What has passed.

    Attributes:
        requests: Calls that went on to the server.
        hooked: Requests that were shown to the hook.
        refused: Calls answered here, which the server never saw or whose answer it did not give.
        frames_to_server: Frames.
        frames_to_client: Frames.
        bytes_to_server: Bytes of their bodies.
        bytes_to_client: Bytes of their bodies.
    """

    requests: int = 0
    hooked: int = 0
    refused: int = 0
    frames_to_server: int = 0
    frames_to_client: int = 0
    bytes_to_server: int = 0
    bytes_to_client: int = 0


class Splice:
    """A client's connection and a server's, joined.

    The client is not read until the server's connection stands, so its requests wait in its own socket.

    Args:
        hook: Sees the requests of the methods in `hooked`. Runs as a task for each, so it may take its time: no
            longer than the client waits, though. Cancelled when either side is gone.
        hooked: Pairs of service and method.
        client_opened: Called when the client's connection stands: the time to connect the `server()`, unless it is
            there already.
        server_lost: Called when the server's connection is gone, with the error, if it did not end in order: the
            owner then connects another `server()`, or closes. Without it the client's connection is closed, too.
            Either way the calls in flight are answered `UNAVAILABLE`, but for those in `repeated`.
        lost: In words, for who made those calls.
        repeated: Pairs of service and method, of unary calls that do no harm if they are made twice: another server
            is asked those that its predecessor has not answered.
        limit: Bytes a frame's body may have.

    Attributes:
        client: The protocol for the transport of who calls.
        counters: What has passed.
    """

    def __init__(
        self,
        hook: Hook | None = None,
        hooked: Iterable[tuple[str, str]] = (),
        *,
        client_opened: Callable[[], None] | None = None,
        server_lost: Callable[[Exception | None], None] | None = None,
        lost: str = "the server's connection ended before it answered",
        repeated: Iterable[tuple[str, str]] = (),
        limit: int = MESSAGE_LENGTH_MAX,
    ) -> None:
        self._hook = hook
        self._hooked = frozenset(hooked) if hook is not None else frozenset()
        self._tell_client_opened = client_opened
        self._tell_server_lost = server_lost
        self._lost = lost
        self._repeated = frozenset(repeated) if server_lost is not None else frozenset()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._core = _Core(limit)
        self.client = Link(self._core, self._from_client, self._client_lost, self._client_opened, self._client_writable)
        self.counters = Counters()
        self._server: _Server | None = None  # that stands
        self._last_id = 0  # the client's
        self._held = False  # the client, because no server stands
        self._early: list[Frame] = []  # what came from it nevertheless, with bytes that were read already
        self._repeatable: dict[int, bytes | bytearray] = {}  # requests in flight, by the client's stream id
        self._absent = ""  # what it is answered while no server stands; empty lets it wait
        self._client_paused = False
        self._waiting: dict[int, _Waiting] = {}  # by the client's stream id
        self._waiting_bytes = 0
        self._full = False  # more waits for hooks than may
        self._ending: asyncio.Future[Ending] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut_offs: dict[Link, asyncio.TimerHandle] = {}

    @property
    def in_flight(self) -> int:
        """Calls that are not answered yet."""
        return len(self._waiting) + len(self._server.clients if self._server is not None else self._repeatable)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._ending.done()

    def server(self) -> Link:
        """The protocol for the transport of who answers; one is in use at a time."""
        server = _Server(self._limit)
        server.link = Link(
            server.core,
            partial(self._from_server, server),
            partial(self._server_lost, server),
            partial(self._server_opened, server),
            partial(self._server_writable, server),
        )
        return server.link

    async def wait(self) -> Ending:
        """Wait until it is over, and its hooks have ended."""
        ending = await asyncio.shield(self._ending)
        if self._tasks:
            await asyncio.wait(self._tasks)
        return ending

    def refuse(self, message: str) -> None:
        """Let the client wait no longer: until a server stands, its calls are answered `UNAVAILABLE`.

        Args:
            message: Why, in words.
        """
        if self._server is not None or self._ending.done():
            return
        self._absent = message
        for stream_id in sorted(self._repeatable):
            self._refuse(stream_id, Code.UNAVAILABLE, message)
        early, self._early = self._early, []
        for frame in early:
            self._frame_refused(frame)
        if self._held:
            self._held = False
            self.client.release()

    def close(self, side: Literal["client", "server"] = "client", error: Exception | None = None) -> None:
        """End it: send what is queued, then close both sides. A side that does not take it in time is cut off.

        Args:
            side: Whose end it is, for `wait`.
            error: Why, for `wait`.
        """
        if self._ending.done():
            return
        self._ending.set_result(Ending(side, error))
        for waiting in self._waiting.values():
            waiting.task.cancel()
        self._waiting.clear()
        for link in (self.client, self._server.link if self._server is not None else None):
            if link is not None and not link.closed:
                self._cut_offs[link] = self._loop.call_later(_LINGER, link.abort)
                link.close()

    def abort(self) -> None:
        """End it at once; what is queued is lost."""
        self.close()
        self.client.abort()
        if self._server is not None:
            self._server.link.abort()

    # The client's side.

    def _client_opened(self) -> None:
        if self._server is None:
            self._held = True
            self.client.hold()
        if self._tell_client_opened is not None:
            self._tell_client_opened()

    def _client_writable(self, writable: bool) -> None:
        # Who does not read the answers may not ask for more either: some answers are made here.
        self._client_paused = not writable
        for link in (self.client, self._server.link if self._server is not None else None):
            if link is not None:
                (link.release if writable else link.hold)()

    def _client_lost(self, error: Exception | None) -> None:
        self._settled(self.client)
        self.close("client", error)

    def _from_client(self, count: int) -> None:
        for frame in self._core.received(count):
            if self._ending.done():
                return
            if self._server is None and self._absent:
                self._frame_refused(frame)
            elif self._server is None:
                self._early.append(frame)
            else:
                self._frame(frame)
        if self._server is not None and self._server.core.queued:
            self._server.link.flush_soon()

    def _frame(self, frame: Frame) -> None:
        if frame.type == REQUEST:
            self._request(frame)
        elif frame.type == DATA:
            self._data(frame)
        # Others are ignored, as servers do.

    def _frame_refused(self, frame: Frame) -> None:
        # Data that follows a refused request is late, and no fault.
        if frame.type == REQUEST and frame.stream_id > self._last_id:
            self._last_id = frame.stream_id
            self._refuse(frame.stream_id, Code.UNAVAILABLE, self._absent)

    def _request(self, frame: Frame) -> None:
        stream_id, body = frame.stream_id, frame.body
        if body is None:
            self._refuse_long(frame)
        elif stream_id % 2 == 0:
            self._refuse(stream_id, Code.INVALID_ARGUMENT, "a client's stream id must be odd")
        elif stream_id <= self._last_id:
            self._refuse(stream_id, Code.INVALID_ARGUMENT, "a stream id must be above the ones before it")
        else:
            self._last_id = stream_id
            target = self._target(body)
            if target in self._hooked and (request := _decoded(body)) is not None:
                self._wait_for_hook(stream_id, frame.flags, request, len(body))
                return
            if target in self._repeated and not frame.flags:
                self._repeatable[stream_id] = body
            self._forward_request(stream_id, frame.flags, body)

    def _target(self, body: bytes | bytearray) -> tuple[str, str] | None:
        """Service and method, if they matter."""
        if not self._hooked and not self._repeated:
            return None
        try:
            return envelope.decode_target(body)
        except DecodeError:
            return None  # the server will say so

    def _forward_request(self, stream_id: int, flags: int, body: bytes | bytearray) -> None:
        server = self._server
        assert server is not None  # without one nothing is taken from the client, and no hook runs
        ours = server.next_id
        server.next_id += 2
        server.ids[stream_id] = ours
        server.clients[ours] = stream_id
        if flags & REMOTE_OPEN:
            server.uploads.add(stream_id)
        self.counters.requests += 1
        self._to_server(server, Frame(ours, REQUEST, flags, body, len(body)))

    def _data(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        server = self._server
        if frame.body is None:
            self._refuse_long(frame)
        elif (waiting := self._waiting.get(stream_id)) is not None:
            waiting.frames.append(frame)
            self._weigh(waiting, frame.length)
        elif server is None or stream_id not in server.uploads:
            self._refuse(stream_id, Code.INVALID_ARGUMENT, f"stream {stream_id} is not open for data")
        else:
            if frame.flags & REMOTE_CLOSED:
                server.uploads.discard(stream_id)
            self._to_server(server, frame._replace(stream_id=server.ids[stream_id]))

    def _to_server(self, server: _Server, frame: Frame) -> None:
        self.counters.frames_to_server += 1
        self.counters.bytes_to_server += frame.length
        server.core.forward(frame)

    def _refuse_long(self, frame: Frame) -> None:
        error = MessageTooLong(frame.length, self._limit)
        self._refuse(frame.stream_id, error.code, error.message)

    def _refuse(self, stream_id: int, code: Code, message: str, details: tuple[bytes, ...] = ()) -> None:
        """Answer a call here, and end its stream at the server, if it has one there."""
        if (waiting := self._waiting.pop(stream_id, None)) is not None:
            waiting.task.cancel()
            self._weigh(waiting, -waiting.weight)
        self._repeatable.pop(stream_id, None)
        server = self._server
        if server is not None and (ours := server.ids.pop(stream_id, None)) is not None:
            del server.clients[ours]
            if stream_id in server.uploads:
                server.uploads.discard(stream_id)
                self._to_server(server, Frame(ours, DATA, REMOTE_CLOSED | NO_DATA, b"", 0))
                server.link.flush_soon()
        self.counters.refused += 1
        self._core.answer(stream_id, Response(b"", code, message, details))
        self.client.flush_soon()

    # Requests that wait for the hook.

    def _wait_for_hook(self, stream_id: int, flags: int, request: Request, length: int) -> None:
        self.counters.hooked += 1
        waiting = _Waiting()
        waiting.task = self._loop.create_task(self._show(stream_id, flags, request, waiting), name=request.method)
        self._tasks.add(waiting.task)
        waiting.task.add_done_callback(self._tasks.discard)
        self._waiting[stream_id] = waiting
        self._weigh(waiting, length)

    def _weigh(self, waiting: _Waiting, length: int) -> None:
        waiting.weight += length
        self._waiting_bytes += length
        if (self._waiting_bytes > _WAITING_MAX) != self._full:
            self._full = not self._full
            (self.client.hold if self._full else self.client.release)()

    async def _show(self, stream_id: int, flags: int, request: Request, waiting: _Waiting) -> None:
        service, method, payload, timeout, metadata = request
        assert self._hook is not None
        began = self._loop.time()
        try:
            async with asyncio.timeout(timeout / 1e9 if timeout else None) as bound:
                changed = await self._hook(service, method, payload)
            if timeout:
                timeout = max(1, timeout - round((self._loop.time() - began) * 1e9))
            pieces = envelope.encode_request(
                Request(service, method, payload if changed is None else changed, timeout, metadata)
            )
            body = b"".join(pieces)
            if len(body) > self._limit:
                raise MessageTooLong(len(body), self._limit)
        except StatusError as error:
            answer = (error.code, error.message, error.details)
        except TimeoutError as error:
            if not bound.expired():
                answer = self._failed(service, method, error)
            else:
                answer = (Code.DEADLINE_EXCEEDED, f"{service}/{method} did not go on before its deadline passed", ())
        except Exception as error:
            answer = self._failed(service, method, error)
        else:
            self._resume(stream_id, flags, body, waiting)
            return
        if self._waiting.get(stream_id) is waiting:
            del self._waiting[stream_id]
            self._weigh(waiting, -waiting.weight)
            self._refuse(stream_id, *answer)

    def _failed(self, service: str, method: str, error: Exception) -> tuple[Code, str, tuple[bytes, ...]]:
        logger.error("the hook of %s/%s failed", service, method, exc_info=error)
        return Code.UNKNOWN, f"{service}/{method} could not be passed on; the proxy's log says why", ()

    def _resume(self, stream_id: int, flags: int, body: bytes, waiting: _Waiting) -> None:
        if self._waiting.get(stream_id) is not waiting:
            return
        del self._waiting[stream_id]
        self._weigh(waiting, -waiting.weight)
        self._forward_request(stream_id, flags, body)
        for frame in waiting.frames:
            self._data(frame)
        if self._server is not None:
            self._server.link.flush_soon()

    # The server's side.

    def _server_opened(self, server: _Server) -> None:
        if self._ending.done() or self._server is not None:
            server.link.abort()
            return
        self._server = server
        self._absent = ""
        if self._client_paused:
            server.link.hold()
        for stream_id, body in sorted(self._repeatable.items()):
            self._forward_request(stream_id, 0, body)
        early, self._early = self._early, []
        for frame in early:
            self._frame(frame)
        if self._held:
            self._held = False
            self.client.release()

    def _server_writable(self, server: _Server, writable: bool) -> None:
        if server is self._server and server.paused is writable:
            server.paused = not writable
            (self.client.release if writable else self.client.hold)()

    def _server_lost(self, server: _Server, error: Exception | None) -> None:
        self._settled(server.link)
        if server is not self._server:
            return
        if self._ending.done():
            self._server = None
            return
        calls = sorted({*server.ids, *self._waiting} - self._repeatable.keys())
        server.uploads.clear()  # nobody is there to be told
        for stream_id in calls:
            self._refuse(stream_id, Code.UNAVAILABLE, self._lost)
        self._server = None
        if self._tell_server_lost is None:
            self.close("server", error)
            return
        self._held = True
        self.client.hold()
        if server.paused:
            self.client.release()
        self._tell_server_lost(error)

    def _from_server(self, server: _Server, count: int) -> None:
        core, counters = self._core, self.counters
        for frame in server.core.received(count):
            stream_id = server.clients.get(frame.stream_id)
            if stream_id is None or frame.type not in (RESPONSE, DATA):
                continue  # an answer to what was refused here, mostly
            if frame.body is None:
                self._refuse_long(frame._replace(stream_id=stream_id))
                continue
            if frame.type == RESPONSE or frame.flags & REMOTE_CLOSED:
                del server.clients[frame.stream_id], server.ids[stream_id]
                self._repeatable.pop(stream_id, None)
                server.uploads.discard(stream_id)
            counters.frames_to_client += 1
            counters.bytes_to_client += frame.length
            core.forward(frame._replace(stream_id=stream_id))
        if core.queued:
            self.client.flush_soon()

    def _settled(self, link: Link) -> None:
        if (timer := self._cut_offs.pop(link, None)) is not None:
            timer.cancel()


def _decoded(body: bytes | bytearray) -> Request | None:
    try:
        return envelope.decode_request(body)
    except DecodeError:
        return None  # the server will say so


class _Core(Connection):
    """An end that takes and gives frames as they are."""

    def received(self, count: int) -> list[Frame]:
        return self._frames(count)

    def forward(self, frame: Frame) -> None:
        body = cast(bytes, frame.body)  # a bytearray, if it is long: nobody changes it
        self._queue(frame.type, frame.stream_id, frame.flags, (b"", body, b""), frame.length)

    def answer(self, stream_id: int, response: Response) -> None:
        pieces = envelope.encode_response(response)
        self._queue(RESPONSE, stream_id, 0, pieces, sum(map(len, pieces)))


class _Server:
    """A server's connection and the streams on it.

    Attributes:
        ids: Streams in flight: the client's id, and ours.
        clients: The same the other way.
        uploads: The client's ids of those that it may still send data on.
        paused: Whether the server takes no more for now.
    """

    link: Link

    def __init__(self, limit: int) -> None:
        self.core = _Core(limit)
        self.next_id = 1
        self.ids: dict[int, int] = {}
        self.clients: dict[int, int] = {}
        self.uploads: set[int] = set()
        self.paused = False


class _Waiting:
    """A request that its hook has, and what the client sent after it on the same stream.

    Attributes:
        weight: Bytes of them all.
    """

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.weight = 0
