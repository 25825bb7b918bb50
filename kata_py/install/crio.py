"""CRI-O's drop-ins, one for each handler, by the names that kata and OpenShift give them.

Source: crio.conf(5), `crio.runtime.runtimes`; CRI-O reads whatever is below the directory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from kata_py.config import toml
from kata_py.install.errors import InstallError
from kata_py.install.handler import KATA, REMOTE, Handler

NAME = "crio"
MAIN = Path("/etc/crio/crio.conf")
DIRECTORY = Path("/etc/crio/crio.conf.d")
LEDGERS = {KATA: NAME, REMOTE: f"{NAME}-remote"}  # each drop-in has one of its own
RESTART = "systemctl restart crio (the pods that run stay)"

_RUNTIME_ROOT = "/run/vc"
_HEADER = "# Written by kata-ctl install crio, and taken away by kata-ctl uninstall crio.\n"


def path_of(handler: str, directory: Path = DIRECTORY) -> Path:
    """Where a handler's drop-in goes: `50-kata`, `50-kata-remote`."""
    return directory / f"50-{handler}"


def drop_in(handler: Handler) -> str:
    """A handler's drop-in."""
    keys: dict[str, object] = {
        "runtime_path": str(handler.shim),
        "runtime_type": "vm",
        "runtime_root": _RUNTIME_ROOT,
        "runtime_config_path": str(handler.configuration),
        "privileged_without_host_devices": True,
    }
    if handler.pulls_in_guest:
        keys |= {"runtime_pull_image": True, "allowed_annotations": ["io.kubernetes.cri-o.Devices"]}
    return _HEADER + toml.dumps({"crio": {"runtime": {"runtimes": {handler.name: keys}}}})


def refuse_others(
    handlers: Sequence[Handler], ours: Collection[Path] = (), directory: Path = DIRECTORY, main: Path = MAIN
) -> None:
    """See to it that nobody else's file has a handler of these names: the later one would win.

    Args:
        handlers: The handlers.
        ours: Drop-ins that are on record as ours.
        directory: Where drop-ins are.
        main: CRI-O's main file.

    Raises:
        InstallError: One has, or is no TOML.
    """
    for file in _files(directory, main):
        if file in ours:
            continue
        try:
            content = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise InstallError(f"{file} cannot be read as TOML: {error}", "CRI-O cannot read it either") from error
        theirs = content.get("crio", {}).get("runtime", {}).get("runtimes", {})
        for handler in handlers:
            if handler.name in theirs:
                raise InstallError(
                    f"{file} has a handler {handler.name} already",
                    "remove it there, or leave it out here with --handler",
                )


def _files(directory: Path, main: Path) -> Iterator[Path]:
    if main.exists():
        yield main
    if directory.is_dir():
        yield from sorted(each for each in directory.rglob("*") if each.is_file())
