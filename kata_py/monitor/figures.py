"""The monitor's figures of itself. Names are kata's (`src/runtime/pkg/kata-monitor/metrics.go`).

Those of the process are prometheus-client's, where it has what Go's client has. The others are written here, because
prometheus-client would call the counters `..._total`, as OpenMetrics has it.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from kata_py.monitor.exposition import OWN
from kata_py.monitor.node import Node
from kata_py.sandbox.durations import BUCKETS, Histogram


class Figures:
    """What the monitor counts.

    Attributes:
        running: Shims that run, of the last scrape.
        node: What the sandboxes' records tell, of the last scrape.
    """

    def __init__(self) -> None:
        self.running = 0
        self.node = Node()
        self._scrapes = 0
        self._failures = 0
        name = f"{OWN}scrape_durations_histogram_milliseconds"
        self._durations = Histogram(name, "Time that scrapes took.", "", BUCKETS)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(namespace=OWN.rstrip("_"), registry=self._process)

    def scraped(self, seconds: float) -> None:
        """Count a scrape, which took so long."""
        self._scrapes += 1
        self._durations.add("", seconds * 1e3)

    def failed(self) -> None:
        """Count a shim that did not tell its figures."""
        self._failures += 1

    def text(self) -> str:
        """All of them in Prometheus' text form; reads `/proc`."""
        return "".join(
            (
                generate_latest(self._process).decode(),
                _family("running_shim_count", "gauge", "Shims that run, one a sandbox.", self.running),
                _family("scrape_count", "counter", "Scrapes so far.", self._scrapes),
                _family(
                    "scrape_failed_count", "counter", "Shims that failed to answer, in all scrapes.", self._failures
                ),
                self._durations.text(),
                self.node.text(),
            )
        )


def _family(name: str, type: str, help: str, value: int) -> str:
    return f"# HELP {OWN}{name} {help}\n# TYPE {OWN}{name} {type}\n{OWN}{name} {value}\n"
