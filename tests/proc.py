"""The kernel's files of a process that is in another network namespace than we are, for which it need not be made."""

from __future__ import annotations

from pathlib import Path


def elsewhere(top: Path, pid: int = 7) -> Path:
    """A `/proc` where this process is `pid`, and `self` is in another namespace."""
    place = top / str(pid)
    (place / "ns").mkdir(parents=True)
    for name in ("stat", "status", "io", "fd", "net", "limits"):
        (place / name).symlink_to(f"/proc/self/{name}")
    (top / "stat").symlink_to("/proc/stat")
    (place / "ns" / "net").touch()
    (top / "self" / "ns").mkdir(parents=True)
    (top / "self" / "ns" / "net").touch()
    return top
