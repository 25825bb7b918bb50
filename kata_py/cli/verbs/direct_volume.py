"""`kata-ctl direct-volume`: volumes handed to machines as disks.

What a command needs may stand by itself, as kata-ctl has it, or behind its flag, as kata-runtime has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kata_py.cli.errors import CtlError

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = click.IntRange(1, (1 << 63) - 1)


@click.group(help="Volumes handed to machines as disks.")
def command() -> None:
    """The group."""


def _volume_path(function: F) -> F:
    flag = click.option("--volume-path", "path_flag", metavar="VOLUME_PATH", help="what pods name the volume by")
    return click.argument("path", metavar="[VOLUME_PATH]", required=False)(flag(function))


@command.command(help="Describe a volume, as storage drivers do.")
@_volume_path
@click.argument("mount_info", metavar="[MOUNT_INFO]", required=False)
@click.option("--mount-info", "mount_info_flag", metavar="MOUNT_INFO", help="its disk and file system, in JSON")
def add(path: str | None, path_flag: str | None, mount_info: str | None, mount_info_flag: str | None) -> None:
    """Describe a volume."""
    from kata_py.cli import direct_volume

    direct_volume.add(_path(path, path_flag), _either("mount info", mount_info, mount_info_flag))


@command.command(help="Forget a volume.")
@_volume_path
def remove(path: str | None, path_flag: str | None) -> None:
    """Forget a volume."""
    from kata_py.cli import direct_volume

    direct_volume.remove(_path(path, path_flag))


@command.command(help="How full a volume in use is, in JSON.")
@_volume_path
def stats(path: str | None, path_flag: str | None) -> None:
    """Tell how full a volume is."""
    from kata_py.cli import direct_volume

    click.echo(direct_volume.stats(_path(path, path_flag)))


@command.command(help="Make a volume in use larger; sizes are in bytes.")
@_volume_path
@click.argument("size", metavar="[BYTES]", type=_SIZE, required=False)
@click.option("--size", "size_flag", metavar="BYTES", type=_SIZE, help="how large it shall be")
def resize(path: str | None, path_flag: str | None, size: int | None, size_flag: int | None) -> None:
    """Make a volume larger."""
    from kata_py.cli import direct_volume

    direct_volume.resize(_path(path, path_flag), _either("size", size, size_flag))


def _path(bare: str | None, flag: str | None) -> str:
    return _either("volume path", bare, flag)


V = TypeVar("V", str, int)


def _either(what: str, bare: V | None, flag: V | None) -> V:
    spelling = f"--{what.replace(' ', '-')}"
    if bare is not None and flag is not None:
        # With the flag for what comes first, the first bare word is what comes next.
        raise CtlError(f"{what} is given twice: {bare} and {spelling} {flag}", "give one of them")
    value = flag if bare is None else bare
    if value is None:
        raise CtlError(f"{what} is missing", f"give it by itself, or as {spelling}")
    return value
