"""What there is to be read on this node: records of sandboxes, and failures that outlived theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kata_py.diagnosis import overview
from kata_py.diagnosis.errors import NoSuchPod
from kata_py.diagnosis.overview import Sandbox
from kata_py.sandbox import failure, sockets
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.failure import Failure, Pod
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import Span


def failures_of(name: str, paths: HostPaths) -> list[Failure]:
    """The failures known of a pod, newest first: the loss of its shim, if its record is still there, and those kept.

    Args:
        name: A sandbox's id or the beginning of it, a pod's `namespace/name`, or its name.
        paths: Where they lie.
    """
    found = [*_losses(paths.records), *failure.load(paths.failures)]
    return [each for each in found if matches(name, each.sandbox, each.pod)]


def present(name: str, paths: HostPaths) -> list[Sandbox]:
    """The sandboxes on this node of a pod; `name` as for `failures_of`."""
    return [each for each in overview.gather((paths.records,)) if matches(name, each.id, each.pod)]


def timeline_of(name: str, paths: HostPaths) -> tuple[Span, ...]:
    """The stages of a sandbox that is there, else of the latest failure of that name.

    Raises:
        NoSuchPod: There is neither.
    """
    for each in present(name, paths):
        return each.timeline
    for failed in failures_of(name, paths):
        return failed.timeline
    raise NoSuchPod(name)


def ids(paths: HostPaths) -> list[str]:
    """The ids of all sandboxes that something can be told of: on record, or by a failure that is kept.

    Raises:
        PermissionError: They are not for this user to see.
    """
    there = (directory.name for directory in sockets.directories(paths.records))
    return sorted({*there, *(each.sandbox for each in failure.load(paths.failures))})


def matches(name: str, sandbox_id: str, pod: Pod) -> bool:
    """Whether a name is a sandbox's: its id or the beginning of it, or its pod's name."""
    return bool(name) and (sandbox_id.startswith(name) or (bool(pod.name) and name in (str(pod), pod.name)))


def _losses(records: Path) -> Iterator[Failure]:
    """The sandboxes on record whose shims are gone, and that nobody has removed yet."""
    for directory in sorted(records.iterdir()) if records.is_dir() else ():
        with contextlib.suppress(SandboxError, OSError):
            record = Record.load(directory.name, root=records)
            if not record.shim.alive and (lost := failure.of_loss(record)):
                yield lost
