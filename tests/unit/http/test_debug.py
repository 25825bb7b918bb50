"""What a process tells of itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from http import HTTPStatus

import pytest

from kata_py.http import debug
from kata_py.http.debug import PATHS, Debug, profile
from kata_py.http.server import HttpError, Request

BOUND = 10.0  # seconds, for what takes none


async def told(path: str, **query: str) -> bytes:
    return (await Debug().answer(Request("GET", path, query))).body


async def test_variables_are_those_of_this_process() -> None:
    found = json.loads(await told("/debug/vars"))
    assert found["cmdline"] == sys.orig_argv
    assert found["memstats"]["Sys"] > found["memstats"]["HeapSys"] > 1 << 20
    assert found["memstats"]["HeapObjects"] > 10_000
    assert found["python"]["tasks"] == len(asyncio.all_tasks())


async def test_the_command_line_is_as_the_kernel_has_it() -> None:
    assert (await told("/debug/pprof/cmdline")).split(b"\0")[:-1] == [word.encode() for word in sys.orig_argv]


async def test_the_first_page_lists_them_all() -> None:
    listed = (await told("/debug/pprof")).decode().splitlines()
    assert [line.split()[0] for line in listed] == list(PATHS)


async def test_stacks_are_those_of_tasks_and_threads() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(waits(), name="one that waits")
    await asyncio.sleep(0)
    text = (await told("/debug/pprof/goroutine")).decode()
    task.cancel()
    assert "task one that waits\n" in text
    assert "in waits\n" in text
    assert f"thread {threading.get_ident()}\n" in text


async def test_a_profile_says_where_time_goes() -> None:
    async def busy() -> None:
        while True:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    lines = (await told("/debug/pprof/profile", seconds="1")).decode().splitlines()
    task.cancel()
    counts = {stack: int(count) for stack, _, count in (line.rpartition(" ") for line in lines)}
    ours = f"{threading.current_thread().name};"
    mine = {stack: count for stack, count in counts.items() if stack.startswith(ours)}
    most = max(mine, key=lambda stack: mine[stack])
    assert most.endswith(":test_a_profile_says_where_time_goes.<locals>.busy")
    assert sum(counts.values()) <= 1 / debug.INTERVAL * threading.active_count()


async def test_a_trace_says_what_is_done_when() -> None:
    async def alternates() -> None:
        for work in itertools.cycle((adds, multiplies)):
            work()
            await asyncio.sleep(0)

    def adds() -> None:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass

    def multiplies() -> None:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass

    task = asyncio.create_task(alternates())
    lines = [line.split(" ", 1) for line in (await told("/debug/pprof/trace", seconds="1")).decode().splitlines()]
    task.cancel()
    assert all(0 <= float(before) <= float(after) < 2 for (before, _), (after, _) in itertools.pairwise(lines))
    mine = [stack for _, stack in lines if stack.startswith(f"{threading.current_thread().name};")]
    assert all(before != after for before, after in itertools.pairwise(mine))
    done = [stack.rpartition(".")[2] for stack in mine if stack.endswith((".adds", ".multiplies"))]
    assert {*itertools.pairwise(done)} >= {("adds", "multiplies"), ("multiplies", "adds")}


def test_a_trace_has_room_for_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "TEXT_MAX", 0)
    enough = threading.Event()
    other = threading.Thread(target=enough.wait, args=(BOUND,))
    other.start()
    began = time.monotonic()
    assert debug.trace(BOUND, enough) == ""
    assert time.monotonic() - began < BOUND / 2
    enough.set()
    other.join()


async def test_there_are_no_symbols_in_pprofs_form() -> None:
    assert await told("/debug/pprof/symbol") == b"num_symbols: 0\n"


@pytest.mark.parametrize("other", ["profile", "trace"])
async def test_only_one_profile_is_taken_at_a_time_and_who_gives_up_ends_it(other: str) -> None:
    answers = Debug()
    request = Request("GET", "/debug/pprof/profile", {})
    first = asyncio.create_task(answers.answer(request))
    await asyncio.sleep(0)
    with pytest.raises(HttpError) as caught:
        await answers.answer(Request("GET", f"/debug/pprof/{other}", {}))
    assert caught.value.status is HTTPStatus.SERVICE_UNAVAILABLE
    first.cancel()
    await asyncio.wait([first])
    assert (await answers.answer(Request("GET", "/debug/pprof/profile", {"seconds": "1"}))).body


def test_a_profile_keeps_so_many_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "STACKS_MAX", 0)
    monkeypatch.setattr(debug, "INTERVAL", 0.0001)
    enough = threading.Event()
    other = threading.Thread(target=enough.wait)
    other.start()
    assert set(profile(0.02, enough)) == {"(others)"}
    enough.set()
    other.join()


@pytest.mark.parametrize("what", ["profile", "trace"])
@pytest.mark.parametrize("seconds", ["0", "61", "-1", "1.5", "x", "", "\u0661", "9" * 5000])
async def test_a_profile_has_bounds(seconds: str, what: str) -> None:
    with pytest.raises(HttpError) as caught:
        await told(f"/debug/pprof/{what}", seconds=seconds)
    assert caught.value.status is HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("path", ["/debug", "/debug/pprof/heap", "/debug/pprof/../vars"])
async def test_what_go_alone_has_is_not_found_and_it_says_what_is(path: str) -> None:
    with pytest.raises(HttpError, match="there are: /debug/vars, ") as caught:
        await told(path)
    assert caught.value.status is HTTPStatus.NOT_FOUND
