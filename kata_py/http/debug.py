"""What a process of ours tells of itself at `/debug`: its variables, its stacks, and where its time goes.

Paths are those of Go's `expvar` and `net/http/pprof`, which kata's users know; what is behind them is Python's, as
text. Nothing is gathered before somebody asks.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import TypeVar

from kata_py.http.server import JSON, Answer, HttpError, Request

SECONDS = 30  # that a profile takes, as Go's
TRACE_SECONDS = 1  # that a trace takes, likewise
SECONDS_MAX = 60
INTERVAL = 0.01  # seconds between two looks
DEPTH_MAX = 64  # frames of a stack, the innermost
STACKS_MAX = 5000  # different ones in a profile; the rest is one
TEXT_MAX = 4 << 20  # characters

_T = TypeVar("_T")

_PAGES = {
    "/debug/vars": "variables as JSON: command line, memory, collections of garbage, tasks and threads",
    "/debug/pprof/": "this list",
    "/debug/pprof/cmdline": "the command line, its words ended by NUL",
    "/debug/pprof/goroutine": "the stacks of all tasks and threads",
    "/debug/pprof/profile": f"where time goes for ?seconds=N ({SECONDS}; {SECONDS_MAX} at most): stacks, the outermost "
    f"frame first, and in how many of {1 / INTERVAL:.0f} looks a second each was met; flame graphs are made of it",
    "/debug/pprof/symbol": "that there are no symbols: a profile has the names themselves",
    "/debug/pprof/trace": f"what threads do one after another for ?seconds=N ({TRACE_SECONDS}; {SECONDS_MAX} at most): "
    "a line for each change that a look finds, with seconds since the beginning, as text and not in the form of Go's",
}
PATHS = tuple(_PAGES)


class Debug:
    """Answers the requests for this process."""

    def __init__(self) -> None:
        self._watching = False
        self._answers: Mapping[str, Callable[[Request], Awaitable[Answer]]] = {
            "/debug/vars": self._vars,
            "/debug/pprof": self._index,
            "/debug/pprof/": self._index,
            "/debug/pprof/cmdline": self._cmdline,
            "/debug/pprof/goroutine": self._stacks,
            "/debug/pprof/profile": self._profile,
            "/debug/pprof/symbol": self._symbol,
            "/debug/pprof/trace": self._trace,
        }

    async def answer(self, request: Request) -> Answer:
        """Answer a GET.

        Raises:
            HttpError: It cannot be answered.
        """
        answer = self._answers.get(request.path)
        if answer is None:
            cause = f"this is Python, and has not all that Go has; there are: {', '.join(PATHS)}"
            raise HttpError(HTTPStatus.NOT_FOUND, cause)
        return await answer(request)

    async def _index(self, request: Request) -> Answer:
        width = max(map(len, _PAGES)) + 2
        return Answer("".join(f"{path:{width}}{what}\n" for path, what in _PAGES.items()).encode())

    async def _vars(self, request: Request) -> Answer:
        return Answer(json.dumps(variables(len(asyncio.all_tasks())), indent=1).encode() + b"\n", JSON)

    async def _cmdline(self, request: Request) -> Answer:
        return Answer("".join(f"{word}\0" for word in sys.orig_argv).encode(errors="surrogateescape"))

    async def _stacks(self, request: Request) -> Answer:
        text = "".join(f"{whose}\n{stack}\n" for whose, stack in stacks())
        return Answer(text[:TEXT_MAX].encode(errors="backslashreplace"))

    async def _symbol(self, request: Request) -> Answer:
        return Answer(b"num_symbols: 0\n")  # pprof's form: a line for each address that has a name comes after it

    async def _profile(self, request: Request) -> Answer:
        met = await self._watched(profile, request, SECONDS)
        return Answer("".join(f"{stack} {count}\n" for stack, count in met.most_common()).encode())

    async def _trace(self, request: Request) -> Answer:
        return Answer((await self._watched(trace, request, TRACE_SECONDS)).encode())

    async def _watched(self, watch: Callable[[float, threading.Event], _T], request: Request, seconds: int) -> _T:
        """What is seen in so many seconds as are asked for; one request at a time may look."""
        asked = request.query.get("seconds", str(seconds))
        if not (asked.isascii() and asked.isdecimal() and len(asked) < 4 and 0 < int(asked) <= SECONDS_MAX):
            raise HttpError(HTTPStatus.BAD_REQUEST, f"seconds is a whole number from 1 to {SECONDS_MAX}")
        if self._watching:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "a profile or a trace is being taken already")
        self._watching, enough = True, threading.Event()
        try:
            return await asyncio.to_thread(watch, int(asked), enough)
        finally:
            enough.set()
            self._watching = False


def variables(tasks: int) -> dict[str, object]:
    """What `/debug/vars` tells. The names are Go's where there is something to tell by them.

    Args:
        tasks: How many tasks there are.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    collections = gc.get_stats()
    return {
        "cmdline": sys.orig_argv,
        "memstats": {
            "Sys": _bytes(status["VmRSS"]),
            "HeapSys": _bytes(status["RssAnon"]),
            "HeapObjects": sys.getallocatedblocks(),
            "NumGC": sum(generation["collections"] for generation in collections),
        },
        "python": {
            "version": sys.version.split()[0],
            "modules": len(sys.modules),
            "tasks": tasks,
            "threads": threading.active_count(),
            "gc": collections,
        },
    }


