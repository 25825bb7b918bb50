"""The container managers that can be told of us, and what a change of version means to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kata_py.install import containerd, crio
from kata_py.install.durable import Content
from kata_py.install.errors import InUseError
from kata_py.install.ledger import STATE, Ledger

RESTARTS = {containerd.NAME: containerd.RESTART, crio.NAME: crio.RESTART}
LEDGERS = {containerd.NAME: (containerd.NAME,), crio.NAME: tuple(crio.LEDGERS.values())}  # one for each drop-in


def restarts(home: Path, state: Path = STATE) -> list[str]:
    """What each manager with a drop-in of ours needs when another version becomes `current`, in words.

    Args:
        home: Where the versions are.
        state: Where ledgers are kept.

    Raises:
        InstallError: A ledger cannot be read.
    """
    lines = []
    for name, drop_in in _drop_ins(state):
        if _names(drop_in, home):
            lines.append(f"{name}: no restart; {drop_in} names {home}/current, so its next pod is of that version")
        else:
            lines.append(
                f"{name}: {drop_in} names another place, so its pods stay as they are; "
                f"run {home}/current/bin/kata-ctl install {name}"
            )
    return lines


def refuse_named(home: Path, state: Path = STATE) -> None:
    """See to it that no drop-in of ours names the versions, before the last of them goes.

    Raises:
        InUseError: One does.
        InstallError: A ledger cannot be read.
    """
    for name, drop_in in _drop_ins(state):
        if _names(drop_in, home):
            raise InUseError(f"{drop_in} has {name} start the last version", f"kata-ctl uninstall {name}")


def _drop_ins(state: Path) -> Iterator[tuple[str, Path]]:
    for manager, names in LEDGERS.items():
        for name in names:
            if entry := Ledger(name, state).entry():
                yield manager, entry.path


def _names(drop_in: Path, home: Path) -> bool:
    now = Content.of(drop_in)
    return now is not None and f'"{home}/current/bin/' in now.text
