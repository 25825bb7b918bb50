"""What a pod takes of its node beyond what its container uses: the overhead that a RuntimeClass is to tell (root).

Pods with the default configuration's machine of 2 GiB, idle, with one sleeping container each; in a room of their own.
Memory is PSS: what several pods' shims share is counted once, in parts. Figures of the processor are of an emulated
guest (TCG), whose clock's interrupts cost more than under KVM.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.adaptor import ROOM
from bench.guest_machine import GUEST
from kata_py.resource.proc import worker
from kata_py.resource.undo import KillProcess
from kata_py.sandbox.record import Record
from kata_py.shim.overhead import of_programs

Figure = tuple[str, str, str]

PODS = 5
MEMORY = 2048  # MiB, the default
IDLE = 20.0  # seconds that pods are left alone for
TIMEOUT = 300.0  # seconds for all of it
MEBIBYTE = 1 << 20
PARTS = ("shim", "qemu", "virtiofsd")
GUEST_MEMORY = "guest"


def figures() -> list[Figure]:
    """Measure; takes about a minute and a half."""
    line = [ROOM, sys.executable, "-m", "bench.overhead", "inside"]
    told = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT).stdout
    content = json.loads(told.splitlines()[-1])
    alone, crowd = ([Pod(**pod) for pod in content[name]] for name in ("alone", "crowd"))
    named = {"shim": "shim", "qemu": "QEMU without the guest's memory", "virtiofsd": "virtiofsd"}
    return [
        *((f"overhead: {what}, of 1 pod / of {PODS} at once", f"{of(part, alone)} / {of(part, crowd)}", "")
          for part, what in named.items()),
        (f"overhead: memory of an idle guest of {MEMORY} MiB, resident", of(GUEST_MEMORY, crowd), ""),
        (f"overhead: all of it, less what the container uses, of {PODS} at once", total(crowd), "≤ 350 MiB"),
        ("overhead: processor of an idle pod, emulated", percent(crowd), "≤ 25 % of one"),
        ("overhead: processor time of a start, emulated", seconds([pod.start for pod in alone + crowd]), ""),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pod:
    """What one pod takes.

    Attributes:
        memory: Bytes by part.
        container: Bytes that its container uses in the guest.
        start: Seconds of processor time until it ran.
        idle: Share of one processor since.
    """

    memory: Mapping[str, int]
    container: int
    start: float
    idle: float


def of(part: str, pods: Sequence[Pod]) -> str:
    """Median of a part."""
    return f"{statistics.median(pod.memory[part] for pod in pods) / MEBIBYTE:.0f} MiB"


def total(pods: Sequence[Pod]) -> str:
    """Median and spread of all parts together."""
    values = [(sum(pod.memory.values()) - pod.container) / MEBIBYTE for pod in pods]
    return f"{statistics.median(values):.0f} MiB ({min(values):.0f}–{max(values):.0f})"


def percent(pods: Sequence[Pod]) -> str:
    """Median and spread."""
    values = [pod.idle * 100 for pod in pods]
    return f"{statistics.median(values):.1f} % ({min(values):.1f}–{max(values):.1f})"


def seconds(values: Sequence[float]) -> str:
    """Median and spread."""
    return f"{statistics.median(values):.2f} s ({min(values):.2f}–{max(values):.2f})"


async def inside() -> dict[str, list[Pod]]:
    """One pod alone, and then some at once."""
    from tests.launcher import write
    from tests.manager import Manager
    from tools import configuration
    from tools.oci_image import rootfs

    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as directory:
        top = Path(directory)
        (top / "rootfs").mkdir()
        rootfs(top / "rootfs")
        config = configuration.write(top / "configuration.toml", GUEST, program="the benches", memory=MEMORY)
        manager = Manager(write(top / "bin"), top / "manager", config, top / "rootfs")
        return {"alone": await measure(manager, 1), "crowd": await measure(manager, PODS)}


async def measure(manager, pods: int) -> list[Pod]:
    """So many pods, once all of them run and were left alone."""
    async with AsyncExitStack() as stack:
        containers = []
        for number in range(pods):
            container = await stack.enter_async_context(manager.container(f"pod{number}", "sleep", "100000"))
            await container.start()
            containers.append(container)
        programs = [programs_of(container.id) for container in containers]
        before = [processor(each) for each in programs]
        await asyncio.sleep(IDLE)
        after = [processor(each) for each in programs]
        return [
            Pod(memory(each), (await container.usage()).memory, began, (ended - began) / IDLE)
            for container, each, began, ended in zip(containers, programs, before, after, strict=True)
        ]


def programs_of(sandbox_id: str) -> dict[str, int]:
    """The pids of a sandbox's programs."""
    record = Record.load(sandbox_id)
    daemons = {entry.name: worker(entry.pid) for entry in record.undo if isinstance(entry, KillProcess)}
    return {"shim": record.shim.pid, **{name: daemons[name] for name in PARTS if name in daemons}}


def processor(programs: Mapping[str, int]) -> float:
    """Seconds of processor time so far."""
    return sum(usage.processor for usage in of_programs(programs).values())


def memory(programs: Mapping[str, int]) -> dict[str, int]:
    """Bytes by part: the guest's memory is QEMU's shared one, once. Source: proc_pid_smaps(5), smaps_rollup."""
    parts: dict[str, int] = {GUEST_MEMORY: 0}
    for name, pid in programs.items():
        held = rollup(pid)
        if name == "qemu":
            resident = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "RssShmem" in line]
            parts[GUEST_MEMORY] = int(resident[0].split()[1]) << 10
        parts[name] = held["Pss_Anon"] + held["Pss_File"]
    return parts


def rollup(pid: int) -> dict[str, int]:
    """A process's memory in bytes, by kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) << 10 for line in lines}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measured = asyncio.run(inside())
        print(json.dumps({name: [asdict(pod) for pod in pods] for name, pods in measured.items()}))
    else:
        for name, value, bar in figures():
            print(f"{name:70} {value:>25}   {bar}")
