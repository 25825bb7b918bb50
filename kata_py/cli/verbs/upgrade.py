"""`kata-ctl upgrade`: which version new pods get, while those that run keep theirs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kata_py.cli import output as printed
from kata_py.cli.verbs.install import told

if TYPE_CHECKING:
    from kata_py.install.versions import Plan, Versions

FILE = click.Path(path_type=Path)


@click.command(
    help="Put the version of SOURCE, a bundle or the tree it unpacks to, in force for new pods. Sandboxes keep the "
    "version they started with; the one before stays for --rollback. Without SOURCE, say what is installed."
)
@click.argument("source", metavar="[SOURCE]", type=FILE, required=False)
@click.option("--plan", "only_plan", is_flag=True, help="only say what would happen")
@click.option("--rollback", is_flag=True, help="put the version before this one in force again")
@click.option("--remove", metavar="VERSION", help="remove a version that no sandbox needs")
@click.option("--home", type=FILE, help="where versions are; /opt/kata by default")
@click.option("--state", type=FILE, help="where `install` keeps what was there before")
@printed.output_option
def command(
    source: Path | None,
    only_plan: bool,
    rollback: bool,
    remove: str | None,
    home: Path | None,
    state: Path | None,
    output: str,
) -> None:
    """Upgrade, roll back, remove, or list."""
    from kata_py.install import handler, ledger, managers
    from kata_py.install.versions import Versions

    if sum((source is not None, rollback, remove is not None)) > 1:
        raise click.UsageError("one of SOURCE, --rollback and --remove")
    if only_plan and (remove or not (source or rollback)):
        raise click.UsageError("--plan is of an upgrade to SOURCE, or of a --rollback")
    place, kept = (home or handler.HOME).absolute(), state or ledger.STATE
    versions = Versions(place)
    with told(place):
        if remove:
            if versions.installed() == [remove]:
                managers.refuse_named(place, kept)
            versions.remove(remove)
            if output == "json":
                printed.print_json({"done": True, "removed": [remove]})
            else:
                click.echo(f"version {remove} is removed")
        elif rollback:
            plan = versions.plan_rollback() if only_plan else versions.roll_back()
            _show(plan, managers.restarts(place, kept), output, done=not only_plan)
        elif source:
            plan = versions.plan(source) if only_plan else versions.upgrade(source)
            _show(plan, managers.restarts(place, kept), output, done=not only_plan)
        else:
            _list(versions, output)


def _show(plan: Plan, restarts: list[str], output: str, *, done: bool) -> None:
    if output == "json":
        printed.print_json({"done": done, **asdict(plan), "restarts": restarts})
        return
    click.echo(f"new pods {'get' if done else 'would get'} {plan.target}; before: {plan.origin or 'none'}")
    if plan.unpacked:
        click.echo(f"its tree {'is' if done else 'would be'} unpacked")
    for user in plan.users:
        stays = f"stays on {user.version}" if user.version else "starts at this moment"
        hint = " until it is restarted: systemctl restart kata-monitor" if user.is_monitor else " until it ends"
        click.echo(f"{user.name}: {stays}{hint if user.version != plan.target else ''}")
    for version in plan.kept:
        click.echo(f"version {version}: stays")
    for version in plan.removed:
        click.echo(f"version {version}: {'is' if done else 'would be'} removed, nothing needs it")
    for line in restarts:
        click.echo(line)


def _list(versions: Versions, output: str) -> None:
    using = versions.users()
    roles = {versions.previous(): "previous", versions.current(): "current"}
    rows = [
        (version, roles.get(version, ""), [user.name for user in using if user.version == version])
        for version in versions.installed()
    ]
    if output == "json":
        printed.print_json([{"version": version, "role": role, "users": names} for version, role, names in rows])
        return
    cells = [(version, role, ", ".join(names)) for version, role, names in rows]
    printed.table(["version", "role", "needed by"], cells, "no version is installed side by side")
