"""`kata-ctl cp`: files into a container and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kata_py.cli.errors import CtlError
from kata_py.cli.parameters import CopyPlace

if TYPE_CHECKING:
    from kata_py.cli.copying import Place
    from kata_py.cli.shim import Shim
    from kata_py.ttrpc.address import Address


@click.command(
    help="Copy a file or directory from SRC to DST, one of which is SANDBOX:CONTAINER:/PATH, or SANDBOX:/PATH of the "
    "guest itself, which needs the debug console. SANDBOX is an id or the beginning of it, or a pod's name; CONTAINER "
    "likewise. Modes are kept, owners are not. The container needs tar."
)
@click.argument("src", type=CopyPlace())
@click.argument("dst", type=CopyPlace())
def command(src: str, dst: str) -> None:
    """Copy."""
    from kata_py.cli import copying, shim

    def warn(text: str) -> None:
        click.echo(f"kata-ctl: {text}", err=True)

    source, target = copying.place(src), copying.place(dst)
    match source, target:
        case copying.Place(container=""), Path():
            copying.out_of_guest(_console(shim.find(source.sandbox)), source.path, target, warn)
        case copying.Place(), Path():
            found = shim.find(source.sandbox)
            copying.out_of(found, _container(found, source), source.path, target, warn)
        case Path(), copying.Place(container=""):
            copying.into_guest(_console(shim.find(target.sandbox)), source, target.path, warn)
        case Path(), copying.Place():
            found = shim.find(target.sandbox)
            copying.into(found, _container(found, target), source, target.path, warn)
        case Path(), Path():
            raise CtlError("neither side is in a sandbox", "write one of them as SANDBOX:CONTAINER:/PATH")
        case _:
            raise CtlError("both sides are in sandboxes", "copy to this host, and from there")


def _console(shim: Shim) -> Address:
    """The debug console of a sandbox's guest."""
    from kata_py.cli import console

    return console.address_of(shim.request("GET", "/agent-url").decode())


def _container(shim: Shim, place: Place) -> str:
    """A container's id, by that or by its name in the pod."""
    from kata_py.diagnosis import collection
    from kata_py.sandbox.paths import HostPaths

    named = [
        each.id
        for each in collection.containers(HostPaths())
        if each.sandbox == shim.sandbox_id and each.name == place.container
    ]
    return named[0] if len(named) == 1 else place.container
