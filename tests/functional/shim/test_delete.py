"""The delete binary, after all the ways in which a shim may have gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kata_protos.task_v2_pb2 import DeleteResponse
from kata_py.resource import mount, process
from kata_py.resource.undo import KillProcess, RemoveFile, Unmount
from kata_py.sandbox import shims
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.sweep import sweep
from tests.functional.shim.conftest import MakeShim, Shim, daemons_of, wait_for_end
from tests.functional.shim.test_start import connected_pid

pytestmark = pytest.mark.root

LIMIT = 5.0  # seconds that containerd gives


def deleted(shim: Shim) -> DeleteResponse:
    """Delete, within containerd's limit and without a word on stderr."""
    began = time.monotonic()
    done = shim.delete()
    assert (done.returncode, done.stderr) == (0, b"")
    assert time.monotonic() - began < LIMIT
    response = DeleteResponse.FromString(done.stdout)
    assert response.exit_status == 137
    assert abs(response.exited_at.ToNanoseconds() - time.time_ns()) < LIMIT * 1e9
    return response


def noted(shim: Shim) -> list[Path]:
    return list(Path(shims.ROOT).glob(f"{shim.id}@*"))


def assert_gone(shim: Shim) -> None:
    assert not shim.socket.exists()
    assert noted(shim) == []
    assert daemons_of(shim.id) == []
    if shim.bundle.exists():
        assert [path.name for path in shim.bundle.iterdir()] == ["config.json"]


def test_nothing_to_delete_is_success_any_number_of_times(shim: Shim) -> None:
    deleted(shim)
    deleted(shim)
    (shim.bundle / "config.json").unlink()
    shim.bundle.rmdir()
    deleted(shim)


def test_a_killed_shim_leaves_nothing_after_delete(shim: Shim) -> None:
    shim.start()
    shim.kill()
    deleted(shim)
    assert_gone(shim)
    deleted(shim)


def test_a_shim_that_was_killed_before_its_first_task_is_found_once_its_bundle_is_gone(shim: Shim) -> None:
    shim.start()
    shim.kill()
    sweep(HostPaths())
    assert shim.socket.exists()
    assert [path.readlink() for path in noted(shim)] == [shim.bundle]
    shutil.rmtree(shim.bundle)  # by CRI-O, which runs no delete
    sweep(HostPaths())
    assert_gone(shim)


def test_what_a_dead_sandboxs_record_names_is_undone(shim: Shim, tmp_path: Path) -> None:
    shim.start()
    shim.kill()
    mounted, file = tmp_path / "mounted", tmp_path / "file"
    mounted.mkdir()
    with subprocess.Popen(["sleep", "600"], process_group=0) as machine:
        record = Record.create(shim.id, namespace="default", bundle=shim.bundle)
        record.intend(KillProcess(machine.pid, process.start_time(machine.pid) or 0, "qemu"))
        record.intend(Unmount(str(mounted)))
        mount.mount("none", str(mounted), "tmpfs")
        record.intend(RemoveFile(str(file)))
        file.touch()
        deleted(shim)
        assert machine.wait(5) == -signal.SIGKILL
    assert not mounted.is_mount()
    assert not file.exists()
    assert not record.directory.exists()
    assert_gone(shim)


def test_the_root_file_system_is_unmounted_from_the_bundle(shim: Shim) -> None:
    rootfs = shim.bundle / "rootfs"
    rootfs.mkdir()
    for _ in range(2):
        mount.mount("none", str(rootfs), "tmpfs")
    deleted(shim)
    assert not rootfs.is_mount()
    rootfs.rmdir()


async def test_a_living_shim_without_tasks_is_ended(shim: Shim) -> None:
    await connected_pid(shim.start())
    pid = shim.pid
    deleted(shim)
    wait_for_end(pid)
    assert_gone(shim)


def test_a_shim_that_has_only_just_started_is_ended(shim: Shim) -> None:
    shim.start()
    deleted(shim)
    assert_gone(shim)


async def test_a_shim_that_serves_tasks_is_left_alone(make_shim: MakeShim) -> None:
    shim = make_shim(occupied=True)
    address = shim.start()
    for _ in range(2):
        deleted(shim)
    assert await connected_pid(address) == shim.pid
    assert (shim.bundle / "address").read_text() == address


async def test_the_sandboxs_shim_is_left_alone_when_a_container_of_its_pod_is_deleted(make_shim: MakeShim) -> None:
    sandbox = make_shim()  # it has no tasks, and would end if asked to
    address = sandbox.start()
    pod = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox.id}
    container = make_shim(annotations=pod)
    assert container.start() == address
    deleted(container)
    assert [path.name for path in container.bundle.iterdir()] == ["config.json"]
    assert await connected_pid(address) == sandbox.pid


async def test_a_shim_that_hangs_is_killed(make_shim: MakeShim) -> None:
    shim = make_shim(occupied=True)
    await connected_pid(shim.start())
    shim.kill(signal.SIGSTOP)
    deleted(shim)
    assert_gone(shim)


async def test_a_shim_that_lost_its_socket_is_killed_with_its_sandbox(make_shim: MakeShim) -> None:
    shim = make_shim(occupied=True)
    await connected_pid(shim.start())
    shim.socket.unlink()
    deleted(shim)
    assert_gone(shim)


@pytest.mark.parametrize("content", [None, b"{"], ids=["missing", "garbled"])
def test_no_spec_is_needed(content: bytes | None, shim: Shim) -> None:
    shim.start()
    shim.kill()
    (shim.bundle / "config.json").unlink()
    if content is not None:
        (shim.bundle / "config.json").write_bytes(content)
    deleted(shim)
    assert not shim.socket.exists()


def test_a_bundle_that_is_gone_does_not_matter(shim: Shim) -> None:
    shim.start()
    shim.kill()
    for path in shim.bundle.iterdir():
        path.unlink()
    shim.bundle.rmdir()
    deleted(shim)
    assert_gone(shim)


def test_another_process_of_that_id_or_pid_is_not_taken_for_the_shim(shim: Shim) -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        (shim.bundle / "shim.pid").write_text(str(innocent.pid))
        deleted(shim)
        assert innocent.poll() is None
        innocent.kill()


def failed(shim: Shim) -> str:
    done = shim.delete()
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    return line


def test_a_damaged_record_is_named_and_kept(shim: Shim) -> None:
    record = Record.create(shim.id, namespace="default", bundle=shim.bundle)
    file = record.directory / "record.json"
    file.write_text("{")
    assert f"what to undo is not known: {file}: " in failed(shim)
    file.unlink()
    record.directory.rmdir()


def test_what_cannot_be_removed_is_named_and_stays_on_record(shim: Shim, tmp_path: Path) -> None:
    record = Record.create(shim.id, namespace="default", bundle=shim.bundle)
    record.intend(RemoveFile(str(tmp_path)))  # a directory
    assert f"sandbox {shim.id} is not all gone: " in failed(shim)
    assert Record.load(shim.id).undo == record.undo
    record.settled(record.undo[0])
    deleted(shim)


def test_a_start_under_way_is_not_disturbed(shim: Shim) -> None:
    lock = os.open(shim.bundle, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "right now" in failed(shim)
    os.close(lock)


@pytest.mark.parametrize("id", ["a/b", ""])
def test_a_bad_id_is_refused(id: str, shim: Shim) -> None:
    shim.more = ["-id", id]
    assert "containerd-shim-kata-v2 delete: " in failed(shim)
