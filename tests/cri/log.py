"""A container's log as the CRI has it: `<RFC 3339 time> <stream> <tags> <content>`, one entry a line.

Source: Kubernetes' kubelet-CRI logging format (`kubernetes: pkg/kubelet/kuberuntime/logs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        at: When the manager read it, as written.
        stream: `stdout` or `stderr`.
        is_partial: Whether the line goes on in the stream's next entry.
        content: What was written, with the end of line if it is the line's last part.
    """

    at: str
    stream: str
    is_partial: bool
    content: bytes


def entries(path: Path) -> list[Entry]:
    """All entries of a log that are whole; a missing one has none.

    A manager may be writing while we read, so the last line counts only once its end has come.

    Raises:
        ValueError: A line has another form.
    """
    if not path.exists():
        return []
    written, _, _ = path.read_bytes().rpartition(b"\n")
    return [_entry(line + b"\n") for line in written.split(b"\n")] if written else []


def content(path: Path, stream: str = "stdout") -> bytes:
    """What a container has written to one of its streams."""
    return b"".join(entry.content for entry in entries(path) if entry.stream == stream)


def _entry(line: bytes) -> Entry:
    at, stream, tags, content = line.split(b" ", 3)
    datetime.fromisoformat(at.decode()[:19])
    if stream not in (b"stdout", b"stderr") or tags not in (b"F", b"P"):
        raise ValueError(f"not an entry of a CRI log: {line[:200]!r}")
    is_partial = tags == b"P"
    return Entry(at.decode(), stream.decode(), is_partial, content[:-1] if is_partial else content)
