"""`kata-ctl env`: what this node's sandboxes are made of and on."""

from __future__ import annotations

from pathlib import Path

import click

from kata_py.cli.errors import CtlError
from kata_py.cli.parameters import source


@click.command(help="Print versions, paths and settings of what sandboxes are made of, and the host, as TOML.")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
@click.option("-o", "--output", type=click.Choice(["toml", "json"]), default="toml", show_default=True)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="write to this file instead")
@click.option("--config", type=click.Path(path_type=Path), help="the configuration; else the one that the shim takes")
def command(as_json: bool, output: str, file: Path | None, config: Path | None) -> None:
    """Print the environment."""
    import json

    from kata_py.config import toml
    from kata_py.config.errors import ConfigurationError
    from kata_py.config.load import load
    from kata_py.node.environment import environment

    try:
        found = environment(load(source(config)))
    except ConfigurationError as error:
        raise CtlError(str(error), "see all that is wrong: kata-ctl config check") from error
    text = json.dumps(found, indent=2) + "\n" if as_json or output == "json" else toml.dumps(found).lstrip()
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise CtlError(f"{file} cannot be written: {error.strerror}") from error
