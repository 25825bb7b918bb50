"""`kata-ctl version`."""

from __future__ import annotations

import json

import click


@click.command(help="Say what this is.")
@click.option("--json", "as_json", is_flag=True, help="for programs")
def command(as_json: bool) -> None:
    """Print name and version."""
    from kata_py.node.environment import version

    found = version()
    click.echo(json.dumps({"name": "kata-ctl", "version": found}) if as_json else f"kata-ctl (kata-py) {found}")
