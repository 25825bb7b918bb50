"""`kata-ctl loglevel`: how much a running sandbox's shim, and its guest's agent, log."""

from __future__ import annotations

import click

from kata_py.cli.parameters import sandbox_argument


@click.command(
    help="Print the level that a sandbox's shim logs at, or set it and its agent's; its pod runs on meanwhile."
)
@sandbox_argument
@click.argument("level", metavar="[LEVEL]", type=click.Choice(["debug", "info", "warning", "error"]), required=False)
def command(sandbox: str, level: str | None) -> None:
    """Print or set a level."""
    from kata_py.cli import shim

    found = shim.find(sandbox)
    if level is None:
        click.echo(found.request("GET", "/log-level"), nl=False)
    else:
        click.echo(found.request("PUT", "/log-level", level.encode()), nl=False, err=True)
