"""Lines from QEMU's monitor: a session that works, or a MonitorError."""

from __future__ import annotations

import asyncio
import json
import socket

from hypothesis import strategies as st

from kata_qemu.monitor import MonitorError, connect
from kata_qemu.parts import Command
from tests.fuzz.documents import deep, replaced, values
from tests.fuzz.target import Target, mutated, run

_GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
_SAID = [
    _GREETING, {"return": {}, "id": "__qmp#00000"}, {"return": {"status": "running"}, "id": "__qmp#00001"},
    {"error": {"class": "GenericError", "desc": "no"}, "id": "__qmp#00001"}, {"error": {}, "id": "__qmp#00001"},
    {"event": "SHUTDOWN", "data": {}, "timestamp": {"seconds": 0, "microseconds": 0}}, {"event": 1}, {"return": {}},
]  # fmt: skip
_lines = st.one_of(*map(st.just, _SAID), *map(replaced, _SAID), values).map(lambda said: json.dumps(said).encode())
_opening = [json.dumps(said).encode() for said in _SAID[:2]]
_ANSWER = 0.5  # seconds; QEMU has said all it will before it is asked


async def _check(lines: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(theirs, b"".join(line + b"\n" for line in lines))
        theirs.shutdown(socket.SHUT_WR)
        try:
            async with connect(ours, timeout=_ANSWER) as monitor:
                with monitor.events("SHUTDOWN", "1"):
                    await monitor.execute(Command("query-status", {}), timeout=_ANSWER)
        except MonitorError:
            pass


_sessions = st.lists(_lines | mutated(_lines) | deep, max_size=5)
TARGET = Target(
    "qmp", _sessions | _sessions.map(_opening.__add__), lambda lines: run(_check(lines)), lambda data: data.split(b"\n")
)
