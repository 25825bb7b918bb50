"""Versions side by side: a tree for each below `versions`, and the link `current` to the one that new pods get.

    /opt/kata/versions/0.1.0/{bin,lib,share}
    /opt/kata/versions/0.2.0/…
    /opt/kata/current   -> versions/0.2.0
    /opt/kata/previous  -> versions/0.1.0     what a roll-back goes to

A tree appears whole by a rename and never changes; what is current changes by a rename of the link. Kill -9 at any
point leaves one of the two versions in force, and at most hidden names, which the next change removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_py.install import durable, source
from kata_py.install.errors import InstallError, InUseError
from kata_py.install.handler import HOME
from kata_py.install.source import Identity
from kata_py.install.usage import User, users
from kata_py.sandbox import record

_UNPACKED = ".new"  # in `versions`: a tree that is not whole yet
_DOOMED = ".gone-"  # in `versions`: one that is being removed
_LINKS = (_CURRENT, _PREVIOUS) = ("current", "previous")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change of the version in force comes to.

    Attributes:
        origin: The version in force; empty for none.
        target: The one that will be.
        unpacked: Whether its tree is made, and not there already.
        users: What runs from which version, and goes on with it.
        kept: Versions that stay beside it.
        removed: Versions that go, as nothing needs them.
    """

    origin: str
    target: str
    unpacked: bool
    users: tuple[User, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]


class Versions:
    """The installed versions of a node.

    Args:
        home: Where they are.
        records: Where sandboxes' records are.
    """

    def __init__(self, home: Path = HOME, records: Path = record.ROOT) -> None:
        self._home = home
        self._trees = home / "versions"
        self._records = records

    def installed(self) -> list[str]:
        """Their names, in order."""
        return sorted(each.name for each in self._trees.glob("[!.]*")) if self._trees.is_dir() else []

    def current(self) -> str:
        """The one that new pods get; empty for none."""
        return self._target(_CURRENT)

    def previous(self) -> str:
        """The one that a roll-back goes to; empty for none."""
        found = self._target(_PREVIOUS)
        return found if found != self.current() else ""

    def users(self) -> list[User]:
        """What runs from which version. Blocks."""
        return users(self._trees.resolve(), self._records)

    def plan(self, wanted: Path) -> Plan:
        """What `upgrade` would do. Blocks.

        Args:
            wanted: A bundle, or a tree.

        Raises:
            InstallError: It is neither, or its version is installed with other content.
        """
        with source.peeked(wanted) as identity:
            return self._plan(identity)

    def upgrade(self, wanted: Path) -> Plan:
        """Put a version in force for new pods, beside those in use, and keep the one before it. Blocks.

        Args:
            wanted: As in `plan`.

        Raises:
            InstallError: As in `plan`; nothing was changed.
            OSError: Something cannot be written; the version in force is as before, or the new one.
        """
        with source.peeked(wanted) as identity, self._changing():
            plan = self._plan(identity)
            if plan.unpacked:
                self._trees.mkdir(exist_ok=True)
                source.fill(wanted, self._trees / _UNPACKED, self._trees / plan.target)
                (self._trees / _UNPACKED).rename(self._trees / plan.target)
                durable.settle(self._trees)
            if plan.origin != plan.target:
                if plan.origin:
                    self._link(_PREVIOUS, plan.origin)
                self._link(_CURRENT, plan.target)
            for version in plan.removed:
                self._remove(version)
        return plan

    def _plan(self, identity: Identity) -> Plan:
        target, origin = identity.version, self.current()
        there = target in self.installed()
        if there and source.identify(self._trees / target) != identity:
            raise InstallError(
                f"version {target} is installed already, and another build of it",
                f"when nothing needs that: kata-ctl upgrade --remove {target}",
            )
        return self._change_to(target, origin if origin != target else self.previous(), unpacked=not there)

    def _change_to(self, target: str, kept: str, *, unpacked: bool = False) -> Plan:
        using = self.users()
        needed = {target, kept, *(each.version for each in using)}
        spared = any(not each.version for each in using)  # it may be any that starts at this moment
        others = [each for each in self.installed() if each != target]
        gone = () if spared else tuple(each for each in others if each not in needed)
        stay = tuple(each for each in others if each not in gone)
        return Plan(self.current(), target, unpacked, tuple(using), stay, gone)

    def plan_rollback(self) -> Plan:
        """What `roll_back` would do. Blocks.

        Raises:
            InstallError: There is no version to go back to.
        """
        previous = self.previous()
        if not previous or previous not in self.installed():
            raise InstallError(
                "there is no version to go back to",
                f"name one: kata-ctl upgrade {self._trees}/VERSION" if self.installed() else "",
            )
        plan = self._change_to(previous, self.current())
        return Plan(plan.origin, plan.target, False, plan.users, plan.kept + plan.removed, ())

    def roll_back(self) -> Plan:
        """Put the version before this one in force again; this one stays until it is removed. Blocks.

        Raises:
            InstallError: As `plan_rollback`.
            OSError: The links cannot be changed.
        """
        with self._changing():
            plan = self.plan_rollback()
            self._link(_CURRENT, plan.target)
        return plan

    def remove(self, version: str) -> None:
        """Remove a version that nothing needs; the one in force only when it is the last. Blocks.

        Raises:
            InUseError: Sandboxes are of it.
            InstallError: There is no such version, or it is in force beside others.
            OSError: It cannot be removed.
        """
        with self._changing():
            if version not in self.installed():
                raise InstallError(
                    f"no version {version} is installed; there is: {', '.join(self.installed()) or 'none'}"
                )
            if version == self.current() and self.installed() != [version]:
                raise InstallError(
                    f"version {version} is the one that new pods get", "kata-ctl upgrade --rollback, and then remove it"
                )
            if using := [each.name for each in self.users() if each.version in (version, "")]:
                raise InUseError(
                    f"version {version} is needed by {', '.join(using)}",
                    "remove it when those have ended; `kata-ctl gc` removes what dead sandboxes left",
                )
            for link in _LINKS:
                if self._target(link) == version:
                    (self._home / link).unlink()
            self._remove(version)

    def _remove(self, version: str) -> None:
        doomed = self._trees / f"{_DOOMED}{version}"
        (self._trees / version).rename(doomed)
        shutil.rmtree(doomed)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile, and nothing half done is left, of this change or a killed one."""
        with durable.locked(self._home):
            self._sweep()
            try:
                yield
            finally:
                self._sweep()

    def _sweep(self) -> None:
        for path in (*self._trees.glob(f"{_DOOMED}*"), self._trees / _UNPACKED):
            if path.exists():
                shutil.rmtree(path)
        for link in _LINKS:
            self._beside(link).unlink(missing_ok=True)
        if self._target(_PREVIOUS) == self.current():
            (self._home / _PREVIOUS).unlink(missing_ok=True)
        with suppress(OSError):  # versions are there
            self._trees.rmdir()

    def _target(self, link: str) -> str:
        try:
            return (self._home / link).readlink().name
        except OSError:
            return ""

    def _link(self, name: str, version: str) -> None:
        new = self._beside(name)
        os.symlink(f"versions/{version}", new)  # noqa: PTH211 Path.symlink_to reads the other way round
        new.rename(self._home / name)
        durable.settle(self._home)

    def _beside(self, link: str) -> Path:
        return self._home / f".{link}.new"
