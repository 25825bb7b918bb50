"""A container's life, called as CRI-O calls it, and what the manager is told when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from kata_protos.task_types_pb2 import Status
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.faults import stopped
from tests.manager import Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]


async def test_a_container_runs_from_create_to_delete(manager: Manager) -> None:
    async with manager.container("life", "sh", "-c", "echo hello; exit 3") as container:
        waiting = asyncio.create_task(container.wait())  # containerd waits before it starts
        assert (await container.state()).status == Status.CREATED
        assert await container.start() == (await container.state()).pid
        exit = await waiting
        assert exit.status == 3
        state = await container.state()
        assert state.status == Status.STOPPED
        assert (state.exit_status, state.exited_at.ToNanoseconds()) == (3, exit.exited_at)
        assert state.stdout == container.io.path("stdout")
        assert await container.io.ended() == b"hello\n"
        assert await container.wait() == exit
        assert await container.delete() == exit
        with pytest.raises(StatusError) as caught:
            await container.state()
        assert caught.value.code == Code.NOT_FOUND


async def test_a_created_container_can_be_deleted(manager: Manager) -> None:
    async with manager.container("unstarted", "true") as container:
        await container.delete()


async def test_kill_ends_all_of_a_container(manager: Manager) -> None:
    async with manager.container("killed", "sh", "-c", "sleep 1000 & echo up; wait") as container:
        await container.start()
        await container.io.until(b"up\n")
        await container.kill(signal.SIGKILL, all=True)
        assert (await container.wait()).status == 137


@pytest.mark.alone
async def test_state_answers_at_once_while_the_machine_hangs(manager: Manager) -> None:
    async with manager.container("hung", "sleep", "1000") as container:
        with stopped(await container.start()):
            stats = asyncio.create_task(container.stats(timeout=60))
            for _ in range(5):
                began = time.monotonic()
                assert (await container.state()).status == Status.RUNNING
                assert time.monotonic() - began < 0.05
            assert not stats.done()
        await stats


async def test_waiters_are_told_255_when_the_machine_dies(manager: Manager) -> None:
    async with manager.container("shot", "sleep", "1000") as container:
        pid = await container.start()
        waiting = asyncio.create_task(container.wait())
        os.kill(pid, signal.SIGKILL)
        assert (await waiting).status == 255
        assert (await container.state()).status == Status.STOPPED
        await container.kill(signal.SIGKILL)  # idempotent on what is dead
        assert (await container.delete()).status == 255


async def test_statistics_have_every_part_that_managers_read(manager: Manager) -> None:
    async with manager.container("counted", "sleep", "1000") as container:
        await container.start()
        usage = await container.usage()
        assert usage.memory > 0
        assert usage.processes >= 1


async def test_pids_and_connect_name_the_machine(manager: Manager) -> None:
    async with manager.container("named", "sleep", "1000") as container:
        pid = await container.start()
        assert await container.pids() == [pid]
        assert await container.connected() == (container.shim_pid, pid)


async def test_a_read_only_bind_mount_is_seen_and_kept_read_only(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    mount = {"destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["rbind", "ro"]}
    async with manager.container("mounted", "sh", "-c", "cat /mnt/file; touch /mnt/x", mounts=[mount]) as container:
        await container.start()
        assert (await container.wait()).status == 1
        assert await container.io.ended() == b"from the host\n"
        assert b"Read-only" in await container.io.ended("stderr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


async def test_an_exec_spec_of_another_type_is_refused(manager: Manager) -> None:
    async with manager.container("typed", "sleep", "1000") as container:
        await container.start()
        with pytest.raises(StatusError) as caught:
            await container.exec_any("types.containerd.io/opencontainers/runtime-spec/1/Other", json.dumps({}).encode())
        assert caught.value.code == Code.INVALID_ARGUMENT
