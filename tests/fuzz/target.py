"""What is fuzzed: a strategy for its input, and what must hold whatever the input is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
PATIENCE = 10.0  # seconds of the processor that one input may take
HANG = 60.0  # seconds until one that waits is taken to wait for ever, on a machine that is busy otherwise

T = TypeVar("T")


@dataclass(frozen=True)
class Target(Generic[T]):
    """A reader of what others wrote.

    Attributes:
        name: Its own, and its corpus's.
        inputs: What it is given.
        check: Gives it one; raises if it does what it may not.
        of_bytes: Makes an input of a file of the corpus.
    """

    name: str
    inputs: st.SearchStrategy[T]
    check: Callable[[T], None]
    of_bytes: Callable[[bytes], T]

    @property
    def corpus(self) -> list[Path]:
        """Inputs that once did harm, or lie at a border."""
        return sorted((CORPUS / self.name).iterdir())


def run(work: Coroutine[object, object, None]) -> None:
    """Run a check that is asynchronous; out of time is a fault too."""

    async def bounded() -> None:
        async with asyncio.timeout(HANG):
            await work

    asyncio.run(bounded())


def mutated(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes, of which most were valid until a piece was cut out, put in, or both."""

    def change(draw: st.DrawFn) -> bytes:
        data = draw(valid)
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(data)))
            stop = draw(st.integers(start, min(len(data), start + 16)))
            data = data[:start] + draw(st.binary(max_size=8)) + data[stop:]
        return data

    return st.composite(change)() | st.binary(max_size=200)


class _Faults(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.records.append(record)


@contextmanager
def nothing_unexpected(logger: str) -> Iterator[None]:
    """Raise what was caught at an edge, and logged as what nobody had expected."""
    faults, log = _Faults(), logging.getLogger(logger)
    log.addHandler(faults)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = propagate
        log.removeHandler(faults)
    for record in faults.records:
        assert record.exc_info is not None
        raise AssertionError(record.getMessage()) from record.exc_info[1]
