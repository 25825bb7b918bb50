"""What the sandboxes' records tell of this node: how long stages took, what is left behind, who waits to boot.

These families are ours; upstream has no such figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from kata_py.diagnosis.overview import UNREADABLE, Sandbox
from kata_py.monitor.exposition import RECORDS
from kata_py.sandbox.boots import Turns
from kata_py.sandbox.durations import Histogram

BUCKETS = tuple(4**power / 1000 for power in range(9))  # seconds, from 1 ms to 65 s

_Stage = tuple[str, str, int]  # a sandbox's id, a stage's name, when it began


class Node:
    """Figures of a node, as of the last scrape; stages are counted once, whenever they are first seen."""

    def __init__(self) -> None:
        self._stages = Histogram(
            f"{RECORDS}stage_duration_seconds", "Time that stages of sandboxes' lives took.", "stage", BUCKETS
        )
        self._counted: set[_Stage] = set()
        self._leftovers = 0
        self._turns = Turns(0, 0)

    def note(self, sandboxes: Sequence[Sandbox], turns: Turns) -> None:
        """Take in what there is now.

        Args:
            sandboxes: All of the node's.
            turns: Who boots and who waits.
        """
        ended = {
            (sandbox.id, span.name, span.began): (span.ended - span.began) / 1e9
            for sandbox in sandboxes
            for span in sandbox.timeline
            if span.ended is not None and not span.failed
        }
        for stage, seconds in ended.items():
            if stage not in self._counted:
                self._stages.add(stage[1].partition(" ")[0], seconds)  # without the container that it was of
        unread = {sandbox.id for sandbox in sandboxes if sandbox.state == UNREADABLE}  # they may be read again
        self._counted = ended.keys() | {stage for stage in self._counted if stage[0] in unread}
        self._leftovers = sum(sandbox.leftovers for sandbox in sandboxes)
        self._turns = turns

    def text(self) -> str:
        """All of them in Prometheus' text form."""
        leftovers, boots = f"{RECORDS}leftovers", f"{RECORDS}boots"
        return (
            f"# HELP {leftovers} What is still to be undone of sandboxes whose shims are gone.\n"
            f"# TYPE {leftovers} gauge\n{leftovers} {self._leftovers}\n"
            f"# HELP {boots} Machines that boot, and that wait for their turn.\n# TYPE {boots} gauge\n"
            f'{boots}{{state="booting"}} {self._turns.booting}\n{boots}{{state="queued"}} {self._turns.queued}\n'
        ) + self._stages.text()
