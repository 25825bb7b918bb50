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
def command(manager: str, dry_run: bool, force: bool, state: Path | None, output: str) -> None:
    """Uninstall."""
    from kata_py.install.ledger import STATE, Ledger
    from kata_py.install.managers import LEDGERS

    place = state or STATE
    with told(place):
        kept = [Ledger(name, place) for name in LEDGERS[manager]]
        planned = [each.uninstall(force=force, dry_run=True) for each in kept]
        changes = planned if dry_run else [each.uninstall(force=force) for each in reversed(kept)]
    done = [change for change in changes if change]
    if done or output == "json":
        report(manager, done, output, dry_run=dry_run)
    else:
        click.echo(f"nothing is installed for {manager}")
