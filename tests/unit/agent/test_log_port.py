from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from kata_agent import __version__, ports
from kata_agent.cmdline import Parameters
from kata_agent.log_port import LogPort
from kata_py.ttrpc import transport
from kata_py.ttrpc.address import SerialAddress, UnixAddress, VsockAddress

BOUND = 5.0  # seconds


@pytest.fixture
def logger() -> logging.Logger:
    """A logger of the agent's that nobody else listens to."""
    logger = logging.Logger("kata_agent.rpc.boundary", logging.DEBUG)
    logger.propagate = False
    return logger


@pytest_asyncio.fixture
async def place(logger: logging.Logger, short_tmp: Path) -> AsyncIterator[Path]:
    """Where the logger's records are read, with room for a kilobyte or two."""
    path = short_tmp / "log"
    port = LogPort(asyncio.get_running_loop(), capacity=2000)
    logger.addHandler(port)
    listener = await transport.listen(UnixAddress(str(path)), port.accept)
    yield path
    listener.close()
    path.unlink()
    async with asyncio.timeout(BOUND):
        while port._reader is not None:  # noqa: ASYNC110 a few turns of the loop until it has seen the end
            await asyncio.sleep(0)


@asynccontextmanager
async def _reading(place: Path) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_unix_connection(place)
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def _line(reader: asyncio.StreamReader) -> dict[str, object]:
    async with asyncio.timeout(BOUND):
        found = json.loads(await reader.readline())
    assert isinstance(found, dict)
    return found


async def test_a_record_has_the_keys_that_hosts_map(logger: logging.Logger, place: Path) -> None:
    logger.info("mounted %s", "/a", extra={"fields": {"storage": "x"}})
    async with _reading(place) as reader:
        record = await _line(reader)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", str(record.pop("ts")))
    assert str(record.pop("pid")).isdecimal()
    assert record == {
        "msg": "mounted /a", "level": "INFO", "version": __version__, "subsystem": "rpc.boundary",
        "name": "kata-agent", "source": "agent", "storage": "x",
    }  # fmt: skip


async def test_levels_have_four_letters_and_an_exception_its_trace(logger: logging.Logger, place: Path) -> None:
    for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.DEBUG):
        logger.log(level, "x")
    try:
        raise ValueError("deep")
    except ValueError:
        logger.exception("failed")

    async with _reading(place) as reader:
        records = [await _line(reader) for _ in range(5)]

    assert [record["level"] for record in records] == ["CRIT", "ERRO", "WARN", "DEBG", "ERRO"]
    assert "ValueError: deep" in str(records[-1]["backtrace"])


async def test_without_a_reader_the_oldest_records_are_dropped_and_counted(logger: logging.Logger, place: Path) -> None:
    for number in range(100):
        logger.info("number %d", number)
    async with _reading(place) as reader:
        first, second = await _line(reader), await _line(reader)

    dropped = re.fullmatch(r"(\d+) records were dropped: nobody read them", str(first["msg"]))
    assert dropped
    assert second["msg"] == f"number {dropped[1]}"
    assert 80 < int(dropped[1]) < 100


async def test_a_reader_that_stalls_stops_nobody(logger: logging.Logger, place: Path) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.setblocking(False)
        await loop.sock_connect(stalled, str(place))
        text = "x" * 500
        async with asyncio.timeout(BOUND):
            for number in range(5000):
                logger.info("%d %s", number, text)
                if number % 50 == 0:
                    await asyncio.to_thread(logger.info, "from a thread")

        read = b""
        async with asyncio.timeout(BOUND):
            while b'"4999 x' not in read:
                read += await loop.sock_recv(stalled, 1 << 20)

    assert b"records were dropped" in read


async def test_a_second_reader_is_turned_away_until_the_first_is_gone(logger: logging.Logger, place: Path) -> None:
    async with _reading(place) as first:
        logger.info("for the first")
        assert (await _line(first))["msg"] == "for the first"
        async with _reading(place) as second, asyncio.timeout(BOUND):
            assert await second.read() == b""

    async with asyncio.timeout(BOUND):
        line = b""
        while not line:  # turned away as well, as long as the first one's end has not been seen
            async with _reading(place) as third:
                logger.info("for the next")
                line = await third.readline()
    assert b"for the next" in line


def test_where_there_is_no_vsock_a_port_has_a_name() -> None:
    assert ports.address("vsock://-1:1024", 1025, ports.LOG) == VsockAddress(-1, 1025)
    assert ports.address("virtio-serial://agent.channel.0", 1, ports.LOG) == SerialAddress("", "agent.log.0")


async def test_a_port_that_cannot_be_opened_leaves_the_log_on_the_console(caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncExitStack() as stack:
        await ports.open_log(stack, Parameters(), SerialAddress("", "agent.log.0"))

    assert "the log stays on the console: cannot listen at virtio-serial://agent.log.0" in caplog.text
