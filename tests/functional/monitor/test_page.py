"""The monitor's page in a real browser."""

from __future__ import annotations

import asyncio
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kata_py.sandbox.record import Record, State
from tests.monitor import monitoring

BOUND = 60.0  # seconds that the browser may take, beside whatever else runs
WIDTH, HEIGHT = 1280, 900


async def chromium(profile: Path, *words: str) -> bytes:
    """Run the browser once, without a window; returns what it printed."""
    line = (
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *line, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={"HOME": str(profile), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(BOUND):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode(errors="replace")
    return out


class Cells(HTMLParser):
    """The cells of tables, and how many bars are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.bars = 0
        self.tags: set[str] = set()
        self._in = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.bars += tag == "rect"
        if tag in ("td", "th"):
            self._in = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = self._in and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in:
            self.cells[-1] += data


def pixels(png: bytes) -> tuple[int, int, int]:
    """Width, height, and how many different lines a picture has. Source: PNG specification, 5.2 and 11.2."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, width, height = 8, b"", 0, 0
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", content[:8])
        elif kind == b"IDAT":
            data += content
        at += 12 + length
    raw = zlib.decompress(data)
    stride = len(raw) // height
    return width, height, len({raw[row * stride : (row + 1) * stride] for row in range(height)})


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A sandbox that runs, and one whose machine does not come up."""
    root = tmp_path / "sbs"
    running = Record.create("a" * 64, namespace="k8s.io", bundle="/b", root=root)
    for stage in ("plan", "machine", "agent"):
        with running.span(stage):
            pass
    running.move(State.RUNNING)
    failing = Record.create("b" * 64, namespace="k8s.io", bundle="/b", root=root)
    with pytest.raises(OSError, match="no kernel"), failing.span("machine"):
        raise OSError("no kernel")
    return root


async def test_a_browser_shows_every_sandbox_and_its_start_without_a_script(records: Path, tmp_path: Path) -> None:
    async with monitoring(records) as monitor:
        url = f"http://127.0.0.1:{monitor.port}/"
        dom = Cells()
        dom.feed((await chromium(tmp_path / "profile", "--dump-dom", url)).decode())
        shot = tmp_path / "page.png"
        await chromium(tmp_path / "profile", f"--screenshot={shot}", url)
    rows = [dom.cells[at : at + 8] for at in range(0, len(dom.cells), 8)]
    assert rows[0] == ["Pod", "State", "Age", "VM", "QEMU", "virtiofsd", "shim", "all"]
    assert {(row[0], row[1]) for row in rows[1:]} == {("a" * 12, "running"), ("b" * 12, "creating")}
    assert dom.bars == 4
    assert not dom.tags & {"script", "link", "img", "iframe"}  # the policy in its header allows none either
    width, height, lines = pixels(shot.read_bytes())
    assert (width, height) == (WIDTH, HEIGHT)
    assert lines > 100  # a blank page has one, an error's some dozens
