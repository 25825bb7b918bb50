"""Lines of text from a program or a guest that we do not trust: bounded, printable, read as they come."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_MAX = 4096  # bytes; a longer line is told in pieces
TAIL_MAX = 60  # lines kept for error messages
_CHUNK = 1 << 12  # bytes: of lines that are short, more than a thousand, and nothing else runs while they are told
_DRAIN_MAX = 256  # chunks: more than pipe or socket hold

# Escape sequences (ECMA-48) and control characters: they would let a guest write into our log what it likes.
_UNPRINTABLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Tail:
    """The last lines of everything that talks in one machine, oldest first."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=TAIL_MAX)

    def add(self, line: str) -> None:
        """Keep a line."""
        self._lines.append(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """What is kept."""
        return tuple(self._lines)


@contextmanager
def reading(descriptor: int, on_line: Callable[[str], None]) -> Iterator[LineReader]:
    """Read a pipe or socket for as long as the context lasts, and then what is left in it.

    Args:
        descriptor: Made non-blocking; the caller closes it afterwards.
        on_line: Called in the event loop with each line that is not empty, without its end.
    """
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    reader = LineReader(descriptor, on_line)
    loop.add_reader(descriptor, reader.read)
    try:
        yield reader
    finally:
        reader.drain()
        loop.remove_reader(descriptor)


class LineReader:
    """Reads a descriptor and passes each line on; made by `reading`."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""

    def read(self) -> bool:
        """Read once; False when there is nothing now, or ever."""
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except ConnectionError:  # a socket whose other end died with our bytes unread
            chunk = b""
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_MAX:
            lines.append(self._rest)
            self._rest = b""
        self._tell(lines)
        return True

    def drain(self) -> None:
        """Pass on what lies there by now, an unfinished line too: whoever wrote it has died."""
        for _ in range(_DRAIN_MAX):
            if not self.read():
                break
        self._tell([self._rest])
        self._rest = b""

    def _tell(self, lines: list[bytes]) -> None:
        for line in lines:
            for start in range(0, len(line), LINE_MAX):
                piece = line[start : start + LINE_MAX].decode(errors="replace")
                if text := _UNPRINTABLE.sub("", piece).rstrip():
                    self._on_line(text)
