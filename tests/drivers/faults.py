"""Faults at points of a program's way: a test writes which one comes next, and the program that runs into it obeys.

Points have names and numbers, counted from when the plan was written. A plan serves once, also across restarts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from kata_caa.errors import Fault, ProviderError
from kata_py.resource.file import replace

T = TypeVar("T")

ENVIRONMENT = "KATA_TEST_FAULTS"
DELAY = 0.2  # seconds
_PLAN, _SEEN = "plan", "seen"


@dataclass(frozen=True, slots=True)
class Point:
    """Where something goes wrong, and what.

    Attributes:
        place: The point's name.
        number: Which time that it is passed, from 1.
        when: `before` or `after` what is done there; `around` it for calls that wait.
        what: `kill`, `break`, `delay`, `twice`, or a fault of a cloud.
    """

    place: str
    number: int
    when: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} {self.when} {self.place} {self.number}"


@dataclass
class Faults:
    """The faults of a program.

    Attributes:
        directory: Where the plan is, and what was passed is told; None is a program without faults.
    """

    directory: Path | None = None
    _passed: Counter[str] = field(default_factory=Counter)
    _of: int = 0  # the plan that was counted for

    def plan(self, point: Point | None) -> None:
        """Have this happen next, and begin to tell anew what is passed."""
        assert self.directory is not None
        (self.directory / _SEEN).write_text("")
        replace(str(self.directory / _PLAN), json.dumps(asdict(point) if point else {}))

    def pending(self) -> bool:
        """Whether it has not happened yet."""
        assert self.directory is not None
        return (self.directory / _PLAN).exists()

    def seen(self) -> list[tuple[str, int]]:
        """What was passed since the plan was written."""
        assert self.directory is not None
        counts: Counter[str] = Counter()
        found = []
        for name in (self.directory / _SEEN).read_text().splitlines():
            counts[name] += 1
            found.append((name, counts[name]))
        return found

    def before(self, place: str) -> None:
        """A point is reached.

        Raises:
            OSError: It breaks here.
        """
        self._count(place)
        self._obey(self._due(place, "before"), place)

    def after(self, place: str) -> None:
        """It is passed.

        Raises:
            OSError: It breaks here.
        """
        self._obey(self._due(place, "after"), place)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """A point of which the inside is what is done there."""
        self.before(place)
        yield
        self.after(place)

    async def around(self, place: str, call: Callable[[], Awaitable[T]]) -> T:
        """A call that waits.

        Raises:
            ProviderError: It fails here, or its answer is lost.
        """
        self._count(place)
        self._obey(self._due(place, "before"), place)
        what = self._due(place, "around")
        if what == "delay":
            await asyncio.sleep(DELAY)
        elif what == "twice":
            await asyncio.gather(call(), call())
        elif what in {fault.value for fault in Fault}:
            raise ProviderError(Fault(what), f"{place} is refused by a test", code="Planned")
        answer = await call()
        if what == "cut":
            raise ProviderError(Fault.TRANSIENT, f"the answer to {place} is lost")
        self._obey(self._due(place, "after"), place)
        return answer

    def _count(self, place: str) -> None:
        if self.directory is None:
            return
        with suppress(FileNotFoundError):
            plan = (self.directory / _PLAN).stat().st_mtime_ns
            if plan != self._of:
                self._of = plan
                self._passed.clear()
        self._passed[place] += 1
        with (self.directory / _SEEN).open("a") as seen:
            seen.write(f"{place}\n")

    def _due(self, place: str, when: str) -> str:
        """What is to happen here and now; empty is nothing."""
        if self.directory is None:
            return ""
        try:
            content = json.loads((self.directory / _PLAN).read_text())
        except FileNotFoundError:
            return ""
        if content != asdict(Point(place, self._passed[place], when, content.get("what", ""))):
            return ""
        with suppress(FileNotFoundError):
            (self.directory / _PLAN).unlink()
            return str(content["what"])
        return ""

    def _obey(self, what: str, place: str) -> None:
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # nothing more may happen, in any thread
        elif what == "break":
            raise OSError(28, f"{place} breaks")


def faults_of_environment() -> Faults:
    """Those of this program; none without the variable."""
    path = os.environ.get(ENVIRONMENT, "")
    return Faults(Path(path) if path else None)
