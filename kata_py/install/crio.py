"""CRI-O's drop-in. Source: crio.conf(5), `crio.runtime.runtimes`; CRI-O reads whatever is below the directory."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from kata_py.config import toml
from kata_py.install.errors import InstallError
from kata_py.install.handler import Handler

NAME = "crio"
MAIN = Path("/etc/crio/crio.conf")
DROP_IN = Path("/etc/crio/crio.conf.d/50-kata")
RESTART = "systemctl restart crio (the pods that run stay)"

_RUNTIME_ROOT = "/run/vc"
_HEADER = "# Written by kata-ctl install crio, and taken away by kata-ctl uninstall crio.\n"


def drop_in(handlers: Sequence[Handler]) -> str:
    """The drop-in's text."""
    runtimes: dict[str, object] = {}
    for handler in handlers:
        keys: dict[str, object] = {
            "runtime_path": str(handler.shim),
            "runtime_type": "vm",
            "runtime_root": _RUNTIME_ROOT,
            "runtime_config_path": str(handler.configuration),
            "privileged_without_host_devices": True,
        }
        if handler.pulls_in_guest:
            keys |= {"runtime_pull_image": True, "allowed_annotations": ["io.kubernetes.cri-o.Devices"]}
        runtimes[handler.name] = keys
    return _HEADER + toml.dumps({"crio": {"runtime": {"runtimes": runtimes}}})


def refuse_others(path: Path, handlers: Sequence[Handler], main: Path = MAIN) -> None:
    """See to it that no other file has a handler of these names: the later one would win.

    Raises:
        InstallError: One has, or is no TOML.
    """
    for file in _files(path, main):
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


def _files(path: Path, main: Path) -> Iterator[Path]:
    if main.exists():
        yield main
    if path.parent.is_dir():
        yield from sorted(each for each in path.parent.rglob("*") if each.is_file() and each != path)
