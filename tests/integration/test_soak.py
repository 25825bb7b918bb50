"""Many lives in a row: the node, a pod's shim and its agent are afterwards what they were."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from kata_py.sandbox import boots
from tests.crio import Crio
from tests.crio_container import Container, ExecResult
from tests.integration.conftest import ON_NAMESPACES

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

PODS = {"namespace": 200, "qemu": 20}
CONTAINERS, EXECS = 300, 500
WARM = 50  # containers and execs after which caches are filled
THREADS = min(32, (os.cpu_count() or 1) + 4) + 1  # the event loop's pool, which fills by chance, and the loop
GROWTH = 4 << 20  # bytes of memory that a long-lived process may keep of that many lives: noise of its allocator


@dataclass(frozen=True, slots=True)
class Node:
    """What a node has of what pods are made of, besides what `clean` compares by name."""

    namespaces: int
    descriptors: int
    inodes: int

    @classmethod
    def take(cls) -> Node:
        """Count it now: network namespaces, open files of this process, inodes of /run."""
        spaces = {_inode(path) for path in Path("/proc").glob("[0-9]*/ns/net")} - {None}
        run = os.statvfs("/run")
        return cls(len(spaces), _count(Path("/proc/self/fd")), run.f_files - run.f_ffree)


@dataclass(frozen=True, slots=True)
class Use:
    """What a process holds."""

    descriptors: int
    threads: int
    mounts: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Use:
        """Count it now."""
        proc = Path(f"/proc/{pid}")
        resident = re.search(r"VmRSS:\s+(\d+) kB", (proc / "status").read_text())
        assert resident
        return cls(
            _count(proc / "fd"),
            _count(proc / "task"),
            len((proc / "mountinfo").read_text().splitlines()),
            int(resident[1]) << 10,
        )


@pytest.mark.timeout(600)
async def test_many_pods_in_a_row_leave_the_node_as_it_was(crio: Crio, driver: str) -> None:
    await _life(crio, "first")
    before = Node.take()
    gate = asyncio.Semaphore(boots.places())

    async def life(number: int) -> None:
        async with gate:
            await _life(crio, f"pod-{number}")

    await asyncio.gather(*(life(number) for number in range(PODS[driver])))
    assert Node.take() == before


@ON_NAMESPACES
@pytest.mark.timeout(600)
async def test_a_pod_in_which_containers_and_execs_come_and_go_does_not_grow(crio: Crio) -> None:
    async with crio.pod("long") as sandbox:
        container = await crio.run("long", "stays")
        long_lived = {"shim": _shim(sandbox), "agent": _agent(sandbox)}
        gate = asyncio.Semaphore(4)

        async def life(number: int) -> None:
            async with gate:
                short = await crio.run("long", f"c{number}")
                await crio.stop(short, 0)
                await crio.delete(short)

        async def run(number: int) -> None:
            async with gate:
                assert await crio.exec_sync(container, "echo", "x") == ExecResult(0, b"x\n")

        await asyncio.gather(*(life(-1 - number) for number in range(WARM)), *(run(number) for number in range(WARM)))
        before, tasks = {name: Use.of(pid) for name, pid in long_lived.items()}, await _tasks(sandbox)
        await asyncio.gather(*(life(number) for number in range(CONTAINERS)))
        await asyncio.gather(*(run(number) for number in range(EXECS)))
        after = {name: Use.of(pid) for name, pid in long_lived.items()}
        assert await _tasks(sandbox) == tasks
        for name in long_lived:
            assert after[name].descriptors == before[name].descriptors, name
            assert after[name].threads <= THREADS, name
            assert after[name].mounts == before[name].mounts, name
            assert after[name].memory < before[name].memory + GROWTH, name


async def _life(crio: Crio, id: str) -> None:
    sandbox = crio.prepare_sandbox(id)
    await crio.create(sandbox)
    await crio.start(sandbox)
    await crio.stop(sandbox)
    await crio.delete(sandbox)


def _shim(sandbox: Container) -> int:
    return int((sandbox.bundle / "shim.pid").read_text())


def _agent(sandbox: Container) -> int:
    pid = sandbox.state.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def _tasks(sandbox: Container) -> list[str]:
    """The names of the shim's tasks, as it dumps them."""
    assert sandbox.log is not None
    sandbox.log.lines.clear()
    os.kill(_shim(sandbox), signal.SIGUSR1)
    async with asyncio.timeout(10):
        while b'msg="thread ' not in sandbox.log.lines:  # noqa: ASYNC110 CRI-O's own reader is another
            await asyncio.sleep(0.01)
    return sorted(re.findall(r'msg="task ([^"]*)"', sandbox.log.lines.decode()))


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _count(directory: Path) -> int:
    return sum(1 for _ in directory.iterdir())
