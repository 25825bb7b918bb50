"""What a server calls: methods by name, each made to take and give bytes.

A generated base class lists its typed methods as plain tuples (so the code beside the messages needs nothing
of this package at run time); `bind` wraps each for the server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.stream import ServerStream


class Message(Protocol):
    """The part of a protobuf message that is needed to send and receive it."""

    def SerializeToString(self) -> bytes:
        """The message as bytes."""

    @classmethod
    def FromString(cls, s: bytes) -> Message:
        """The bytes as a message."""


Handler = Callable[[Any, "Context"], Any]
"""A typed method of a service. Its real type follows from the kind of method; the generated code has it right."""

Entry = tuple[Handler, type[Message], bool, bool]
"""A method in a generated base class: handler, request type, whether the client streams, whether the server does."""

UnaryHandler = Callable[[bytes, "Context"], Awaitable[bytes]]
"""Takes the serialised request, gives the serialised response."""

StreamHandler = Callable[["ServerStream", "Context"], Awaitable[bytes | None]]
"""Reads and writes messages; gives the serialised response, or None if its answer was the stream."""


class Method(NamedTuple):
    """A method as a server calls it: one of the two is set."""

    unary: UnaryHandler | None = None
    streaming: StreamHandler | None = None


class Service(Protocol):
    """An object whose methods are served; generated base classes are of this shape."""

    @property
    def ttrpc_name(self) -> str:
        """The service's full name, such as `containerd.task.v2.Task`."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """The methods by their bare names."""


def bind(entry: Entry) -> Method:
    """Wrap a typed method so that it takes and gives bytes."""
    handler, request_type, client_streams, server_streams = entry
    decode = request_type.FromString

    async def unary(payload: bytes, context: Context) -> bytes:
        response: Message = await handler(_decoded(decode, payload), context)
        return response.SerializeToString()

    async def to_one(stream: ServerStream, context: Context) -> bytes:
        response: Message = await handler(_requests(stream, decode), context)
        return response.SerializeToString()

    async def to_stream(stream: ServerStream, context: Context) -> None:
        requests = _requests(stream, decode)
        responses: AsyncGenerator[Message, None] = handler(
            requests if client_streams else _decoded(decode, await stream.receive() or b""), context
        )
        async with aclosing(responses):
            async for message in responses:
                await stream.send(message.SerializeToString())

    if server_streams:
        return Method(streaming=to_stream)
    return Method(streaming=to_one) if client_streams else Method(unary=unary)


async def _requests(stream: ServerStream, decode: Callable[[bytes], Message]) -> AsyncIterator[Message]:
    async for message in stream:
        yield _decoded(decode, message)


def _decoded(decode: Callable[[bytes], Message], payload: bytes) -> Message:
    try:
        return decode(payload)
    except Exception as error:  # protobuf's own class is not imported here, for the sake of those who serve bytes
        raise StatusError(Code.INTERNAL, f"cannot decode the payload: {error}") from error
