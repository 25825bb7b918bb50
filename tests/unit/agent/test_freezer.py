from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_agent.cgroup import freezer
from kata_agent.cgroup.hierarchy import CgroupV1, CgroupV2
from kata_agent.errors import AgentError
from kata_agent.watch import Watch

pytestmark = pytest.mark.root

TIMEOUT = 10.0


def _tree() -> Path:
    """Where this machine has cgroup v2, alone or beside v1."""
    lines = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next(Path(left.split()[4]) for left, right in lines if right.startswith("cgroup2 "))


@pytest.fixture
def directory() -> Iterator[Path]:
    path = _tree() / f"kata-freezer-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


@pytest.fixture
def process(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in it that answers what it is told."""
    script = f"echo $$ >{directory}/cgroup.procs; while read line; do echo $line; done"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"there\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"there\n"
        yield child
        child.kill()


async def test_what_is_frozen_stands_still_until_it_is_thawed(
    directory: Path, process: subprocess.Popen[bytes]
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    cgroup = CgroupV2(directory)

    await freezer.freeze(cgroup)

    assert "frozen 1" in (directory / "cgroup.events").read_text()
    process.stdin.write(b"heard\n")
    process.stdin.flush()
    freezer.thaw(cgroup)
    assert await asyncio.to_thread(process.stdout.readline) == b"heard\n"


async def test_giving_up_a_freeze_thaws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "freezer.state"
    state.write_text("THAWED")
    monkeypatch.setattr(Path, "read_text", lambda path: "FREEZING\n")
    freezing = asyncio.create_task(freezer.freeze(CgroupV1({"freezer": tmp_path})))
    await asyncio.sleep(0)
    assert state.read_bytes() == b"FROZEN"

    freezing.cancel()
    await asyncio.wait([freezing])

    assert state.read_bytes() == b"THAWED"


async def test_what_will_not_stand_still_is_told_and_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "FREEZE_TIMEOUT", 0.05)
    state = tmp_path / "freezer.state"
    state.write_text("THAWED")
    monkeypatch.setattr(Path, "read_text", lambda path: "FREEZING\n")

    with pytest.raises(AgentError, match=r"not all processes could be frozen within 0\.05 s; they run on"):
        await freezer.freeze(CgroupV1({"freezer": tmp_path}))

    assert state.read_bytes() == b"THAWED"


async def test_a_kernel_without_a_freezer_is_told() -> None:
    with pytest.raises(AgentError, match="this kernel has no freezer"):
        await freezer.freeze(CgroupV1({}))


async def test_a_watch_tells_of_each_change_and_of_nothing_else(directory: Path) -> None:
    told = asyncio.Event()
    async with asyncio.timeout(TIMEOUT):
        with Watch(directory / "cgroup.events", told.set) as events:
            assert "frozen 0" in events.read()
            for wanted in ("1", "0"):
                told.clear()
                (directory / "cgroup.freeze").write_text(wanted)
                while f"frozen {wanted}" not in events.read():
                    await told.wait()
                    told.clear()


async def test_a_watch_leaves_no_descriptor_open(directory: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    watch = Watch(directory / "cgroup.events", lambda: None)
    watch.close()
    watch.close()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
