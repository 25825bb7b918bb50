"""A connection that is opened when it is needed, again after it broke, and the blocking calls over it.

libvirt's calls block, so they run in a few threads. What a cancelled caller has under way goes on in its thread; hence
what changes a sandbox's machine takes turns, and a turn ends when its last call has ended. So a deletion never
overtakes a call that may yet make something.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import binding
from kata_caa.providers.libvirt.binding import Connect
from kata_caa.providers.libvirt.fault import explain, is_lost

T = TypeVar("T")

Opener = Callable[[str], Connect]

THREADS = 8
OPEN_TIMEOUT = 30.0  # seconds; ssh has its own, longer ones
CALL_TIMEOUT = 120.0  # seconds: to start a machine of many GiB takes some
CANCEL_TIMEOUT = 5.0  # seconds that a cancelled caller waits for its call
TURN_TIMEOUT = 180.0  # seconds, more than one call may take

_log = logging.getLogger(__name__)


class Turn:
    """The right to change what belongs to one sandbox; made by `Connection.turn`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.pending: list[asyncio.Future[object]] = []

    async def call(self, what: str, function: Callable[[Connect], T], timeout: float = CALL_TIMEOUT) -> T:
        """As `Connection.call`; the turn lasts until it has ended."""
        return await self._connection.call(what, function, timeout, self.pending)


class Connection:
    """A host, through one connection at a time.

    Args:
        uri: libvirt's URI of it.
        opener: Opens a connection, blocking.
    """

    def __init__(self, uri: str, opener: Opener = binding.open_host) -> None:
        self._uri = uri
        self._opener = opener
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="libvirt")
        self._opening = asyncio.Lock()
        self._connect: Connect | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def call(
        self,
        what: str,
        function: Callable[[Connect], T],
        timeout: float = CALL_TIMEOUT,
        pending: list[asyncio.Future[object]] | None = None,
    ) -> T:
        """Call a blocking function with the connection, in a thread.

        Args:
            what: What it does, for the error.
            function: Called with the connection.
            timeout: Seconds that it may take.
            pending: Where the call is put, if it is to be waited for elsewhere.

        Raises:
            ProviderError: libvirt refuses, or does not answer in time.
        """
        connect = await self._open()
        call: asyncio.Future[object] = asyncio.ensure_future(self._in_thread(what, function, connect))
        if pending is not None:
            pending.append(call)
        try:
            async with asyncio.timeout(timeout):
                result = await asyncio.shield(call)
        except TimeoutError as error:
            raise ProviderError(
                Fault.TRANSIENT, f"libvirt: {what}: no answer for {timeout:g} s", hint="see the host of LIBVIRT_URI"
            ) from error
        except asyncio.CancelledError:
            await asyncio.wait([call], timeout=CANCEL_TIMEOUT)
            raise
        finally:
            call.add_done_callback(lambda done: done.cancelled() or done.exception())  # told, or of no interest
        return result  # type: ignore[return-value] # what the function gave

    @asynccontextmanager
    async def turn(self, sandbox_id: str) -> AsyncIterator[Turn]:
        """Wait until nothing else is changed of the sandbox's, and keep others out.

        Raises:
            ProviderError: Others took too long.
        """
        lock = self._turns.setdefault(sandbox_id, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                await lock.acquire()
        except TimeoutError as error:
            cause = f"libvirt: what else is under way for the machine of {sandbox_id} took over {TURN_TIMEOUT:g} s"
            raise ProviderError(Fault.TRANSIENT, cause) from error
        turn = Turn(self)
        try:
            yield turn
        finally:
            under_way = [call for call in turn.pending if not call.done()]
            if under_way:
                asyncio.gather(*under_way, return_exceptions=True).add_done_callback(lambda _: lock.release())
            else:
                lock.release()

    async def close(self) -> None:
        """Close the connection. Calls under way fail."""
        connect, self._connect = self._connect, None
        self._threads.shutdown(wait=False, cancel_futures=True)
        if connect:
            await asyncio.to_thread(_close, connect)

    async def _open(self) -> Connect:
        async with self._opening:
            if self._connect and self._connect.isAlive():  # which asks nobody: the keepalive tells
                return self._connect
            if self._connect:
                _log.warning("the connection to %s was lost, and is opened again", self._uri)
                self._connect = None
            opening = _in_daemon(lambda: self._opener(self._uri))
            try:
                async with asyncio.timeout(OPEN_TIMEOUT):
                    self._connect = await asyncio.shield(opening)
            except TimeoutError as error:
                opening.add_done_callback(_close_late)
                cause = f"libvirt: connect to {self._uri}: no answer for {OPEN_TIMEOUT:g} s"
                raise ProviderError(Fault.TRANSIENT, cause, hint="see LIBVIRT_URI") from error
            except asyncio.CancelledError:
                opening.add_done_callback(_close_late)
                raise
            except binding.Refused as error:
                raise explain(error, f"connect to {self._uri}") from error
            return self._connect

    async def _in_thread(self, what: str, function: Callable[[Connect], T], connect: Connect) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, connect)
        except binding.Refused as error:
            if is_lost(error) and self._connect is connect:
                self._connect = None
            raise explain(error, what) from error


def _in_daemon(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function in a thread that no end of the program waits for: ssh may try for many minutes."""
    done: Future[T] = Future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, name="libvirt open", daemon=True).start()
    return asyncio.wrap_future(done)


def _close(connect: Connect) -> None:
    try:
        connect.close()
    except binding.Refused:
        pass  # it was broken


def _close_late(opening: asyncio.Future[Connect]) -> None:
    if not opening.cancelled() and not opening.exception():
        threading.Thread(target=_close, args=[opening.result()], name="libvirt close", daemon=True).start()
