from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from kata_agent import linux, modules
from kata_agent.errors import AgentError
from kata_agent.modules import LateModules


@pytest.fixture
def inserted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel was given; it takes all but what is called broken."""
    given: list[str] = []

    def insert(path: str) -> None:
        if "broken" in path:
            raise OSError(8, "Exec format error", path)
        given.append(path)

    monkeypatch.setattr(linux, "insert_module", insert)
    return given


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "late"
    path.write_text("/m/fuse.ko\n/m/broken.ko\n/m/virtiofs.ko\n")
    return path


async def test_all_that_is_listed_is_loaded_in_order_and_a_broken_one_warned_of(
    listed: Path, inserted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    late = LateModules(listed)

    late.load()
    await late.loaded()

    assert inserted == ["/m/fuse.ko", "/m/virtiofs.ko"]
    assert "/m/broken.ko" in caplog.text


async def test_who_needs_them_waits_for_them(listed: Path, inserted: list[str]) -> None:
    late = LateModules(listed)
    waiting = asyncio.create_task(late.loaded())
    await asyncio.sleep(0)
    assert not waiting.done()

    threading.Thread(target=late.load).start()

    async with asyncio.timeout(5):
        await waiting
    assert len(inserted) == 2


async def test_modules_that_do_not_come_are_an_error(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_TIMEOUT", 0.01)

    with pytest.raises(AgentError, match="were not loaded within"):
        await LateModules(listed).loaded()


async def test_where_nothing_is_listed_nothing_is_missing(tmp_path: Path, inserted: list[str]) -> None:
    late = LateModules(tmp_path / "none")

    late.load()
    await late.loaded()

    assert inserted == []


def test_what_is_no_module_is_refused_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "text.ko"
    path.write_text("no module")

    with pytest.raises(OSError, match=r"text\.ko"):
        linux.insert_module(str(path))
