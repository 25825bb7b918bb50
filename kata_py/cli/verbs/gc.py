"""`kata-ctl gc`: what sandboxes left behind whose shims died."""

from __future__ import annotations

from dataclasses import asdict

import click

from kata_py.cli import output as printed
from kata_py.cli.errors import CtlError


@click.command(
    help="Remove what sandboxes left behind that have neither shim nor bundle any more, as their records prove. "
    "A sandbox whose bundle is still there is its manager's to delete, and left alone."
)
@click.option("--dry-run", is_flag=True, help="only print what would be undone")
@printed.output_option
def command(dry_run: bool, output: str) -> None:
    """Collect garbage."""
    from kata_py.diagnosis import garbage
    from kata_py.sandbox.paths import HostPaths

    paths = HostPaths()
    gone, left = ([], garbage.forsaken(paths)) if dry_run else garbage.collect(paths)
    if output == "json":
        printed.print_json({"dry_run": dry_run, "gone": list(map(asdict, gone)), "left": list(map(asdict, left))})
    else:
        verdict = {True: "would be undone", False: "could not be undone"}[dry_run]
        rows = [(each.id, entry, "undone") for each in gone for entry in each.entries or ("its record",)]
        rows += [(each.id, entry, verdict) for each in left for entry in each.entries or ("its record",)]
        printed.table(["sandbox", "entry", "result"], rows, "nothing is left behind")
    if left and not dry_run:
        ids = ", ".join(each.id for each in left)
        raise CtlError(f"not all is gone of {ids}", "remove what holds the entries that are listed, and run it again")
