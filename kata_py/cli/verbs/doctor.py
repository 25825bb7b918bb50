"""`kata-ctl doctor`: all that is wrong with this node."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kata_py.cli.output import output_option, print_json, table


@click.command(
    help="Go through node, configuration, managers, room, sandboxes, leftovers and failures, and tell what is wrong, "
    "by what evidence, and what to do next. It changes nothing, and exits with 3 where something fails."
)
@click.option("--config", type=click.Path(path_type=Path), help="the configuration; else the one that the shim takes")
@click.option("--emulation", is_flag=True, help="a node without KVM will do: machines are emulated, and slow")
@click.option("-s", "--strict", is_flag=True, help="warnings count as failures")
@click.option("-v", "--verbose", is_flag=True, help="tell what is well, too")
@output_option
def command(config: Path | None, emulation: bool, strict: bool, verbose: bool, output: str) -> int:
    """Examine the node; returns 0, or 3 where something fails."""
    import asyncio

    from kata_py.diagnosis import doctor
    from kata_py.node.eligibility import Verdict, eligible
    from kata_py.sandbox.paths import HostPaths

    parts = asyncio.run(doctor.examine(config, HostPaths(), emulation=emulation))
    found = list(doctor.findings(parts))
    good = eligible(found, strict=strict)
    if output == "json":
        told = [{"part": part.name, **asdict(each)} for part in parts for each in part.findings]
        print_json({"healthy": good, "findings": told})
        return 0 if good else 3
    rows = [
        [part.name, each.name, each.verdict, each.evidence, each.fix]
        for part in parts
        for each in part.findings
        if verbose or each.verdict is not Verdict.OK
    ]
    table(["part", "what", "", "evidence", "next"], rows, "nothing is wrong")
    counts = {verdict: sum(each.verdict is verdict for each in found) for verdict in Verdict}
    click.echo(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return 0 if good else 3
