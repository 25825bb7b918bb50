"""Calls for a process's standard streams."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from kata_agent.container.process import Process
from kata_agent.container.stream import OutputStream
from kata_agent.errors import AgentError, InvalidArgument, NotFound
from kata_agent.features import COUNTED_STREAMS
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context

_READ_MAX = 1 << 20  # bytes; a frame holds four times as much


class StreamCalls(Calls):
    """Read, write, close, resize."""

    async def WriteStdin(
        self, request: agent_pb2.WriteStreamRequest, context: Context
    ) -> agent_pb2.WriteStreamResponse:
        """Write all of it, waiting for the process to read; nothing to write is the end of stdin."""
        try:
            process = self.existing_container(request.container_id).processes.find(request.exec_id)
        except NotFound as error:
            raise AgentError(str(error)) from error  # hosts expect an internal error here
        if request.data:
            await process.stdio.stdin.write(request.data, _offset(context))
        else:
            process.stdio.stdin.close()
        return agent_pb2.WriteStreamResponse(len=len(request.data))

    async def CloseStdin(self, request: agent_pb2.CloseStdinRequest, context: Context) -> Empty:
        """The end of stdin, after what was written."""
        self._process(request).stdio.stdin.close()
        return Empty()

    async def ReadStdout(self, request: agent_pb2.ReadStreamRequest, context: Context) -> agent_pb2.ReadStreamResponse:
        """The next bytes of stdout; none at its end."""
        return await _read(self._process(request).stdio.stdout, request.len, context)

    async def ReadStderr(self, request: agent_pb2.ReadStreamRequest, context: Context) -> agent_pb2.ReadStreamResponse:
        """The next bytes of stderr; none at its end, and with a terminal."""
        return await _read(self._process(request).stdio.stderr, request.len, context)

    async def TtyWinResize(self, request: agent_pb2.TtyWinResizeRequest, context: Context) -> Empty:
        """Set the terminal's size."""
        self._process(request).stdio.resize(request.row, request.column)
        return Empty()

    def _process(
        self, request: agent_pb2.ReadStreamRequest | agent_pb2.CloseStdinRequest | agent_pb2.TtyWinResizeRequest
    ) -> Process:
        return self.process(request.container_id, request.exec_id)


async def _read(stream: OutputStream | None, limit: int, context: Context) -> agent_pb2.ReadStreamResponse:
    if not limit:
        raise InvalidArgument("a read of no bytes: its answer would be the end of the stream")
    context.cancel_if_abandoned()  # bytes are taken from the pipe only when they can be answered
    data = await stream.read(min(limit, _READ_MAX), _offset(context)) if stream is not None else b""
    return agent_pb2.ReadStreamResponse(data=data)


def _offset(context: Context) -> int | None:
    """How many bytes of the stream the caller has seen before this call, if it counts; an extension of ours.

    A caller whose connection may be lost and made anew counts, and nothing is lost or written twice.
    """
    values = context.metadata.get(COUNTED_STREAMS)
    if not values:
        return None
    if not values[0].isdecimal():
        raise InvalidArgument(f"{COUNTED_STREAMS}: {values[0]!r:.40} is no number of bytes")
    return int(values[0])
