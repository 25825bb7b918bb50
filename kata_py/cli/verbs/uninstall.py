"""`kata-ctl uninstall`: a container manager's drop-in is as it was before `kata-ctl install`."""

from __future__ import annotations

from pathlib import Path

import click

from kata_py.cli.verbs.install import CHANGES, options, report, told


@click.command(
    help="Put back what was there before `install`, byte for byte. A drop-in that somebody else has changed since is "
    "left as it is."
)
@click.argument("manager", type=click.Choice(["containerd", "crio"]))
@options(CHANGES)
def command(manager: str, dry_run: bool, force: bool, state: Path | None) -> None:
    """Uninstall."""
    from kata_py.install import ledger

    place = state or ledger.STATE
    with told(place):
        change = ledger.Ledger(manager, place).uninstall(force=force, dry_run=dry_run)
    if change is None:
        click.echo(f"nothing is installed for {manager}")
    else:
        report(manager, change, dry_run=dry_run)
