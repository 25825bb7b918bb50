"""Which installed version each sandbox, and each running program, is of.

A sandbox's record names its shim's program. A shim that has no sandbox yet, or one of an earlier version that told no
program, is found among the processes: its command line names its program with links followed, and whatever else runs
from a tree has compiled parts of it mapped. Source: proc_pid_cmdline(5), proc_pid_maps(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_py.install.handler import SHIM
from kata_py.resource.proc import PROC
from kata_py.sandbox import record

MONITOR = "kata-monitor"


@dataclass(frozen=True, slots=True)
class User:
    """Something that needs a version's tree.

    Attributes:
        name: What it is, as a person calls it: `sandbox ID`, or a program with its process id.
        version: Which version's tree; empty where that cannot be told yet.
    """

    name: str
    version: str

    @property
    def is_monitor(self) -> bool:
        """Whether it is one that does not end by itself."""
        return self.name.startswith(MONITOR)


def users(versions: Path, records: Path = record.ROOT, proc: Path = PROC) -> list[User]:
    """Everything that runs from one of the trees, or may, by name.

    Args:
        versions: The directory of the trees.
        records: Where sandboxes' records are.
        proc: Where the kernel tells of processes.
    """
    found = dict(_sandboxes(versions, records))
    for name, version in _processes(versions, proc):
        found.setdefault(name, version)
    return [User(name, version) for name, version in sorted(found.items())]


def _sandboxes(versions: Path, records: Path) -> Iterator[tuple[str, str]]:
    for directory in sorted(records.iterdir()) if records.is_dir() else ():
        if version := _version(versions, record.program_of(directory.name, root=records)):
            yield f"sandbox {directory.name}", version


def _processes(versions: Path, proc: Path) -> Iterator[tuple[str, str]]:
    for directory in proc.iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            program = next((word for word in words[:4] if Path(word).name in (SHIM, MONITOR)), "")
            if not program:
                continue
            version = _version(versions, program) or _mapped(versions, directory)
        except OSError:  # it has ended
            continue
        if not version and not _version(versions, os.path.realpath(program)):
            continue  # of a package, or of another place
        if Path(program).name == SHIM and "-id" in words[:-1]:
            yield f"sandbox {words[words.index('-id') + 1]}", version
        else:
            yield f"{Path(program).name} (pid {directory.name})", version


def _mapped(versions: Path, directory: Path) -> str:
    for line in (directory / "maps").read_text().splitlines():
        if version := _version(versions, line[line.find("/") :]):
            return version
    return ""


def _version(versions: Path, path: str) -> str:
    """The version whose tree a file is in; empty if it is in none."""
    try:
        return Path(path).relative_to(versions).parts[0]
    except (ValueError, IndexError):
        return ""
