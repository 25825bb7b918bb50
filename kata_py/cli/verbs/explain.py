"""`kata-ctl explain`: why a pod failed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kata_py.cli import output as printed
from kata_py.cli.errors import CtlError
from kata_py.cli.parameters import Pod

if TYPE_CHECKING:
    from kata_py.diagnosis.verdict import Verdict


@click.command(
    help="Say what failed of a pod, at which stage, with which evidence, why, and what to do next. POD is a sandbox's "
    "id or the beginning of it, or the pod's name, with its namespace (NAMESPACE/NAME) or without. The latest counts."
)
@click.argument("pod", metavar="POD", type=Pod())
@printed.output_option
def command(pod: str, output: str) -> int:
    """Explain a failure."""
    from kata_py.diagnosis import evidence, journal
    from kata_py.diagnosis.overview import DEAD
    from kata_py.diagnosis.verdict import judge
    from kata_py.sandbox.paths import HostPaths

    paths = HostPaths()
    failures, present = evidence.failures_of(pod, paths), evidence.present(pod, paths)
    if not failures:
        if not present:
            raise CtlError(
                f"no sandbox and no failure on this node is called {pod!r}",
                "see kata-ctl ps, and the manager's log: it alone knows of pods that never came to a shim",
            )
        if output == "json":
            printed.print_json({"sandbox": present[0].id, "state": present[0].state, "failure": None})
        else:
            click.echo(f"sandbox {present[0].id} is {present[0].state}; no failure of it is known")
        return 0 if present[0].state != DEAD else 3
    verdict = judge(failures[0], journal.lines_of(failures[0]))
    if output == "json":
        printed.print_json(asdict(verdict) | {"now": present[0].state if present else None})
    else:
        now = f"\n{'now':<9} sandbox {present[0].id} of it is {present[0].state}" if present else ""
        click.echo(_text(verdict) + now)
    return 3


def _text(verdict: Verdict) -> str:
    import datetime

    spent = "" if verdict.elapsed is None else f", after {verdict.elapsed:.1f} s"
    if verdict.elapsed is not None and verdict.budget is not None:
        spent += f" of {verdict.budget:g} s"
    when = datetime.datetime.fromtimestamp(verdict.at, datetime.UTC).isoformat(" ", "seconds")
    rows = [
        ("pod", verdict.pod),
        ("sandbox", verdict.sandbox),
        ("when", when),
        ("failed", verdict.what),
        ("stage", f"{verdict.stage}{spent}"),
        ("cause", f"{verdict.code} {verdict.cause}: {verdict.meaning}"),
        ("said", verdict.said),
        *(("evidence" if number == 0 else "", line) for number, line in enumerate(verdict.evidence)),
        *(("journal" if number == 0 else "", line) for number, line in enumerate(verdict.journal)),
        ("next", verdict.next),
    ]
    return "\n".join(f"{name:<9} {printed.printable(value)}" for name, value in rows)
