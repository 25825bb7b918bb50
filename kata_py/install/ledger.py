"""A manager's drop-in of ours: what was there before is on disk before anything is written, and is put back from it.

Kill -9 at any point leaves the old file or the new one, never a part, and a ledger that knows both; installing or
uninstalling again goes on from there.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kata_py.install import durable
from kata_py.install.durable import Content
from kata_py.install.errors import EditedError, InstallError

STATE = Path("/var/lib/kata-py")
VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A drop-in on record.

    Attributes:
        path: Where it is.
        before: What was there.
        ours: Digests of what we have written there, or are about to.
        made: Directories that were not there, the outermost first.
    """

    path: Path
    before: Content | None
    ours: tuple[str, ...]
    made: tuple[Path, ...]

    def is_edited(self, now: Content | None) -> bool:
        """Whether somebody else has made of the file what it is now."""
        if now is None or self.before is None:
            return now is not self.before and (now is None or digest(now.data) not in self.ours)
        return now.data != self.before.data and digest(now.data) not in self.ours


@dataclass(frozen=True, slots=True)
class Change:
    """What is, or would be, done to a file.

    Attributes:
        path: The file.
        before: What is there; None for nothing.
        after: What will be.
    """

    path: Path
    before: Content | None
    after: Content | None

    def diff(self) -> str:
        """What changes, as `diff -u` shows it."""
        before, after = (each.text.splitlines(keepends=True) if each else [] for each in (self.before, self.after))
        names = [str(self.path) if each else "/dev/null" for each in (self.before, self.after)]
        lines = difflib.unified_diff(before, after, fromfile=names[0], tofile=names[1])
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


class Ledger:
    """The drop-in of one manager.

    Args:
        manager: Its name.
        state: Where ledgers are kept.
    """

    def __init__(self, manager: str, state: Path = STATE) -> None:
        self._manager = manager
        self._state = state
        self._file = state / "install" / f"{manager}.json"

    def entry(self) -> Entry | None:
        """What is on record; None for nothing.

        Raises:
            InstallError: It cannot be read.
        """
        try:
            content = json.loads(self._file.read_bytes())
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']} is not known")
            before = content["before"]
            return Entry(
                path=Path(content["path"]),
                before=before
                and Content(
                    data=base64.b64decode(before["data"]),
                    mode=before["mode"],
                    owner=tuple(before["owner"]),
                    modified=before["modified"],
                ),
                ours=tuple(content["ours"]),
                made=tuple(map(Path, content["made"])),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InstallError(
                f"{self._file} cannot be used: {error!r}", "install with the version that wrote it"
            ) from error

    def install(self, path: Path, text: str, *, force: bool = False, dry_run: bool = False) -> Change:
        """Write the drop-in, with what was there before on record.

        Args:
            path: Where it goes.
            text: What it says.
            force: Write over what somebody else has made of it.
            dry_run: Only say what would change.

        Raises:
            EditedError: Somebody else has changed it.
            InstallError: It is installed elsewhere, or another process is at it.
            OSError: It cannot be written.
        """
        new = Content(text.encode())
        entry, change = self._change(path, new, force)
        if change.before == change.after or dry_run:
            return change
        with durable.locked(self._state):
            entry, change = self._change(path, new, force)
            until_then = [digest(change.before.data)] if change.before and change.before != entry.before else []
            self._write(replace(entry, ours=(*until_then, digest(new.data))))
            for directory in entry.made:
                directory.mkdir(mode=0o755, exist_ok=True)
            durable.replace(path, new)
            self._write(replace(entry, ours=(digest(new.data),)))
        return change

    def _change(self, path: Path, new: Content, force: bool) -> tuple[Entry, Change]:
        entry, now = self.entry(), Content.of(path)
        if entry is None:
            missing = [each for each in reversed(path.parents) if not each.exists()]
            return Entry(path, now, (), tuple(missing)), Change(path, now, new)
        if entry.path != path:
            raise InstallError(
                f"{self._manager} has the drop-in {entry.path} already",
                f"kata-ctl uninstall {self._manager}, and then install {path}",
            )
        self._refuse_edited(entry, now, force)
        same = now is not None and now.data == new.data and entry.ours == (digest(new.data),)
        return entry, Change(path, now, now if same else new)

    def uninstall(self, *, force: bool = False, dry_run: bool = False) -> Change | None:
        """Put back what was there before, byte for byte; returns None where nothing is installed.

        Args:
            force: Do so although somebody else has changed the drop-in.
            dry_run: Only say what would change.

        Raises:
            EditedError: Somebody else has changed it.
            InstallError: Another process is at it.
            OSError: It cannot be written.
        """
        if not self._state.exists():
            return None
        with durable.locked(self._state) if not dry_run else contextlib.nullcontext():
            entry = self.entry()
            change = None
            if entry is not None:
                change = Change(entry.path, Content.of(entry.path), entry.before)
                self._refuse_edited(entry, change.before, force)
            if not dry_run:
                if entry is not None:
                    _put_back(entry)
                self._strike()
        return change

    def _strike(self) -> None:
        """Forget the entry, and what a kill has left of the writing of it."""
        durable.beside(self._file).unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another manager's is there
            self._file.parent.rmdir()

    def _refuse_edited(self, entry: Entry, now: Content | None, force: bool) -> None:
        if entry.is_edited(now) and not force:
            done = "edited" if now else "removed"
            raise EditedError(
                f"{entry.path} was {done} by somebody else since it was installed; it is left as it is",
                "look at it, move what you need elsewhere, and run this with --force",
            )

    def _write(self, entry: Entry) -> None:
        before: dict[str, Any] | None = None
        if entry.before is not None:
            before = asdict(entry.before) | {"data": base64.b64encode(entry.before.data).decode()}
        content = {
            "version": VERSION,
            "path": str(entry.path),
            "before": before,
            "ours": entry.ours,
            "made": list(map(str, entry.made)),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self._file, Content(json.dumps(content, indent=1).encode(), mode=0o600))


def _put_back(entry: Entry) -> None:
    if entry.path.parent.exists():
        if entry.before is None:
            entry.path.unlink(missing_ok=True)
            durable.settle(entry.path.parent)
        else:
            durable.replace(entry.path, entry.before)
    durable.beside(entry.path).unlink(missing_ok=True)
    for directory in reversed(entry.made):
        with contextlib.suppress(OSError):  # others have put files of theirs there
            directory.rmdir()


def digest(data: bytes) -> str:
    """By what a content is known again."""
    return hashlib.sha256(data).hexdigest()
