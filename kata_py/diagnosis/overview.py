"""The sandboxes of this node as a person wants to see them: from their records, and from what their processes hold.

No shim is asked, so whatever shows this takes as long as reading a few files, whatever hangs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kata_py.resource import proc
from kata_py.resource.process import start_time
from kata_py.resource.undo import KillProcess
from kata_py.sandbox import failure, sockets
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.failure import Pod
from kata_py.sandbox.record import Record
from kata_py.sandbox.sockets import SOCKET
from kata_py.sandbox.timeline import Span

DEAD, FOREIGN, UNREADABLE = "dead", "another runtime's", "unreadable record"
PARTS = ("VM", "QEMU", "virtiofsd", "shim")  # what a sandbox's memory is told by

_NOBODY = Pod()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox.

    Attributes:
        id: Its id.
        pod: What people call its pod.
        manager: The manager's namespace; empty where there is no record.
        state: A record's state; `DEAD` when its shim is gone; or why there is no record.
        age: Seconds since its first stage began; None where no stage is on record.
        memory: Bytes that are resident, by part; parts that it has not are left out.
        timeline: The stages on record.
        leftovers: Entries that are still to be undone, of one that is dead.
    """

    id: str
    pod: Pod = _NOBODY
    manager: str = ""
    state: str = FOREIGN
    age: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    timeline: tuple[Span, ...] = ()
    leftovers: int = 0


def gather(roots: tuple[Path, ...], pods: Mapping[str, Pod] | None = None) -> list[Sandbox]:
    """All sandboxes: the dead first, and then the youngest. Blocks.

    Args:
        roots: Where their records and sockets are.
        pods: What the CRI's runtime calls their pods, by the sandboxes' ids. Of ours the bundle tells it as well.

    Raises:
        PermissionError: This user may not look at all of them.
    """
    found: dict[str, Sandbox] = {}
    for root in roots:
        for directory in sockets.directories(root):
            if directory.name not in found and (sandbox := _read(root, directory)):
                called = (pods or {}).get(sandbox.id, sandbox.pod)
                found[sandbox.id] = replace(sandbox, pod=called)
    return sorted(found.values(), key=lambda each: (each.state != DEAD, each.age or 0.0, each.id))


def _read(root: Path, directory: Path) -> Sandbox | None:
    try:
        names = os.listdir(directory)  # noqa: PTH208 (a list of names is all that is wanted)
        if "record.json" not in names:
            return Sandbox(directory.name) if SOCKET in names else None
        record = Record.load(directory.name, root=root)
    except PermissionError:
        raise  # of what is there nothing is known, so nothing is told
    except (SandboxError, OSError):  # it may have gone this moment
        return Sandbox(directory.name, state=UNREADABLE) if directory.exists() else None
    alive = record.shim.alive
    began = min((span.began for span in record.timeline), default=None)
    return Sandbox(
        id=record.id,
        pod=failure.pod_of(failure.annotations_of(record.bundle)),
        manager=record.namespace,
        state=record.state if alive else DEAD,
        age=None if began is None else (time.monotonic_ns() - began) / 1e9,
        memory=_memory(record),
        timeline=record.timeline,
        leftovers=0 if alive else len(record.undo),
    )


def _memory(record: Record) -> dict[str, int]:
    """What its processes hold, the guest's memory once: who shares it with the guest has it mapped too."""
    found: dict[str, int] = {}
    for entry in record.undo:
        if isinstance(entry, KillProcess) and start_time(entry.pid) == entry.start_time:
            held = proc.resident(proc.worker(entry.pid))
            if held is not None and entry.name == "qemu":
                found |= {"VM": held.shared, "QEMU": held.own}
            elif held is not None and entry.name == "virtiofsd":
                found["virtiofsd"] = held.own
    if record.shim.alive and (held := proc.resident(record.shim.pid)):
        found["shim"] = held.own
    return {part: found[part] for part in PARTS if part in found}
