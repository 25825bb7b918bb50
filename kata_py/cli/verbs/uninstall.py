"""`kata-ctl uninstall`: a container manager's drop-in is as it was before `kata-ctl install`."""

from __future__ import annotations

from pathlib import Path

import click

from kata_py.cli.errors import CtlError
from kata_py.cli.verbs.install import CHANGES, options, report


@click.command(
    help="Put back what was there before `install`, byte for byte. A drop-in that somebody else has changed since is "
    "left as it is."
)
@click.argument("manager", type=click.Choice(["containerd", "crio"]))
@options(CHANGES)
def command(manager: str, dry_run: bool, force: bool, state: Path | None) -> None:
    """Uninstall."""
    from kata_py.install import ledger
    from kata_py.install.errors import InstallError
    from kata_py.install.managers import RESTARTS

    try:
        change = ledger.Ledger(manager, state or ledger.STATE).uninstall(force=force, dry_run=dry_run)
    except InstallError as error:
        raise CtlError(error.cause, error.hint) from error
    except OSError as error:
        raise CtlError(f"{error.filename}: {error.strerror or error}") from error
    if change is None:
        click.echo(f"nothing is installed for {manager}")
    else:
        report(change, RESTARTS[manager], dry_run=dry_run)