def stacks() -> Iterator[tuple[str, str]]:
    """The stack of each task of the running loop, and of each thread, with whose it is."""
    for task in asyncio.all_tasks():
        text = io.StringIO()
        task.print_stack(file=text)
        yield f"task {task.get_name()}", text.getvalue()
    for thread, frame in sys._current_frames().items():  # noqa: SLF001 the documented way, underscore and all
        yield f"thread {thread}", "".join(traceback.format_stack(frame))


def profile(seconds: float, enough: threading.Event) -> Counter[str]:
    """Look at the stacks of all other threads again and again; blocks.

    Args:
        seconds: For how long.
        enough: Set when nobody waits for it any more.

    Returns:
        How often each stack was met: the thread's name and its frames, outermost first, with `;` between.
    """
    met = Counter[str]()
    for _, _, stack in _looks(seconds, enough):
        met[stack if stack in met or len(met) < STACKS_MAX else "(others)"] += 1
    return met


def trace(seconds: float, enough: threading.Event) -> str:
    """Look as `profile` does, and tell what changes; blocks.

    Returns:
        A line for each stack that is another than the thread's before: seconds since the beginning, and the stack.
    """
    before: dict[int, str] = {}
    lines: list[str] = []
    room = TEXT_MAX
    for at, thread, stack in _looks(seconds, enough):
        if before.get(thread) != stack:
            before[thread] = stack
            line = f"{at:.3f} {stack}\n"
            room -= len(line)
            if room < 0:
                break
            lines.append(line)
    return "".join(lines)


def _looks(seconds: float, enough: threading.Event) -> Iterator[tuple[float, int, str]]:
    """The stack of each other thread at each look: seconds since the first, the thread, its name and frames."""
    own, began = threading.get_ident(), time.monotonic()
    while (at := time.monotonic() - began) < seconds and not enough.wait(INTERVAL):
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for thread, frame in sys._current_frames().items():  # noqa: SLF001 as in `stacks`
            if thread != own:
                yield at, thread, f"{names.get(thread, thread)};{_folded(frame)}"


def _folded(frame: FrameType | None) -> str:
    frames: list[str] = []
    while frame is not None and len(frames) < DEPTH_MAX:
        frames.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(frames)).replace(" ", "_")


def _bytes(kilobytes: str) -> int:
    return int(kilobytes.split()[0]) << 10
