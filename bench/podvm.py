"""How soon a peer pod's disk is ready for the adaptor, and how large it is. `make podvm` builds it.

Timed is from QEMU's exec, under emulation, to the line on the console by which the forwarder says that it serves; the
machine is a bare one (`tests.functional.image.test_podvm`), told of its pod by a disk with user data.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

Figure = tuple[str, str, str]

RUNS = 5
TIMEOUT = 120.0  # seconds for one start
READY = b"forwarder: ready on "
MACHINES = ("x86_64", "s390x")
DEVICE = {"x86_64": "virtio-blk-pci", "s390x": "virtio-blk-ccw"}


def figures() -> list[Figure]:
    """Measure; takes about two minutes."""
    from tests.functional.image.test_podvm import disk

    found: list[Figure] = []
    for machine in MACHINES:
        took = [start(machine) for _ in range(RUNS)]
        spread = f"{statistics.median(took):.1f} s (of {RUNS}: {min(took):.1f}–{max(took):.1f})"
        found.append((f"podvm, {machine}: QEMU's start to the forwarder's readiness", spread, ""))
        for path in (disk(machine), disk(machine).with_suffix(".raw")):
            size = path.stat().st_size / (1 << 20)
            found.append((f"podvm, {machine}: {path.name}", f"{size:.1f} MiB", "≤ 200 MiB"))
    return found


def start(machine: str) -> float:
    """Seconds of one start."""
    from tests.functional.image.test_podvm import copy, encrypted, pc, s390x, user_data

    with tempfile.TemporaryDirectory() as directory:
        root, top = copy(machine, Path(directory)), Path(directory)
        drives = ["-device", f"{DEVICE[machine]},drive=root,bootindex=1"]
        drives += ["-drive", user_data(top, config=encrypted()), "-device", f"{DEVICE[machine]},drive=cidata"]
        line = (pc if machine == "x86_64" else s390x)(root, *drives)
        began = time.monotonic()
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu:
            assert qemu.stdout is not None
            try:
                while READY not in (said := qemu.stdout.readline()):
                    assert said, "the machine ended before its forwarder was ready"
                    assert time.monotonic() - began < TIMEOUT
                return time.monotonic() - began
            finally:
                qemu.kill()


if __name__ == "__main__":
    for name, value, bar in figures():
        print(f"{name:65} {value:>25}   {bar}")
