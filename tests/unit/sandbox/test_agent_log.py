from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from itertools import pairwise
from pathlib import Path

import pytest

from kata_py.sandbox import agent_log
from kata_py.sandbox.agent_log import Lines, following, tell
from kata_py.shim.log import LogrusFormatter
from kata_py.ttrpc.address import UnixAddress
from tests.tasks import until


def record(**fields: object) -> bytes:
    return json.dumps({"msg": "hello", "level": "INFO", "subsystem": "rpc", "source": "agent", **fields}).encode()


@pytest.mark.parametrize(
    ("level", "number"),
    [("TRCE", 10), ("DEBG", 10), ("INFO", 20), ("WARN", 30), ("ERRO", 40), ("CRIT", 50)],
)
def test_a_record_keeps_its_level_and_subsystem(level: str, number: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tell(record(level=level))
    [told] = caplog.records
    assert (told.levelno, told.getMessage()) == (number, "hello")
    assert LogrusFormatter("s").format(told).endswith(" source=agent subsystem=rpc")


def test_other_keys_of_a_record_come_as_one_value_and_change_no_field_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    tell(record(msg="a\nb", sandbox="forged", message="x", args=[1], levelname="x"))
    [told] = caplog.records
    line = LogrusFormatter("mine").format(told)
    assert "\n" not in line
    assert " sandbox=mine " in line
    assert r'agent="{\"sandbox\": \"forged\"' in line


@pytest.mark.parametrize("keys", [("container-id", "exec-id"), ("cid", "eid")])
def test_a_line_about_a_container_has_its_id_where_the_shims_own_lines_have_it(
    keys: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tell(record(**dict(zip(keys, ("c1", "e1"), strict=True))))
    tell(record(**dict.fromkeys(keys, "x" * 1000)))
    tell(record(**{key: ["c1"] for key in keys}))
    lines = [LogrusFormatter("mine").format(told) for told in caplog.records]
    assert " container=c1 exec=e1 " in lines[0]
    assert " sandbox=mine " in lines[0]
    assert not any(" container=" in line for line in lines[1:])


@pytest.mark.parametrize(
    "line", [b"plain text", b'["msg"]', b'{"msg": 1}', b'{"level": "WARN"}', b"[" * 10000, b"\xff"]
)
def test_what_is_no_record_is_told_as_it_stands(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell(line)
    [told] = caplog.records
    assert (told.levelno, told.getMessage()) == (logging.INFO, line.decode(errors="replace"))


def test_a_line_without_end_is_told_in_pieces() -> None:
    lines = Lines()
    told = [*lines.add(b"a\nb"), *lines.add(b"c\n" + b"x" * (2 * agent_log.LINE_MAX + 5))]
    assert [len(line) for line in told] == [1, 2, agent_log.LINE_MAX, agent_log.LINE_MAX]


async def test_a_log_is_read_again_after_its_connection_has_ended(
    short_tmp: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(agent_log, "PAUSE", 0.01)
    connections: list[asyncio.StreamWriter] = []
    path = short_tmp / "log.sock"

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(record(msg=f"number {len(connections)}") + b"\n")
        if len(connections) == 1:
            writer.close()

    async with following(UnixAddress(str(path)), "s") as last, asyncio.timeout(10):
        server = await asyncio.start_unix_server(connected, path)
        await until(lambda: "number 2" in caplog.messages)
    assert list(last) == ["agent: number 1", "agent: number 2"]
    server.close()
    connections[1].close()
    assert caplog.messages.count("number 1") == 1


async def test_a_log_that_is_flooded_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    told, turns = 0, []

    def count(line: bytes) -> str:
        nonlocal told
        told += 1
        return ""

    monkeypatch.setattr(agent_log, "tell", count)
    monkeypatch.setattr(agent_log, "REST", 0)
    reader = asyncio.StreamReader()
    reader.feed_data(b"x\n" * (1 << 14))
    reader.feed_eof()
    reading = asyncio.create_task(agent_log._read(reader, deque()))
    while not reading.done():
        await asyncio.sleep(0)
        turns.append(told)
    assert told == 1 << 14
    assert max(after - before for before, after in pairwise(turns)) <= agent_log.LINES_AT_ONCE
