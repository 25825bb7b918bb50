"""`kata-ctl check`: whether this node can run sandboxes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kata_py.cli.output import output_option, print_json, table


@click.command(
    help="Say whether this node can run sandboxes, by what evidence, and what to do where it cannot. It exits with 3 "
    "where it cannot. WHAT is upstream's word for a part: `all` and `no-network-checks` do the same here, since "
    "nothing is asked of the network.",
)
@click.argument("what", metavar="[WHAT]", type=click.Choice(["all", "no-network-checks"]), default="all")
@click.option("--config", type=click.Path(path_type=Path), help="the configuration; else the one that the shim takes")
@click.option("--emulation", is_flag=True, help="a node without KVM will do: machines are emulated, and slow")
@click.option("--label", is_flag=True, help="print the line for Node Feature Discovery (features.d) alone")
@output_option
def command(what: str, config: Path | None, emulation: bool, label: bool, output: str) -> int:
    """Check the node; returns 0, or 3 where no sandbox runs."""
    from kata_py.node import eligibility
    from kata_py.node.check import check

    findings = check(config, emulation=emulation)
    good = eligibility.eligible(findings)
    if label:
        click.echo(eligibility.label(findings))
        return 0
    if output == "json":
        print_json({"eligible": good, "findings": [asdict(finding) for finding in findings]})
    else:
        table(["what", "", "evidence", "fix"], [[f.name, f.verdict, f.evidence, f.fix] for f in findings])
        click.echo("This node can run sandboxes." if good else "This node cannot run sandboxes.")
    return 0 if good else 3
