"""What there is to be read on this node: records of sandboxes, and failures that outlived theirs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from kata_py.diagnosis.errors import NoSuchPod
from kata_py.resource.undo import KillProcess
from kata_py.sandbox import failure
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.failure import Failure, Pod
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import Span


@dataclass(frozen=True, slots=True)
class Present:
    """A sandbox on record.

    Attributes:
        id: Its id.
        pod: What people call the pod.
        manager: The manager's namespace.
        state: Where it is in its life; `dead` when its shim is gone.
        age: Seconds since its first stage began.
        memory: Bytes of resident memory by part: `shim`, and each process on record.
        timeline: Its stages.
    """

    id: str
    pod: Pod
    manager: str
    state: str
    age: float
    memory: dict[str, int]
    timeline: tuple[Span, ...]


def present(paths: HostPaths) -> list[Present]:
    """The sandboxes on record, oldest first; a record that goes or cannot be read meanwhile is left out."""
    found: list[Present] = []
    for directory in paths.records.iterdir() if paths.records.is_dir() else ():
        if (directory / "record.json").exists():  # else it is a management socket's alone
            with contextlib.suppress(SandboxError, OSError):
                found.append(_present(Record.load(directory.name, root=paths.records)))
    return sorted(found, key=lambda each: -each.age)


def failures_of(name: str, paths: HostPaths) -> list[Failure]:
    """The failures kept of a pod, newest first.

    Args:
        name: A sandbox's id or the beginning of it, a pod's `namespace/name`, or its name.
        paths: Where they lie.
    """
    return [each for each in failure.load(paths.failures) if matches(name, each.sandbox, each.pod)]


def timeline_of(name: str, paths: HostPaths) -> tuple[Span, ...]:
    """The stages of a sandbox that is there, else of the latest failure of that name.

    Raises:
        NoSuchPod: There is neither.
    """
    for each in present(paths):
        if matches(name, each.id, each.pod):
            return each.timeline
    for failed in failures_of(name, paths):
        return failed.timeline
    raise NoSuchPod(name)


def matches(name: str, sandbox_id: str, pod: Pod) -> bool:
    """Whether a name is a sandbox's: its id or the beginning of it, or its pod's name."""
    return bool(name) and (sandbox_id.startswith(name) or name in (str(pod), pod.name))


def _present(record: Record) -> Present:
    began = min((span.began for span in record.timeline), default=time.monotonic_ns())
    pids = {"shim": record.shim.pid} if record.shim.alive else {}
    pids |= {entry.name: entry.pid for entry in record.undo if isinstance(entry, KillProcess)}
    return Present(
        id=record.id,
        pod=failure.pod_of(failure.annotations_of(record.bundle)),
        manager=record.namespace,
        state=record.state if record.shim.alive else "dead",
        age=(time.monotonic_ns() - began) / 1e9,
        memory={name: resident for name, pid in pids.items() if (resident := _resident(pid)) is not None},
        timeline=record.timeline,
    )


def _resident(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)
