"""`kata-ctl iptables`: packet filter rules in a guest."""

from __future__ import annotations

import click

from kata_py.cli.output import print_guests
from kata_py.cli.parameters import content, sandbox_option


@click.group(help="Packet filter rules in a guest.")
def command() -> None:
    """The group."""


@command.command(help="Print a guest's rules, as iptables-save does.")
@sandbox_option
@click.option("--v6", is_flag=True, help="those of IPv6")
def get(sandbox: str, v6: bool) -> None:
    """Print a guest's rules."""
    from kata_py.cli import shim

    print_guests(shim.find(sandbox).request("GET", _target(v6)))


@command.command("set", help="Replace a guest's rules by FILE's, which are as iptables-save writes them; - is stdin.")
@sandbox_option
@click.option("--v6", is_flag=True, help="those of IPv6")
@click.argument("file")
def replace(sandbox: str, v6: bool, file: str) -> None:
    """Replace a guest's rules."""
    from kata_py.cli import shim

    shim.find(sandbox).request("PUT", _target(v6), content(file))


def _target(v6: bool) -> str:
    return "/ip6tables" if v6 else "/iptables"
