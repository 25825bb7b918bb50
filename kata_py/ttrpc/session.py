"""One connection as a server serves it: a task per call, so that a blocked one stops no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from kata_py.ttrpc.connection import MessageReceived, RequestReceived, ServerConnection, StreamRefused
from kata_py.ttrpc.context import Context, Peer
from kata_py.ttrpc.envelope import Request, Response
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.frames import REMOTE_OPEN
from kata_py.ttrpc.link import Link
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.stream import ServerStream

if TYPE_CHECKING:
    from kata_py.ttrpc.service import Method

logger = logging.getLogger(__name__)


class Call:
    """A call whose handler runs."""

    __slots__ = ("context", "stream", "task", "timer")

    def __init__(self, context: Context, stream: ServerStream | None) -> None:
        self.context = context
        self.stream = stream
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[Response | None]

    def abandon(self, error: Exception) -> None:
        """Nobody waits for the answer any more; a handler that waits for messages is told why none comes."""
        if self.stream is not None:
            self.stream.inbox.end(error)
        self.context.abandon()


class Session:
    """One connection of a server.

    Args:
        find: Gives the method of a service; raises StatusError if there is none.
        ended: Called with the session when its connection is gone and its last handler has ended.
        admit: Whether a peer may call at all.
        cancel_abandoned: Whether handlers are cancelled when their call is abandoned.
    """

    def __init__(
        self,
        find: Callable[[str, str], Method],
        ended: Callable[[Session], None],
        admit: Callable[[Peer | None], bool] | None = None,
        *,
        cancel_abandoned: bool = False,
    ) -> None:
        self._find = find
        self._ended = ended
        self._admit = admit
        self._cancel_abandoned = cancel_abandoned
        self._loop = asyncio.get_running_loop()
        self._connection = ServerConnection()
        self.link = Link(self._connection, self._received, self._lost, self._opened, self._writable)
        self._calls: dict[int, Call] = {}
        self._peer: Peer | None = None
        self._closing = False
        self._is_lost = False

    def close(self) -> None:
        """Close once no call is running; until then new ones are still taken."""
        self._closing = True
        if not self._calls:
            self.link.close()

    def abort(self) -> None:
        """Close at once and cancel what is running."""
        self.link.abort()
        for call in self._calls.values():
            call.task.cancel()

    def running(self) -> list[str]:
        """The calls whose handlers run, as `service/method`."""
        return [str(call.context) for call in self._calls.values()]

    def _opened(self) -> None:
        self._peer = self.link.peer()
        if self._admit is not None and not self._admit(self._peer):
            logger.warning("refused a connection of %s", self._peer)
            self.link.abort()

    def _received(self, count: int) -> None:
        for event in self._connection.received(count):
            match event:
                case RequestReceived(stream_id, request, flags):
                    self._begin(stream_id, request, flags)
                case MessageReceived(stream_id, message, closed):
                    self._message(stream_id, message, closed)
                case StreamRefused(stream_id, code, text):
                    if (call := self._calls.get(stream_id)) is not None:
                        call.abandon(StatusError(code, text))

    def _begin(self, stream_id: int, request: Request, flags: int) -> None:
        service, name, payload, timeout, metadata = request
        try:
            method = self._method(service, name, flags)
            if timeout < 0:
                raise StatusError(Code.DEADLINE_EXCEEDED, "the deadline had passed when the call came")
        except StatusError as error:
            self._answer(stream_id, _status(error))
            return
        deadline = self._loop.time() + timeout / 1e9 if timeout else None
        context = Context(service, name, metadata, deadline, self._peer, cancellable=self._cancel_abandoned)
        stream = None
        if method.streaming is not None:
            stream = ServerStream(stream_id, self._connection, self.link)
            if payload or not flags & REMOTE_OPEN:
                stream.inbox.put(payload)
            if not flags & REMOTE_OPEN:
                stream.inbox.end()
        call = self._calls[stream_id] = Call(context, stream)
        call.task = context.task = self._loop.create_task(_handle(method, payload, call), name=name)
        call.task.add_done_callback(lambda task: self._finish(stream_id, call))
        if deadline is not None:
            call.timer = self._loop.call_at(deadline, self._expire, stream_id, call)

    def _method(self, service: str, name: str, flags: int) -> Method:
        try:
            method = self._find(service, name)
        except StatusError:
            raise
        except Exception:
            logger.exception("%s could not be made", service)
            raise StatusError(Code.UNKNOWN, f"{service} could not be made; the server's log says why") from None
        if method.unary is None and not flags:
            raise StatusError(Code.UNIMPLEMENTED, f"{service}/{name} streams and cannot be called as unary")
        if method.streaming is None and flags & REMOTE_OPEN:
            raise StatusError(Code.UNIMPLEMENTED, f"{service}/{name} does not take a stream")
        return method

    def _message(self, stream_id: int, message: bytes | None, closed: bool) -> None:
        call = self._calls.get(stream_id)
        if call is not None and call.stream is not None:
            if message is not None:
                call.stream.inbox.put(message)
            if closed:
                call.stream.inbox.end()

    def _finish(self, stream_id: int, call: Call) -> None:
        del self._calls[stream_id]
        if call.timer is not None:
            call.timer.cancel()
        if call.stream is not None:
            call.stream.inbox.discard()
        if call.task.cancelled():
            self._answer(stream_id, Response(b"", Code.CANCELED, f"{call.context} was cancelled"))
        else:
            self._answer(stream_id, call.task.result())
        if not self._calls:
            if self._is_lost:
                self._ended(self)
            elif self._closing:
                self.link.close()

    def _answer(self, stream_id: int, response: Response | None) -> None:
        if response is None:
            self._connection.finish(stream_id)
        else:
            self._connection.respond(stream_id, response)
        self.link.flush_soon()

    def _expire(self, stream_id: int, call: Call) -> None:
        error = StatusError(Code.DEADLINE_EXCEEDED, f"{call.context} was not done when its deadline passed")
        self._answer(stream_id, _status(error))
        call.abandon(error)

    def _writable(self, writable: bool) -> None:
        # Whoever does not read the answers may not ask for more.
        if writable:
            self.link.release()
        else:
            self.link.hold()

    def _lost(self, error: Exception | None) -> None:
        self._is_lost = True
        for call in self._calls.values():
            call.abandon(ConnectionClosed("the client is gone"))
        if not self._calls:
            self._ended(self)


async def _handle(method: Method, payload: bytes, call: Call) -> Response | None:
    """Run a handler: the one place where its exceptions become statuses."""
    try:
        if method.unary is not None:
            answer: bytes | None = await method.unary(payload, call.context)
        else:
            assert method.streaming is not None
            assert call.stream is not None
            answer = await method.streaming(call.stream, call.context)
            if answer is None:
                return None
        if not isinstance(answer, bytes):
            raise TypeError(f"the handler returned {type(answer).__name__} instead of bytes")
        return Response(answer)
    except StatusError as error:
        return _status(error)
    except Exception:
        logger.exception("%s failed", call.context)
        return Response(b"", Code.UNKNOWN, f"{call.context} failed; the server's log says why")


def _status(error: StatusError) -> Response:
    return Response(b"", error.code, error.message, error.details)
