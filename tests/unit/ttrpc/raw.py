"""A peer that speaks in frames: for saying what no client or server of ours would say."""

from __future__ import annotations

import asyncio

from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc.envelope import Request, Response
from kata_py.ttrpc.frames import Frame, FrameReader
from kata_py.ttrpc.transport import memory

PATIENCE = 10.0  # seconds until a test gives up


class RawPeer(asyncio.BufferedProtocol):
    """One end of an in-memory connection; the other is the protocol under test."""

    def __init__(self, other: asyncio.BufferedProtocol) -> None:
        self._reader = FrameReader(limit=1 << 30)
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        memory.join(other, self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, memory.MemoryTransport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        for frame in self._reader.filled(nbytes):
            self._frames.put_nowait(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._frames.put_nowait(None)

    def send(self, kind: int, stream_id: int, flags: int = 0, body: bytes = b"") -> None:
        self.transport.write(frames.encode(kind, stream_id, flags, body))

    def request(self, stream_id: int, service: str, method: str, payload: bytes = b"", flags: int = 0, **rest) -> None:
        request = Request(service, method, payload, **rest)
        self.send(frames.REQUEST, stream_id, flags, b"".join(envelope.encode_request(request)))

    def respond(self, stream_id: int, response: Response) -> None:
        self.send(frames.RESPONSE, stream_id, 0, b"".join(envelope.encode_response(response)))

    async def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._frames.get()

    async def response(self) -> tuple[int, Response]:
        """The next frame, which must be a response."""
        frame = await self.frame()
        assert frame is not None, "the connection ended"
        assert frame.type == frames.RESPONSE, str(frame)
        assert frame.body is not None
        return frame.stream_id, envelope.decode_response(frame.body)
