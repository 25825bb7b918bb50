"""`kata-ctl metrics`: a sandbox's figures."""

from __future__ import annotations

import click

from kata_py.cli.parameters import sandbox_argument


@click.command(help="Print a sandbox's figures, as Prometheus reads them.")
@sandbox_argument
def command(sandbox: str) -> None:
    """Print a sandbox's figures."""
    from kata_py.cli import shim

    click.echo(shim.find(sandbox).request("GET", "/metrics"), nl=False)
