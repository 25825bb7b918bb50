"""`kata-ctl install`: the runtime handlers of this node's container manager."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, Unpack

import click

from kata_py.cli import output as printed
from kata_py.cli.errors import CtlError

if TYPE_CHECKING:
    from kata_py.install.handler import Handler
    from kata_py.install.ledger import Change, Ledger

DropIn: TypeAlias = "tuple[Ledger, Path, str]"  # where it is put on record, where it goes, what it says

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)

HANDLERS = [
    click.option("--handler", "names", multiple=True, help="only this one: kata, or kata-remote; may be given twice"),
    click.option("--shim", type=FILE, help="the shim's program, if not the one beside kata-ctl"),
    click.option("--configuration", type=FILE, help="of kata, if not the node's in /etc or the one beside kata-ctl"),
    click.option("--remote-configuration", type=FILE, help="of kata-remote, likewise"),
]
CHANGES = [
    click.option("--dry-run", is_flag=True, help="only show what would change"),
    click.option("--force", is_flag=True, help="although somebody else has changed the drop-in since"),
    click.option("--state", type=FILE, help="where it is kept what was there before; /var/lib/kata-py by default"),
    printed.output_option,
]


class Wishes(TypedDict):
    """What the options of both lists say."""

    names: tuple[str, ...]
    shim: Path | None
    configuration: Path | None
    remote_configuration: Path | None
    dry_run: bool
    force: bool
    state: Path | None
    output: str


def options(several: list[Callable[[F], F]]) -> Callable[[F], F]:
    """Give a command several options, in their order."""

    def decorate(function: F) -> F:
        for option in reversed(several):
            function = option(function)
        return function

    return decorate


@contextmanager
def told(place: Path) -> Iterator[None]:
    """What installing fails with becomes what a person is told; an error that names no file is of this place."""
    from kata_py.install.errors import InstallError

    try:
        yield
    except InstallError as error:
        raise CtlError(error.cause, error.hint) from error
    except OSError as error:
        raise CtlError(f"{error.filename or place}: {error.strerror or error}") from error


@click.group(
    help="Tell this node's container manager of our handlers, by drop-ins of their own: no other file is changed."
)
def command() -> None:
    """The group."""


@command.command(help="Write containerd's drop-in, after containerd itself has shown that it adds our handlers alone.")
@options(HANDLERS)
@click.option("--annotation", "annotations", multiple=True, help="pods' annotations that reach the shim, as a pattern")
@click.option("--containerd-config", "main", type=FILE, help="its main file; /etc/containerd/config.toml by default")
@click.option("--drop-in", type=FILE, help="the drop-in; /etc/containerd/conf.d/50-kata.toml by default")
@click.option("--containerd", "program", default="containerd", show_default=True, help="its program")
@options(CHANGES)
def containerd(
    annotations: tuple[str, ...], main: Path | None, drop_in: Path | None, program: str, **wishes: Unpack[Wishes]
) -> None:
    """Install for containerd."""
    from kata_py.install import containerd as manager
    from kata_py.install.ledger import Ledger

    path = (drop_in or manager.DROP_IN).absolute()

    def drop_ins(handlers: list[Handler], state: Path) -> Iterator[DropIn]:
        node = manager.Containerd((main or manager.MAIN).absolute(), path, program)
        yield Ledger(manager.NAME, state), path, node.drop_in(handlers, annotations or manager.ANNOTATIONS)

    _install(manager.NAME, path, drop_ins, wishes)


@command.command(help="Write CRI-O's drop-ins, one for each handler: 50-kata and 50-kata-remote.")
@options(HANDLERS)
@click.option("--crio-config", "main", type=FILE, help="its main file; /etc/crio/crio.conf by default")
@click.option("--drop-ins", "directory", type=FILE, help="their directory; /etc/crio/crio.conf.d by default")
@options(CHANGES)
def crio(main: Path | None, directory: Path | None, **wishes: Unpack[Wishes]) -> None:
    """Install for CRI-O."""
    from kata_py.install import crio as manager
    from kata_py.install.ledger import Ledger

    place = (directory or manager.DIRECTORY).absolute()

    def drop_ins(handlers: list[Handler], state: Path) -> Iterator[DropIn]:
        entries = [Ledger(name, state).entry() for name in manager.LEDGERS.values()]
        manager.refuse_others(handlers, {entry.path for entry in entries if entry}, place, main or manager.MAIN)
        for handler in handlers:
            ledger = Ledger(manager.LEDGERS[handler.name], state)
            yield ledger, manager.path_of(handler.name, place), manager.drop_in(handler)

    _install(manager.NAME, place, drop_ins, wishes)


def _install(
    manager: str, place: Path, drop_ins: Callable[[list[Handler], Path], Iterable[DropIn]], wishes: Wishes
) -> None:
    from kata_py.install import handler, ledger

    names, dry_run = wishes["names"], wishes["dry_run"]
    if unknown := set(names) - set(handler.NAMES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the handlers are {' and '.join(handler.NAMES)}")
    with told(place):
        handlers = handler.find(
            names,
            program=Path(sys.argv[0]),
            shim=wishes["shim"],
            configuration=wishes["configuration"],
            remote_configuration=wishes["remote_configuration"],
        )
        wanted = list(drop_ins(handlers, wishes["state"] or ledger.STATE))
        changes = [kept.install(path, text, force=wishes["force"], dry_run=True) for kept, path, text in wanted]
        if not dry_run:  # none is written before all can be
            changes = [kept.install(path, text, force=wishes["force"]) for kept, path, text in wanted]
    left_out = [name for name in handler.NAMES if name not in {each.name for each in handlers}]
    report(manager, changes, wishes["output"], dry_run=dry_run, left_out=() if names else left_out)


def report(
    manager: str, changes: Sequence[Change], output: str, *, dry_run: bool, left_out: Sequence[str] = ()
) -> None:
    """Print what changes, and what has to be restarted for it.

    Args:
        manager: Whose drop-ins they are.
        changes: What becomes of each.
        output: For whom: `table` or `json`.
        dry_run: Whether nothing was done.
        left_out: Handlers that have no configuration on this node.
    """
    from kata_py.install.managers import RESTARTS

    real = [change for change in changes if change.before != change.after]
    if output == "json":
        told = [{"path": str(each.path), "changes": each in real, "diff": each.diff()} for each in changes]
        restart = RESTARTS[manager] if real else ""
        printed.print_json({"done": not dry_run, "files": told, "restart": restart, "left_out": list(left_out)})
        return
    if left_out:
        click.echo(f"{' and '.join(left_out)} is left out: no configuration for it is found on this node")
    for change in changes:
        if change in real:
            click.echo(change.diff(), nl=False)
        else:
            click.echo(f"{change.path}: nothing changes")
    if real:
        click.echo(f"{'would be' if dry_run else 'is'} in force after: {RESTARTS[manager]}")
