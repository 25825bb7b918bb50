"""What the agent is at work for: the container and the process that its log's lines name, under upstream's keys."""

from __future__ import annotations

from contextvars import ContextVar

_subject: ContextVar[tuple[str, str]] = ContextVar("subject", default=("", ""))  # of the call, and of what it begins


def concern(container_id: str, exec_id: str) -> None:
    """From here on, whatever is done is for this container, and for this process of it; empty is for none."""
    _subject.set((container_id, exec_id))


def fields() -> dict[str, str]:
    """The keys of a line that is logged now."""
    names = zip(("container-id", "exec-id"), _subject.get(), strict=True)
    return {name: value for name, value in names if value}
