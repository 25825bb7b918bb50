"""The runtime handlers that managers are told of, and what stands behind them on this node."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.load import SEARCHED
from kata_py.install.errors import InstallError

SHIM = "containerd-shim-kata-v2"
KATA, REMOTE = "kata", "kata-remote"
NAMES = (KATA, REMOTE)
HOME = Path("/opt/kata")

# Of `kata-remote`, where no tree of ours has one; the second is OpenShift's.
_REMOTE_SEARCHED = (
    Path("/etc/kata-containers/configuration-remote.toml"),
    Path("/opt/kata/configuration-remote.toml"),
)

_SHIM_NAME = re.compile(r"containerd-shim-[a-zA-Z0-9\-+]+")  # CRI-O's rule: `cri-o: pkg/config/config.go`


@dataclass(frozen=True, slots=True)
class Handler:
    """A runtime handler: what a RuntimeClass's `handler` names.

    Attributes:
        name: Its name.
        shim: The shim's program.
        configuration: The configuration.toml that the shim is told of.
    """

    name: str
    shim: Path
    configuration: Path

    @property
    def pulls_in_guest(self) -> bool:
        """Whether images are pulled in the machine: a peer pod's shares no files with the node."""
        return self.name == REMOTE


def find(
    names: Sequence[str] = (),
    *,
    program: Path,
    shim: Path | None = None,
    configuration: Path | None = None,
    remote_configuration: Path | None = None,
) -> list[Handler]:
    """The handlers, with programs and files that are there.

    A manager that finds one missing ignores the handler, or does not start at all.

    Args:
        names: Which; without any, `kata`, and `kata-remote` where there is a configuration for it.
        program: This program, whose tree is looked at first.
        shim: The shim's program, if not the one beside.
        configuration: Of `kata`, if not the node's own in /etc, or the tree's.
        remote_configuration: Of `kata-remote`, likewise.

    Raises:
        InstallError: One of them is missing, or the shim has a name that CRI-O does not take.
    """
    place = tree(program)
    shared = [place / "share"] if place else []
    shim = shim or _program(place)
    files = {
        KATA: configuration or _first([SEARCHED[0], *(share / "configuration.toml" for share in shared), *SEARCHED]),
        REMOTE: remote_configuration
        or _first([_REMOTE_SEARCHED[0], *(share / "configuration-remote.toml" for share in shared), *_REMOTE_SEARCHED]),
    }
    wanted = names or [name for name in NAMES if name == KATA or files[name]]
    found = []
    for name in wanted:
        option = "--configuration" if name == KATA else "--remote-configuration"
        file = _absolute(files[name], f"the configuration of {name}", option)
        found.append(Handler(name, _absolute(shim, "the shim's program", "--shim"), file))
    for handler in found:
        if not _SHIM_NAME.fullmatch(handler.shim.name):
            raise InstallError(
                f"{handler.shim} is no name for a shim: managers want {_SHIM_NAME.pattern}", f"call it {SHIM}"
            )
    return found


def tree(program: Path) -> Path | None:
    """The tree of a bundle or package that a program is in; of several versions, whichever is `current`."""
    place = program.resolve().parent.parent
    if not (place / "share" / "configuration.toml").exists():
        return None
    current = place.parent.parent / "current"
    return current if place.parent.name == "versions" and current.is_dir() else place


def _program(place: Path | None) -> Path | None:
    if place:
        return place / "bin" / SHIM
    found = shutil.which(SHIM)
    return Path(found) if found else None


def _first(candidates: Sequence[Path]) -> Path | None:
    return next((each for each in candidates if each.is_file()), None)


def _absolute(path: Path | None, what: str, option: str) -> Path:
    if path is None:
        raise InstallError(f"{what} is not found", f"say where it is: {option} FILE")
    path = Path(os.path.abspath(path))  # noqa: PTH100 `current` is to stay in it
    if not path.is_file():
        raise InstallError(f"{what}, {path}, is not there", f"say where it is: {option} FILE")
    return path
