"""A container's life, called as CRI-O calls it, and what the manager is told when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kata_protos.task_types_pb2 import Status
from kata_py.sandbox.record import Record
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle as bundles
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


async def test_state_answers_at_once_while_the_machine_hangs(manager: Manager) -> None:
    async with manager.container("hung", "sleep", "1000") as container:
        pid = await container.start()
        os.kill(pid, signal.SIGSTOP)
        try:
            stats = asyncio.create_task(container.stats(timeout=60))
            await asyncio.sleep(0)
            for _ in range(5):
                began = time.monotonic()
                assert (await container.state()).status == Status.RUNNING
                assert time.monotonic() - began < 0.05
            assert not stats.done()
        finally:
            os.kill(pid, signal.SIGCONT)
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
        metrics = await container.metrics()
        for part in ("cpu", "memory", "pids"):
            assert metrics.HasField(part)
        assert metrics.memory.usage.usage > 0
        assert metrics.pids.current >= 1


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


async def test_a_timeline_names_the_stages(manager: Manager, driver: str) -> None:
    async with manager.container("timed", "sleep", "1000") as container:
        await container.start()
        stages = {span.name for span in Record.load("timed").timeline}
    expected = {"request", "plan", "agent", "create", "start"}
    assert stages >= (expected if driver == "namespace" else expected | {"virtiofsd", "qemu", "kernel", "userland"})


async def refused(manager: Manager, id: str, *args: str, **how: object) -> StatusError:
    """Create a container that cannot be, and return what the manager is told."""
    async with manager.container(id, *args, create=False, **how) as container:  # type: ignore[arg-type]
        with pytest.raises(StatusError) as caught:
            await container.create()
        return caught.value


async def test_an_unknown_command_fails_create_by_name(manager: Manager) -> None:
    assert "no-such-command" in (await refused(manager, "wrong", "no-such-command")).message


async def test_a_garbled_config_json_is_refused_with_its_place(manager: Manager) -> None:
    async with manager.container("garbled", "true", create=False) as container:
        (container.bundle / "config.json").write_text('{"process": {,}}')
        with pytest.raises(StatusError, match=r"config\.json.*line 1") as caught:
            await container.create()
    assert caught.value.code == Code.INVALID_ARGUMENT


async def test_a_missing_config_json_is_refused_by_path(manager: Manager) -> None:
    async with manager.container("missing", "true", create=False) as container:
        (container.bundle / "config.json").unlink()
        with pytest.raises(StatusError, match=r"missing/config\.json"):
            await container.create()


async def test_an_id_with_a_slash_is_refused_at_start(manager: Manager, tmp_path: Path) -> None:
    bundle = bundles.write(tmp_path / "bundle", bundles.spec("x", manager.rootfs, bundles.process(["true"])))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await manager.start_shim("a/b", bundle)
    assert b"a/b" in caught.value.output
    assert sorted(entry.name for entry in bundle.iterdir()) == ["config.json"]


async def test_an_unknown_key_names_key_file_line_and_the_nearest(
    manager: Manager, driver: str, tmp_path: Path
) -> None:
    text = manager.config.read_text().replace("default_memory", "default_memroy")
    config = tmp_path / "configuration.toml"
    config.write_text(text)
    line = 1 + text[: text.index("default_memroy")].count("\n")
    other = Manager(manager.launcher, manager.directory, config, manager.rootfs)
    error = await refused(other, "unknown-key", "true")
    for part in ("default_memroy", str(config), str(line), "default_memory"):
        assert part in error.message


@pytest.mark.parametrize(
    ("key", "value"), [("kernel", "/no/such/kernel"), ("image", "/no/such/image"), ("path", "/no/such/qemu")]
)
@pytest.mark.parametrize("driver", [pytest.param("qemu", marks=pytest.mark.qemu)], indirect=True)
async def test_a_missing_file_is_named_with_its_key(manager: Manager, tmp_path: Path, key: str, value: str) -> None:
    lines = manager.config.read_text().splitlines()
    config = tmp_path / "configuration.toml"
    config.write_text("\n".join(f'{key} = "{value}"' if line.startswith(f"{key} =") else line for line in lines))
    error = await refused(Manager(manager.launcher, manager.directory, config, manager.rootfs), f"no-{key}", "true")
    assert value in error.message
    assert key in error.message


async def test_an_exec_spec_of_another_type_is_refused(manager: Manager) -> None:
    async with manager.container("typed", "sleep", "1000") as container:
        await container.start()
        with pytest.raises(StatusError) as caught:
            await container.exec_any("types.containerd.io/opencontainers/runtime-spec/1/Other", json.dumps({}).encode())
        assert caught.value.code == Code.INVALID_ARGUMENT
