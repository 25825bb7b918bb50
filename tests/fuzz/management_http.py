"""Requests to the shim's management API, in bytes: an answer in HTTP, never an error that nobody expected."""

from __future__ import annotations

import asyncio
import json
import tempfile
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from hypothesis import strategies as st

from kata_py.http import server
from kata_py.sandbox.durations import of_agent, of_tasks
from kata_py.sandbox.errors import NotFound
from kata_py.sandbox.parts import Parts
from kata_py.shim.management import LOG_LEVELS, Management
from kata_py.storage import direct
from tests.fuzz.documents import deep, replaced, texts
from tests.fuzz.target import Target, mutated, nothing_unexpected, run

_PATHS = [
    "/agent-url", "/agent-check", "/metrics", "/direct-volume/stats", "/direct-volume/resize", "/iptables",
    "/exec", "/ip6tables", "/policy", "/log-level", "/", "/%00",
]  # fmt: skip
_QUERIES = [
    "",
    "?path=/dev/vda",
    "?path=%00",
    "?path=%25%30%30",
    "?path=%ff",
    "?path=",
    "?path=%ED%A0%80",
    "?&=&",
    "?container=c1",
]
_resizes = replaced({"VolumePath": "/dev/vda", "Size": 1}).map(lambda value: json.dumps(value).encode())
_bodies = (
    _resizes
    | deep
    | st.sampled_from([*map(str.encode, LOG_LEVELS), b"\xff", b"package agent_policy", b'["true"]'])
    | st.binary()
)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    target = draw(st.sampled_from(_PATHS)) + draw(st.sampled_from(_QUERIES) | texts.map(lambda text: f"?path={text}"))
    body = draw(_bodies)
    length = draw(st.sampled_from([str(len(body))] * 4 + ["-1", "1e3", "٣", "9" * 20, ""]))
    method = draw(st.sampled_from(["GET", "PUT", "POST", "get"]))
    return f"{method} {target} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode(errors="surrogatepass") + body


class _Agent:
    """Takes everything."""

    durations = of_agent()

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object, **kwargs: object) -> object:
            return {"metrics": "", "wait_process": 0}.get(name, b"")

        return call


class _Disks:
    def mount_point(self, device: Path) -> str | None:
        return None

    async def grow(self, device: Path, size: int) -> None:
        raise NotFound("no such disk")


async def _check(data: bytes) -> None:
    record = SimpleNamespace(id="x", shim=SimpleNamespace(pid=0), undo=[])
    parts = SimpleNamespace(
        agent=_Agent(), vm=SimpleNamespace(agent="vsock:", pid=0), disks=_Disks(), record=record, files={"c1": None}
    )
    answer = Management(cast(Parts, parts), of_tasks()).answer
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as directory:
        path = f"{directory}/s"
        find = partial(direct.find, root=Path(directory))  # never the host's own volumes
        with patch.object(direct, "find", find), patch("logging.Logger.setLevel"):
            async with server.serving(path, answer):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    writer.write(data)
                    writer.write_eof()
                    said = await reader.read()
                except ConnectionError:
                    return
                finally:
                    writer.close()
    if said:
        assert said.startswith(b"HTTP/1.1 ")
        assert HTTPStatus(int(said.split(b" ", 2)[1]))


def check(data: bytes) -> None:
    with nothing_unexpected("kata_py.http.server"):
        run(_check(data))


TARGET = Target("management_http", _requests() | mutated(_requests()), check, bytes)
