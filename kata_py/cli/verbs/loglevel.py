"""`kata-ctl loglevel`: how much a running sandbox's shim, and its guest's agent, log."""

from __future__ import annotations

import click

from kata_py.cli import output as printed
from kata_py.cli.parameters import sandbox_argument


@click.command(
    help="Print the level that a sandbox's shim logs at, or set it and its agent's; its pod runs on meanwhile."
)
@sandbox_argument
@click.argument("level", metavar="[LEVEL]", type=click.Choice(["debug", "info", "warning", "error"]), required=False)
@printed.output_option
def command(sandbox: str, level: str | None, output: str) -> None:
    """Print or set a level."""
    from kata_py.cli import shim

    found = shim.find(sandbox)
    if level is None:
        now, note = found.request("GET", "/log-level").decode(), ""
    else:
        now, note = "", found.request("PUT", "/log-level", level.encode()).decode()
    if output == "json":
        printed.print_json({"sandbox": found.sandbox_id, "level": level or now.strip(), "note": note.strip()})
    else:
        click.echo(now, nl=False)
        click.echo(note, nl=False, err=True)
