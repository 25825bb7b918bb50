"""Bytes in pieces: how the core's tests feed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


def feed(space: Callable[[], memoryview], filled: Callable[[int], list[T]], pieces: Iterable[bytes]) -> list[T]:
    """Put the pieces into the space, as far as it goes at a time; returns what came out."""
    out: list[T] = []
    for piece in pieces:
        rest = piece
        while rest:
            room = space()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            out += filled(count)
            rest = rest[count:]
    return out


def splits(stream: bytes) -> st.SearchStrategy[list[bytes]]:
    """Any way to cut the stream; often byte by byte, where it is short."""
    cuts = st.lists(st.integers(0, len(stream)), max_size=8).map(sorted)
    chosen = cuts.map(lambda cuts: [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)])
    if len(stream) > 2_000:
        return chosen
    return chosen | st.just([bytes([byte]) for byte in stream])
