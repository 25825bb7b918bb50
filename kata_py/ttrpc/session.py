"""One connection as a server serves it: a task per request, so that a blocked call stops no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from kata_py.ttrpc.connection import MessageReceived, RequestReceived, ServerConnection
from kata_py.ttrpc.context import Context, Peer
from kata_py.ttrpc.envelope import Response
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.link import Link
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.stream import ServerStream

if TYPE_CHECKING:
    from kata_py.ttrpc.service import Method

logger = logging.getLogger(__name__)


class Session:
    """One connection of a server.

    Args:
        find: Gives the method of a service.
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
        self._connection = ServerConnection()
        self.link = Link(self._connection, self._received, self._lost, self._writable)
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, tuple[asyncio.Task[None], Context]] = {}
        self._streams: dict[int, ServerStream] = {}
        self._peer: Peer | None = None
        self._peer_known = False
        self._closing = False
        self._is_lost = False

    def close(self) -> None:
        """Close once no call is running; new ones are still taken until then."""
        self._closing = True
        if not self._calls:
            self.link.close()

    def abort(self) -> None:
        """Close at once and cancel what is running."""
        self.link.abort()
        for task, _ in self._calls.values():
            task.cancel()

    def _received(self, count: int) -> None:
        for event in self._connection.received(count):
            match event:
                case RequestReceived():
                    self._call(event)
                case MessageReceived(stream_id, message, closed):
                    stream = self._streams.get(stream_id)
                    if stream is not None:
                        if message is not None:
                            stream.inbox.put(message)
                        if closed:
                            stream.inbox.end()

    def _call(self, event: RequestReceived) -> None:
        stream_id, request, flags = event
        try:
            method = self._find(request.service, request.method)
        except StatusError as error:
            self._answer(stream_id, Response(b"", error.code, error.message))
            return
        context = Context(request.service, request.method, request.metadata, cancellable=self._cancel_abandoned)
        task = self._loop.create_task(self._run(stream_id, method, request.payload, context), name=request.method)
        self._calls[stream_id] = task, context

    async def _run(self, stream_id: int, method: Method, payload: bytes, context: Context) -> None:
        try:
            assert method.unary is not None
            response = Response(await method.unary(payload, context))
        except StatusError as error:
            response = Response(b"", error.code, error.message, error.details)
        except Exception:
            logger.exception("%s/%s failed", context.service, context.method)
            response = Response(
                b"", Code.UNKNOWN, f"{context.service}/{context.method} failed; the server's log says why"
            )
        finally:
            del self._calls[stream_id]
        self._answer(stream_id, response)
        if self._closing and not self._calls:
            self.link.close()

    def _answer(self, stream_id: int, response: Response) -> None:
        self._connection.respond(stream_id, response)
        self.link.flush_soon()

    def _writable(self, writable: bool) -> None:
        # Whoever does not read answers may not ask more.
        if writable:
            self.link.release()
        else:
            self.link.hold()

    def _lost(self, error: Exception | None) -> None:
        for stream in self._streams.values():
            stream.inbox.end(ConnectionClosed("the client is gone"))
        for _, context in self._calls.values():
            context.abandon()
        self._ended(self)
