"""Several who ask at once, and one who does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kata_py.http.server import Answer
from kata_py.monitor.figures import Figures
from kata_py.monitor.scrape import Scraper
from kata_py.sandbox import sockets
from tests.tasks import until
from tests.unit.monitor.conftest import Shims


@pytest.fixture
def go() -> asyncio.Event:
    """Lets the shim answer."""
    return asyncio.Event()


@pytest.fixture
async def scraper(shims: Shims, go: asyncio.Event) -> AsyncIterator[Scraper]:
    async def wait() -> Answer:
        await go.wait()
        return Answer(b"kata_shim_fds 1\n")

    await shims.add("aa", wait)
    scraper = Scraper(Figures(), roots=(shims.root,))
    async with scraper.open():
        yield scraper


async def test_who_asks_meanwhile_gets_the_same_answer(scraper: Scraper, shims: Shims, go: asyncio.Event) -> None:
    both = asyncio.gather(scraper.all(), scraper.all())
    await until(lambda: shims.asked)
    go.set()
    first, second = await both
    assert first is second
    assert len(shims.asked) == 1
    assert await scraper.all() is not first


async def test_who_leaves_takes_the_answer_from_nobody(scraper: Scraper, shims: Shims, go: asyncio.Event) -> None:
    leaving, staying = (asyncio.create_task(scraper.all()) for _ in range(2))
    await until(lambda: shims.asked)
    leaving.cancel()
    go.set()
    assert (await staying).text() == 'kata_shim_fds{sandbox_id="aa"} 1\n'
    assert len(shims.asked) == 1


async def test_what_is_under_way_ends_with_the_monitor(shims: Shims, go: asyncio.Event) -> None:
    async def wait() -> Answer:
        await go.wait()
        raise AssertionError("it went on")

    await shims.add("aa", wait)
    scraper = Scraper(Figures(), roots=(shims.root,))
    async with scraper.open():
        asking = asyncio.create_task(scraper.all())
        await until(lambda: shims.asked)
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_fault_is_told_to_those_who_wait_and_forgotten(
    scraper: Scraper, go: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.set()
    with monkeypatch.context() as patch:
        patch.setattr(sockets, "serving", lambda roots: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await scraper.all()
    assert (await scraper.all()).text() == 'kata_shim_fds{sandbox_id="aa"} 1\n'
