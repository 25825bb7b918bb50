"""What sandboxes left behind whose shims died: shown, or removed. The record alone says what is ours."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kata_py.resource.undo import RemoveFile
from kata_py.sandbox import shims
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.sweep import is_forsaken, sweep


@dataclass(frozen=True, slots=True)
class Garbage:
    """What one sandbox left behind.

    Attributes:
        id: The sandbox's id.
        manager: The manager's namespace.
        entries: What its record says is to be undone, newest first: the order it is undone in.
    """

    id: str
    manager: str
    entries: tuple[str, ...]


def forsaken(paths: HostPaths) -> list[Garbage]:
    """The sandboxes that have neither shim nor bundle any more; a record that cannot be read proves nothing.

    Raises:
        PermissionError: This user may not look at all of them.
    """
    found: dict[str, Garbage] = {}
    for directory in sorted(paths.records.iterdir()) if paths.records.is_dir() else ():
        try:
            record = Record.load(directory.name, root=paths.records)
        except PermissionError:
            raise  # "nothing is left behind" would be a guess
        except (SandboxError, OSError):
            continue
        if is_forsaken(record):
            found[record.id] = Garbage(record.id, record.namespace, tuple(map(str, reversed(record.undo))))
    for id, path in shims.forsaken(str(paths.shims)):
        known = found.get(id, Garbage(id, "", ()))
        found[id] = replace(known, entries=(*known.entries, str(RemoveFile(path))))
    return list(found.values())


def collect(paths: HostPaths) -> tuple[list[Garbage], list[Garbage]]:
    """Undo all of it. Blocks.

    Returns:
        What is gone, and what is not: of that the record stays, and another run goes on from there.

    Raises:
        PermissionError: As `forsaken`.
    """
    before = forsaken(paths)
    sweep(paths)
    left = forsaken(paths)
    remain = {each.id for each in left}
    return [each for each in before if each.id not in remain], left
