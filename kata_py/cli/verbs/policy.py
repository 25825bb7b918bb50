"""`kata-ctl policy`: what a guest's agent lets pass."""

from __future__ import annotations

import click

from kata_py.cli.parameters import content, sandbox_option


@click.group(help="What a guest's agent lets pass.")
def command() -> None:
    """The group."""


@command.command("set", help="Put the policy of FILE in force, in Rego; - is stdin.")
@sandbox_option
@click.argument("file")
def replace(sandbox: str, file: str) -> None:
    """Put a policy in force."""
    from kata_py.cli import shim

    shim.find(sandbox).request("PUT", "/policy", content(file))
