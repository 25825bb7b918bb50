"""How long calls took, by what was called: a histogram, counted without a library that every shim would have to carry.

Families, label and buckets are kata's (`pkg/containerd-shim-v2/shim_metrics.go`, `virtcontainers/sandbox_metrics.go`).
"""

from __future__ import annotations

import functools
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool

if TYPE_CHECKING:
    from kata_py.ttrpc.client import Caller

BUCKETS = tuple(1 << power for power in range(10))  # milliseconds


class Histogram:
    """A histogram with one label, or without.

    Args:
        family: Its name.
        help: What it is, for Prometheus.
        label: The label's name; empty is none, and `add` is given an empty value.
        buckets: Their upper bounds, in the unit of what is added.
    """

    def __init__(self, family: str, help: str, label: str, buckets: Sequence[float]) -> None:
        self._family = family
        self._help = help
        self._label = label
        self._buckets = buckets
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        if not label:  # there is one row, and it is told from the beginning
            self._counts[""], self._sums[""] = [0] * (len(buckets) + 1), 0.0

    def add(self, value: str, amount: float) -> None:
        """Count an amount under a value of the label, which needs no escapes."""
        counts = self._counts.setdefault(value, [0] * (len(self._buckets) + 1))
        counts[bisect_left(self._buckets, amount)] += 1
        self._sums[value] = self._sums.get(value, 0.0) + amount

    def text(self) -> str:
        """The histogram in Prometheus' text form; empty while nothing was added."""
        if not self._counts:
            return ""
        lines = [f"# HELP {self._family} {self._help}", f"# TYPE {self._family} histogram"]
        bounds = (*map(str, self._buckets), "+Inf")
        for value in sorted(self._counts):
            label = f'{self._label}="{value}"' if self._label else ""
            first, whole = (f"{label},", f"{{{label}}}") if label else ("", "")
            below = list(accumulate(self._counts[value]))
            lines += [f'{self._family}_bucket{{{first}le="{le}"}} {n}' for le, n in zip(bounds, below, strict=True)]
            lines.append(f"{self._family}_sum{whole} {self._sums[value]:.3f}")
            lines.append(f"{self._family}_count{whole} {below[-1]}")
        return "".join(f"{line}\n" for line in lines)


class Durations:
    """The durations of one kind of call.

    Args:
        family: The histogram's name.
        help: What it is, for Prometheus.
        clock: Seconds that never go back.
    """

    def __init__(self, family: str, help: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._histogram = Histogram(family, help, "action", BUCKETS)
        self._clock = clock

    @contextmanager
    def measured(self, action: str) -> Iterator[None]:
        """Count a call, which takes as long as the context does; one that fails counts as well."""
        began = self._clock()
        try:
            yield
        finally:
            self._histogram.add(action, (self._clock() - began) * 1e3)

    def text(self) -> str:
        """The histogram in Prometheus' text form; empty before the first call."""
        return self._histogram.text()


def of_agent() -> Durations:
    """Durations of calls to an agent."""
    return Durations("kata_shim_agent_rpc_durations_histogram_milliseconds", "Time that calls to the agent took.")


def of_tasks() -> Durations:
    """Durations of the manager's calls."""
    return Durations("kata_shim_rpc_durations_histogram_milliseconds", "Time that the manager's calls took.")


class Measured:
    """A connection whose calls are measured; a `Caller`.

    Args:
        caller: The connection.
        durations: Where they are counted, by the full name of the request: `grpc.CreateSandboxRequest`.
    """

    def __init__(self, caller: Caller, durations: Durations) -> None:
        self._caller = caller
        self._durations = durations

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """As `kata_py.ttrpc.client.Client.call`."""
        with self._durations.measured(_request(service, method)):
            return await self._caller.call(service, method, payload, timeout=timeout, metadata=metadata)


@functools.cache
def _request(service: str, method: str) -> str:
    """The name of a method's request, which need not be the method's: GetGuestDetails takes a GuestDetailsRequest."""
    found = descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
    return found.input_type.full_name
