"""The agent's log, brought into the shim's own: its levels and subsystems, none of its freedom.

Source of the records' form: kata `src/libs/logging/src/lib.rs`; of the mapping: `src/runtime-rs/crates/agent/src/
log_forwarder.rs`. The guest is not trusted: what it says is bounded, and becomes values of fields, never names.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from kata_py.ttrpc.address import Address
from kata_py.ttrpc.errors import ConnectError
from kata_py.ttrpc.transport.stream import open_stream

logger = logging.getLogger(__name__)

LINE_MAX = 1 << 14  # bytes; a longer line is told in pieces
CONNECT_TIMEOUT = 5.0  # seconds
PAUSE = 0.5  # seconds until the next attempt: nothing tells when a guest begins to listen
_CHUNK = 1 << 16

_LEVELS = {
    "TRCE": logging.DEBUG,
    "DEBG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERRO": logging.ERROR,
    "CRIT": logging.CRITICAL,
}
_KNOWN = frozenset({"msg", "level", "ts", "version", "subsystem", "pid", "name", "source"})
# Upstream's keys of the container and the process that a line is about, and what the shim's own lines call them.
_IDS = {"container-id": "container", "cid": "container", "exec-id": "exec", "eid": "exec"}
_ID_LENGTH = 128  # characters; a longer one is none


@asynccontextmanager
async def following(address: Address | None, sandbox_id: str) -> AsyncIterator[None]:
    """Log what the agent logs, while the context lasts; a connection that ends is made anew.

    Args:
        address: Where the log is read; None where there is none to read.
        sandbox_id: Whose agent it is.
    """
    if address is None:
        yield
        return
    task = asyncio.create_task(_follow(address), name=f"agent's log of {sandbox_id}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _follow(address: Address) -> None:
    told = False
    while True:
        try:
            reader, writer = await open_stream(address, CONNECT_TIMEOUT)
            try:
                await _read(reader)
            finally:
                writer.close()
        except (ConnectError, OSError) as error:
            if not told:
                logger.debug("the agent's log cannot be read yet: %s", error)
            told = True
        await asyncio.sleep(PAUSE)


async def _read(reader: asyncio.StreamReader) -> None:
    """Log the lines of one connection."""
    lines = Lines()
    while chunk := await reader.read(_CHUNK):
        for line in lines.add(chunk):
            tell(line)
        await asyncio.sleep(0)  # a guest that floods its log gets no more than its turn


class Lines:
    """Cuts a stream into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that have become whole."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        while len(self._rest) > LINE_MAX:
            lines.append(self._rest[:LINE_MAX])
            self._rest = self._rest[LINE_MAX:]
        for line in lines:
            yield from (line[start : start + LINE_MAX] for start in range(0, len(line), LINE_MAX))


def tell(line: bytes) -> None:
    """Log one line of the agent's; one that is no record as it stands, at level info."""
    try:
        record = json.loads(line)
        message, level = record["msg"], _LEVELS[record["level"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        logger.info("%s", line.decode(errors="replace"), extra={"source": "agent", "subsystem": "agent"})
        return
    if not logger.isEnabledFor(level):
        return
    fields: dict[str, object] = {"source": "agent", "subsystem": str(record.get("subsystem", "agent"))}
    ids = {key: record[key] for key in _IDS if isinstance(record.get(key), str) and len(record[key]) <= _ID_LENGTH}
    fields |= {_IDS[key]: value for key, value in ids.items() if value}
    if others := {key: value for key, value in record.items() if key not in _KNOWN | ids.keys()}:
        fields["agent"] = json.dumps(others, ensure_ascii=False)
    logger.log(level, "%s", message, extra=fields)
