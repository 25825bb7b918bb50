"""`kata-ctl version`."""

from __future__ import annotations

import click

from kata_py.cli import output as printed


@click.command(help="Say what this is.")
@click.option("--json", "as_json", is_flag=True, help="as -o json")
@printed.output_option
def command(as_json: bool, output: str) -> None:
    """Print name and version."""
    from kata_py.node.environment import version

    found = version()
    if as_json or output == "json":
        printed.print_json({"name": "kata-ctl", "version": found})
    else:
        click.echo(f"kata-ctl (kata-py) {found}")
