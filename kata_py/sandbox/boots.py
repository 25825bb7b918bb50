"""Taking turns at booting, over all shims of the host: more boots at once than processors end later, not sooner.

Each shim that is to boot a machine takes a ticket: a socket that listens in a directory they share, named by the time
it came. Whoever has fewer tickets before it than there are places boots; the others wait for one of those before them
to hang up, as a shim does when its guest is up, or when it dies. So the order is that of arrival, nobody polls,
and a dead shim holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource import process
from kata_py.resource.journal import Journal, undone
from kata_py.resource.undo import RemoveFile
from kata_py.sandbox.errors import DeadlineExceeded

logger = logging.getLogger(__name__)

ROOT = Path("/run/vc/boots")
TIMEOUT = 600.0  # seconds to wait for one's turn; managers give up before that
_BACKLOG = 4096  # shims that may wait for one ticket
_MAKING = ".new"


def places() -> int:
    """How many machines may boot at once: a guest that boots keeps a processor busy."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Turns:
    """How many machines boot, and how many wait to."""

    booting: int
    queued: int

    @classmethod
    def of(cls, directory: Path, limit: int) -> Turns:
        """As the tickets say; those of shims that are gone do not count. Blocks.

        Args:
            directory: Where the tickets are; it may be missing.
            limit: How many may have their turn at once.

        Raises:
            OSError: They cannot be read.
        """
        try:
            names = [entry.name for entry in os.scandir(directory) if not entry.name.endswith(_MAKING)]
        except FileNotFoundError:
            return cls(0, 0)
        pids = [int(pid) for name in names if (pid := name.rpartition("-")[2]).isdecimal()]
        alive = sum(process.start_time(pid) is not None for pid in pids)
        return cls(min(alive, limit), max(0, alive - limit))


@asynccontextmanager
async def turn(directory: Path, journal: Journal, limit: int) -> AsyncIterator[None]:
    """Wait for one's turn, and have it until the context ends.

    Args:
        directory: Where the tickets of all shims lie; made if missing.
        journal: Where the ticket is written down.
        limit: How many may have their turn at once.

    Raises:
        DeadlineExceeded: It did not come in time.
        OSError: The ticket cannot be made.
    """
    with _ticket(directory, journal) as ticket:
        began = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                while len(ahead := _ahead(ticket)) >= limit:
                    logger.info("%d machines are booting or are to boot before this one, %d at once", len(ahead), limit)
                    await _one_ends(ahead[:limit])
        except TimeoutError:
            raise DeadlineExceeded(
                f"no turn to boot within {TIMEOUT:g} s: {len(_ahead(ticket))} machines are before this one"
            ) from None
        if (waited := time.monotonic() - began) > 1:
            logger.info("waited %.1f s for a turn to boot", waited)
        yield


@contextmanager
def _ticket(directory: Path, journal: Journal) -> Iterator[Path]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{time.monotonic_ns():020d}-{os.getpid()}"
    making = path.with_suffix(_MAKING)
    with undone(journal, RemoveFile(str(path))), undone(journal, RemoveFile(str(making))), socket.socket(
        socket.AF_UNIX
    ) as sock:  # fmt: skip
        sock.bind(str(making))
        sock.listen(_BACKLOG)
        making.rename(path)  # a ticket that is seen is one that answers, unless its shim is dead
        yield path


def _ahead(ticket: Path) -> list[Path]:
    names = [entry.name for entry in os.scandir(ticket.parent) if not entry.name.endswith(_MAKING)]
    return [ticket.parent / name for name in sorted(names) if name < ticket.name]


async def _one_ends(tickets: list[Path]) -> None:
    ends = [asyncio.create_task(_end(ticket), name=f"end of boot {ticket.name}") for ticket in tickets]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        await asyncio.wait(ends)


async def _end(ticket: Path) -> None:
    """Wait until a ticket's shim hangs up; the ticket of one that is dead is removed."""
    try:
        reader, writer = await asyncio.open_unix_connection(ticket)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        with suppress(FileNotFoundError):
            os.unlink(ticket)  # noqa: PTH108 a name in a memory's directory blocks nobody
        return
    try:
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
