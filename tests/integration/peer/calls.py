"""Faults at the calls that reach a cloud's server in this process, of an adaptor that runs in another one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.drivers.faults import DELAY, Point
from tests.moto import Ec2Server, Refusal


@dataclass
class CallFaults:
    """The faults of a server's calls; each call is a point, named by its action and by what it is asked for.

    Attributes:
        victim: Gives the adaptor's process.
    """

    victim: Callable[[], int] = lambda: 0
    _plan: Point | None = None
    _passed: Counter[str] = field(default_factory=Counter)
    _seen: list[tuple[str, int]] = field(default_factory=list)
    _here: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, point: Point | None) -> None:
        """Have this happen next, and begin to tell anew what is passed."""
        with self._lock:
            self._plan = point
            self._passed.clear()
            self._seen = []

    def pending(self) -> bool:
        """Whether it has not happened yet."""
        return self._plan is not None

    def seen(self) -> list[tuple[str, int]]:
        """What was passed since the plan was made."""
        with self._lock:
            return list(self._seen)

    def at(self, ec2: Ec2Server) -> None:
        """Have them at a server's calls."""
        ec2.before, ec2.times, ec2.after = self._before, self._times, self._after

    def _before(self, action: str, parameters: Mapping[str, str]) -> None:
        by = parameters.get("Filter.1.Name", "")
        place = f"{action} by {by}" if by else action
        with self._lock:
            self._passed[place] += 1
            self._here.point = place, self._passed[place]
            self._seen.append(self._here.point)
        match self._due("before"), self._due("around", "delay", "refuse"):
            case "kill", _:
                self._kill()
            case _, "delay":
                time.sleep(DELAY)
            case _, "refuse":
                raise Refusal("InternalError", status=500)

    def _times(self, action: str, parameters: Mapping[str, str]) -> int:
        return 2 if self._due("around", "twice") else 1

    def _after(self, action: str, parameters: Mapping[str, str]) -> None:
        if self._due("after"):
            self._kill()
        if self._due("around", "cut"):
            raise ConnectionError

    def _due(self, when: str, *whats: str) -> str:
        """What is to happen here and now; empty is nothing."""
        with self._lock:
            plan = self._plan
            if plan is None or (plan.place, plan.number) != self._here.point or plan.when != when:
                return ""
            if whats and plan.what not in whats:
                return ""
            self._plan = None
            return plan.what

    def _kill(self) -> None:
        """Kill the adaptor; it gets no answer."""
        os.kill(self.victim(), signal.SIGKILL)
        raise ConnectionError
