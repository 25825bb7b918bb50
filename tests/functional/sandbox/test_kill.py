"""A shim that is killed at whatever point leaves nothing that its record does not name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kata_py.resource import mount
from kata_py.sandbox.record import Record
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.root

ID = "c1"


def remains(top: Path) -> list[str]:
    """What there is on the host of the sandbox: files, mounts, processes, cgroups."""
    found = [str(path) for place in ("sbs", "vm", "shared") for path in (top / place).glob("*")]
    found += [point for point in mount.mount_points() if point.startswith(str(top))]
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(top).encode() in cmdline.read_bytes():
                found.append(str(cmdline))
        except (FileNotFoundError, ProcessLookupError):
            pass
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/kata-namespace-{ID}")]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("namespace", ["own", "hosts"])
def test_a_kill_after_any_write_of_the_record_leaves_nothing_that_it_does_not_name(
    top: Path, rootfs: Path, namespace: str
) -> None:
    """With the mounts in a namespace of the shim's own, as the daemon has it, and in the host's."""
    unshare = ["unshare", "--mount", "--propagation", "slave"] if namespace == "own" else []
    stages = set()
    for writes in range(1, 200):
        here = top / str(writes)
        here.mkdir()
        command = [*unshare, sys.executable, "-m", "tests.functional.sandbox.doomed"]
        shim = subprocess.run(
            [*command, here, rootfs, str(writes)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        if "survived" in shim.stdout:
            assert remains(here) == []
            break
        assert shim.returncode == -9, shim.stdout
        if (here / "sbs" / ID).exists():
            record = Record.load(ID, root=here / "sbs")
            stages |= {span.name for span in record.timeline}
            assert record.unwind() == []
        assert remains(here) == []
    else:
        pytest.fail("the shim never came to its end")
    assert stages >= {"request", "plan", "share", "cgroups", "machine", "agent", "sandbox", "create", "start"}
