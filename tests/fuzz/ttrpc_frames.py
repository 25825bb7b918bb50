"""Bytes from a peer, at both ends of a connection: nothing raises, nothing longer than the limit is kept."""

from __future__ import annotations

from hypothesis import strategies as st

from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc.connection import ClientConnection, Connection, ServerConnection
from kata_py.ttrpc.envelope import Request, Response
from tests.fuzz.target import Target, mutated

LIMIT = 1 << 17  # bytes: above the reader's standing buffer, so that long bodies are met too

_requests = st.builds(
    lambda *fields: b"".join(envelope.encode_request(Request(*fields))),
    st.text(max_size=8), st.text(max_size=8), st.binary(max_size=40), st.integers(-(1 << 63), (1 << 63) - 1),
)  # fmt: skip
_responses = st.builds(
    lambda *fields: b"".join(envelope.encode_response(Response(*fields))),
    st.binary(max_size=40), st.integers(-(1 << 31), (1 << 31) - 1), st.text(max_size=8),
)  # fmt: skip
_long = st.builds(bytes, st.sampled_from([65_525, 65_526, 65_527, LIMIT, LIMIT + 1]))
_frames = st.builds(
    frames.encode,
    st.integers(0, 4) | st.integers(0, 255),
    st.integers(0, 7) | st.integers(0, (1 << 32) - 1),
    st.integers(0, 7) | st.integers(0, 255),
    mutated(_requests | _responses) | _long,
)


def check(pieces: list[bytes]) -> None:
    client = ClientConnection(LIMIT)
    for flags in (0, frames.REMOTE_OPEN, frames.REMOTE_CLOSED):
        client.request("s", "m", b"", flags=flags)
    for end in (client, ServerConnection(LIMIT)):
        for piece in pieces:
            _feed(end, piece)


def _feed(end: Connection, data: bytes) -> None:
    while data:
        space = end.space()
        count = min(len(space), len(data))
        assert count > 0
        space[:count] = data[:count]
        data = data[count:]
        assert isinstance(end, ClientConnection | ServerConnection)
        end.received(count)
        assert sum(map(len, end.data_to_send())) < 1 << 22  # refusals are few words each
        assert len(end.space()) <= max(LIMIT, 1 << 16)


TARGET = Target(
    "ttrpc_frames", st.lists(mutated(_frames) | _frames, max_size=6), check, lambda data: [data[:7], data[7:]]
)
