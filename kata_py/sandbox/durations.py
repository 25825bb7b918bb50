"""How long calls took, by what was called: a histogram, counted without a library that every shim would have to carry.

Families, label and buckets are kata's (`pkg/containerd-shim-v2/shim_metrics.go`, `virtcontainers/sandbox_metrics.go`).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_py.ttrpc.client import Caller

BUCKETS = tuple(1 << power for power in range(10))  # milliseconds

# Where a request of the agent's is called otherwise than its method.
_REQUESTS = {
    "GetVolumeStats": "VolumeStats",
    "ReadStderr": "ReadStream",
    "ReadStdout": "ReadStream",
    "WriteStdin": "WriteStream",
}


class Durations:
    """The durations of one kind of call.

    Args:
        family: The histogram's name.
        help: What it is, for Prometheus.
        clock: Seconds that never go back.
    """

    def __init__(self, family: str, help: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._family = family
        self._help = help
        self._clock = clock
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    @contextmanager
    def measured(self, action: str) -> Iterator[None]:
        """Count a call, which takes as long as the context does; one that fails counts as well."""
        began = self._clock()
        try:
            yield
        finally:
            took = (self._clock() - began) * 1e3
            counts = self._counts.setdefault(action, [0] * (len(BUCKETS) + 1))
            counts[bisect_left(BUCKETS, took)] += 1
            self._sums[action] = self._sums.get(action, 0.0) + took

    def text(self) -> str:
        """The histogram in Prometheus' text form; empty before the first call."""
        if not self._counts:
            return ""
        lines = [f"# HELP {self._family} {self._help}", f"# TYPE {self._family} histogram"]
        for action in sorted(self._counts):
            label = f'action="{action}"'
            below = list(accumulate(self._counts[action]))
            bounds = (*map(str, BUCKETS), "+Inf")
            lines += [f'{self._family}_bucket{{{label},le="{le}"}} {n}' for le, n in zip(bounds, below, strict=True)]
            lines.append(f"{self._family}_sum{{{label}}} {self._sums[action]:.3f}")
            lines.append(f"{self._family}_count{{{label}}} {below[-1]}")
        return "".join(f"{line}\n" for line in lines)


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
        durations: Where they are counted, by the name of the request: `grpc.CreateSandboxRequest`.
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
        with self._durations.measured(f"grpc.{_REQUESTS.get(method, method)}Request"):
            return await self._caller.call(service, method, payload, timeout=timeout, metadata=metadata)
