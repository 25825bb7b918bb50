"""The sandboxes of this node as a person wants to see them: from their records, and from what their processes hold.

No shim is asked, so a page that shows this takes as long as reading a few files, whatever hangs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource.process import start_time
from kata_py.resource.undo import KillProcess
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.record import Record
from kata_py.sandbox.sockets import SOCKET
from kata_py.sandbox.timeline import Span

LEFT_BEHIND, FOREIGN, UNREADABLE = "left behind", "another runtime's", "unreadable record"
PARTS = ("VM", "QEMU", "virtiofsd", "shim")  # what a sandbox's memory is told by

_OWN = ("RssAnon", "RssFile")  # of a process that has the guest's memory mapped, what is its own
_GUEST = ("RssShmem",)  # the guest's memory is a memfd; virtiofsd maps it too, and it is counted once
_QEMU = "qemu"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox.

    Attributes:
        id: Its id.
        pod: Its pod's name, and its namespace; empty where the CRI's runtime has not told them.
        namespace: Of the pod.
        state: A record's state, or why there is none.
        age: Seconds since its first stage began; None where no stage is on record.
        memory: Bytes that are resident, by part; parts that it has not are left out.
        timeline: The stages on record.
        leftovers: Entries that are still to be undone, of one whose shim is gone.
    """

    id: str
    pod: str
    namespace: str
    state: str
    age: float | None
    memory: Mapping[str, int]
    timeline: tuple[Span, ...]
    leftovers: int = 0


def gather(roots: tuple[Path, ...], labels: Mapping[str, Mapping[str, str]]) -> list[Sandbox]:
    """All sandboxes, those that are left behind first, and then the youngest.

    Args:
        roots: Where their records and sockets are.
        labels: What the CRI's runtime says of their pods.
    """
    found: dict[str, Sandbox] = {}
    for root in roots:
        for directory in sorted(root.glob("*/")):
            if directory.name not in found and (sandbox := _read(root, directory, labels.get(directory.name, {}))):
                found[directory.name] = sandbox
    return sorted(found.values(), key=lambda each: (each.state != LEFT_BEHIND, each.age or 0.0, each.id))


def _read(root: Path, directory: Path, labels: Mapping[str, str]) -> Sandbox | None:
    names = (labels.get("cri_name", ""), labels.get("cri_namespace", ""))
    if not (directory / "record.json").exists():
        foreign = (directory / SOCKET).exists()
        return Sandbox(directory.name, *names, FOREIGN, None, {}, ()) if foreign else None
    try:
        record = Record.load(directory.name, root=root)
    except (SandboxError, OSError):  # it may have gone this moment
        return Sandbox(directory.name, *names, UNREADABLE, None, {}, ()) if directory.exists() else None
    began = min((span.began for span in record.timeline), default=None)
    age = None if began is None else (time.monotonic_ns() - began) / 1e9
    alive = record.shim.alive
    return Sandbox(
        record.id, *names, str(record.state) if alive else LEFT_BEHIND, age, _memory(record), record.timeline,
        0 if alive else len(record.undo),
    )  # fmt: skip


def _memory(record: Record) -> dict[str, int]:
    memory: dict[str, int] = {}
    for entry in record.undo:
        if not isinstance(entry, KillProcess) or start_time(entry.pid) != entry.start_time:
            continue
        resident = _resident(entry.pid)
        if entry.name.startswith(_QEMU):
            memory["VM"] = memory.get("VM", 0) + sum(resident.get(kind, 0) for kind in _GUEST)
            memory["QEMU"] = memory.get("QEMU", 0) + sum(resident.get(kind, 0) for kind in _OWN)
        elif entry.name == "virtiofsd":
            memory["virtiofsd"] = memory.get("virtiofsd", 0) + sum(resident.get(kind, 0) for kind in _OWN)
    if record.shim.alive:
        memory["shim"] = sum(_resident(record.shim.pid).get(kind, 0) for kind in _OWN)
    return {part: memory[part] for part in PARTS if part in memory}


def _resident(pid: int) -> dict[str, int]:
    """What of a process is resident, in bytes by kind. Source: proc_pid_status(5)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.startswith("Rss")]
    return {name.rstrip(":"): int(amount) * 1024 for name, amount, *_ in words}
