"""`kata-ctl check`: whether this node can run sandboxes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kata_py.cli.errors import CtlError
from kata_py.cli.output import output_option, print_json, table

_LISTS = ("only-list-releases", "include-all-releases")
_WORDS = click.Choice(["all", "no-network-checks", "check-version-only", "list", *_LISTS])


@click.command(
    help="Say whether this node can run sandboxes, by what evidence, and what to do where it cannot. It exits with 3 "
    "where it cannot. WHAT is upstream's word for a part: `all`, and `no-network-checks`, which is the same here, "
    "since nothing is asked of the network; `check-version-only`: the programs' versions; `list`: what is looked at.",
)
@click.argument("what", metavar="[WHAT]", type=_WORDS, default="all")
@click.option("--config", type=click.Path(path_type=Path), help="the configuration; else the one that the shim takes")
@click.option("--emulation", is_flag=True, help="a node without KVM will do: machines are emulated, and slow")
@click.option("--label", is_flag=True, help="print the line for Node Feature Discovery (features.d) alone")
@click.option("-s", "--strict", is_flag=True, help="warnings count as failures")
@click.option("--check-version-only", "versions_only", is_flag=True, help="as the word: the programs' versions alone")
@click.option("--list", "listed", is_flag=True, help="as the word: what is looked at")
@click.option("-n", "--no-network-checks", is_flag=True, help="for scripts of upstream's: there are none")
@click.option("-v", "--verbose", is_flag=True, help="for scripts of upstream's: all evidence is printed anyway")
@click.option("--only-list-releases", "releases", is_flag=True, hidden=True)
@click.option("--include-all-releases", "all_releases", is_flag=True, hidden=True)
@output_option
def command(
    what: str,
    config: Path | None,
    emulation: bool,
    label: bool,
    strict: bool,
    versions_only: bool,
    listed: bool,
    no_network_checks: bool,
    verbose: bool,
    releases: bool,
    all_releases: bool,
    output: str,
) -> int:
    """Check the node; returns 0, or 3 where no sandbox runs."""
    from kata_py.node import eligibility
    from kata_py.node.check import CHECKS, check, versions

    if releases or all_releases or what in _LISTS:
        raise CtlError(
            "releases are not listed: kata-ctl asks nothing of the network",
            "ask the package index or the distribution that kata-py came from; kata-ctl version tells this one",
        )
    if listed or what == "list":
        if output == "json":
            print_json(CHECKS)
        else:
            table(["what", "is looked at"], list(CHECKS.items()))
        return 0
    part = versions_only or what == "check-version-only"
    findings = versions(config) if part else check(config, emulation=emulation)
    good = eligibility.eligible(findings, strict=strict)
    if label:
        click.echo(eligibility.label(findings, strict=strict))
        return 0
    if output == "json":
        print_json({"eligible": good, "findings": [asdict(finding) for finding in findings]})
        return 0 if good else 3
    table(["what", "", "evidence", "fix"], [[f.name, f.verdict, f.evidence, f.fix] for f in findings])
    if not part:
        click.echo("This node can run sandboxes." if good else "This node cannot run sandboxes.")
    return 0 if good else 3
