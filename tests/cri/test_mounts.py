"""What of the node's files a container sees, and what becomes of changes on either side."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import Pod, Pods
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


def at(path: str, source: Path, **options: bool) -> cri.Mount:
    """A mount of the node's file or directory."""
    return cri.Mount(container_path=path, host_path=str(source), **options)


class AtomicDirectory:
    """A volume written as a kubelet writes configuration maps: `..data` points at the current set and is swapped.

    Source: `kubernetes: pkg/volume/util/atomic_writer.go`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 0

    def write(self, files: Mapping[str, str]) -> None:
        """Swap to a new set of files; what is not in it goes."""
        self._generation += 1
        current = self.path / f"..{self._generation}"
        current.mkdir()
        for name, text in files.items():
            (current / name).write_text(text)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(current.name)
        fresh.rename(self.path / "..data")
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for entry in self.path.iterdir():
            if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in files:
                entry.unlink()
        for old in self.path.glob("..[0-9]*"):
            if old != current:
                for file in old.iterdir():
                    file.unlink()
                old.rmdir()


@ON_BOTH
async def test_a_directory_of_the_node_is_read_and_written(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "from-node").write_text("hello from the node\n")
    async with pods.run() as pod:
        script = "cat /work/from-node; echo hello from the pod > /work/from-pod"
        outcome = await pod.outcome("sh", "-c", script, mounts=[at("/work", tmp_path)])
        assert outcome.stdout == b"hello from the node\n"
    assert (tmp_path / "from-pod").read_text() == "hello from the pod\n"


@ON_BOTH
async def test_a_file_of_the_node_is_read_and_written(pods: Pods, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before\n")
    async with pods.run() as pod:
        script = "cat /etc/one-file; echo after > /etc/one-file"
        outcome = await pod.outcome("sh", "-c", script, mounts=[at("/etc/one-file", file)])
        assert outcome.stdout == b"before\n"
    assert file.read_text() == "after\n"


@pytest.mark.parametrize("kind", ["file", "directory"])
@ON_BOTH
async def test_a_read_only_mount_is_not_written(pods: Pods, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("untouched\n")
    source, target = (tmp_path / "file", "/mnt") if kind == "file" else (tmp_path, "/mnt/file")
    async with pods.run() as pod:
        mounts = [at("/mnt", source, readonly=True)]
        outcome = await pod.outcome("sh", "-c", f"cat {target}; echo changed > {target}", mounts=mounts)
        assert outcome.stdout == b"untouched\n"
        assert outcome.code != 0
        assert b"Read-only" in outcome.stderr
    assert (tmp_path / "file").read_text() == "untouched\n"


async def test_a_source_that_is_missing_is_made_as_a_directory(shared_pod: Pod, tmp_path: Path) -> None:
    outcome = await shared_pod.outcome("touch", "/mnt/file", mounts=[at("/mnt", tmp_path / "to" / "make")])
    assert outcome.code == 0
    assert (tmp_path / "to" / "make" / "file").exists()


async def test_a_link_is_followed_on_the_node(shared_pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("found\n")
    (tmp_path / "link").symlink_to("real")
    outcome = await shared_pod.outcome("cat", "/mnt/file", mounts=[at("/mnt", tmp_path / "link")])
    assert outcome.stdout == b"found\n"


async def test_the_place_of_a_mount_is_made_in_the_container(shared_pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("deep\n")
    mounts = [at("/a/b/c", tmp_path), at("/d/e/file", tmp_path / "file")]
    outcome = await shared_pod.outcome("cat", "/a/b/c/file", "/d/e/file", mounts=mounts)
    assert outcome.stdout == b"deep\ndeep\n"


@ON_BOTH
async def test_changes_on_the_node_are_seen_in_a_running_container(pods: Pods, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one\n")
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000", mounts=[at("/mnt", tmp_path)])
        assert await container.sh("cat /mnt/file") == "one"
        file.write_text("two, and longer\n")
        await container.sh("until [ \"$(cat /mnt/file)\" = 'two, and longer' ]; do sleep 0.05; done")
        file.unlink()
        await container.sh("while [ -e /mnt/file ]; do sleep 0.05; done")
        (tmp_path / "new").write_text("new\n")
        await container.sh("until [ -e /mnt/new ]; do sleep 0.05; done; cat /mnt/new")


@ON_BOTH
async def test_a_configuration_map_is_swapped_under_a_running_container(pods: Pods, tmp_path: Path) -> None:
    volume = AtomicDirectory(tmp_path)
    volume.write({"color": "red\n", "size": "small\n"})
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000", mounts=[at("/config", tmp_path, readonly=True)])
        assert await container.sh("cat /config/color /config/size") == "red\nsmall"
        volume.write({"color": "blue\n", "size": "large\n"})
        await container.sh('until [ "$(cat /config/color)" = blue ]; do sleep 0.05; done')
        assert await container.sh("cat /config/size") == "large"


@ON_BOTH
async def test_a_key_removed_from_a_configuration_map_goes_from_a_running_container(pods: Pods, tmp_path: Path) -> None:
    volume = AtomicDirectory(tmp_path)
    volume.write({"kept": "kept\n", "going": "going\n"})
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000", mounts=[at("/config", tmp_path, readonly=True)])
        assert await container.sh("ls /config") == "going\nkept"
        volume.write({"kept": "changed\n"})
        await container.sh("while [ -e /config/going ]; do sleep 0.05; done")
        await container.sh('until [ "$(cat /config/kept)" = changed ]; do sleep 0.05; done')
        assert await container.sh("ls /config") == "kept"


async def test_a_reader_never_sees_half_a_configuration_map(shared_pod: Pod, tmp_path: Path) -> None:
    volume = AtomicDirectory(tmp_path / "config")
    volume.path.mkdir()
    volume.write({"a": "0\n", "b": "0\n"})
    script = "until [ -e /stop/now ]; do (cd /config/..data 2>/dev/null && cat a b | uniq | wc -l); done"
    (tmp_path / "stop").mkdir()
    mounts = [at("/config", volume.path), at("/stop", tmp_path / "stop")]
    container = await shared_pod.run("sh", "-c", f"({script}) 2>/dev/null", mounts=mounts)
    await container.wrote(b"1\n")
    for generation in range(1, 20):
        volume.write({"a": f"{generation}\n", "b": f"{generation}\n"})
        await asyncio.sleep(0)
    (tmp_path / "stop" / "now").touch()
    await container.exited()
    assert b"2\n" not in container.output()
    await container.remove()


async def test_a_part_of_a_volume_is_mounted_alone(shared_pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "web.conf").write_text("listen 80\n")
    (tmp_path / "secret").write_text("hidden\n")
    mounts = [at("/etc/web/web.conf", tmp_path / "conf" / "web.conf", readonly=True)]
    outcome = await shared_pod.outcome("sh", "-c", "cat /etc/web/web.conf; ls /etc/web", mounts=mounts)
    assert outcome.stdout == b"listen 80\nweb.conf\n"


@ON_BOTH
async def test_a_volume_of_the_pod_is_written_by_one_container_and_read_by_another(pods: Pods, tmp_path: Path) -> None:
    async with pods.run() as pod:
        mounts = [at("/shared", tmp_path)]
        reader = await pod.run(
            "sh", "-c", "until [ -s /shared/note ]; do sleep 0.02; done; cat /shared/note", mounts=mounts
        )
        assert (await pod.outcome("sh", "-c", "echo passed on > /shared/note", mounts=mounts)).code == 0
        assert (await reader.exited()).exit_code == 0
        assert reader.output() == b"passed on\n"


async def test_one_directory_is_mounted_at_two_places_with_different_rights(shared_pod: Pod, tmp_path: Path) -> None:
    mounts = [at("/rw", tmp_path), at("/ro", tmp_path, readonly=True)]
    outcome = await shared_pod.outcome(
        "sh", "-c", "echo x > /rw/file && cat /ro/file && ! touch /ro/file", mounts=mounts
    )
    assert (outcome.code, outcome.stdout) == (0, b"x\n")


async def test_a_mount_inside_a_mount_is_seen(shared_pod: Pod, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(f"{name}\n")
    (tmp_path / "outer" / "place").mkdir()
    mounts = [at("/outer", tmp_path / "outer"), at("/outer/place", tmp_path / "inner")]
    outcome = await shared_pod.outcome("cat", "/outer/outer", "/outer/place/inner", mounts=mounts)
    assert outcome.stdout == b"outer\ninner\n"


async def test_twenty_mounts_are_all_there(shared_pod: Pod, tmp_path: Path) -> None:
    mounts = []
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").write_text(f"{number}\n")
        mounts.append(at(f"/mnt/{number}", tmp_path / str(number)))
    outcome = await shared_pod.outcome("sh", "-c", "cat /mnt/*/file | sort -n", mounts=mounts)
    assert outcome.stdout.decode().split() == [str(number) for number in range(20)]


async def test_owners_modes_and_times_are_the_nodes(shared_pod: Pod, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o640)
    os.chown(file, 1234, 5678)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    outcome = await shared_pod.outcome("stat", "-c", "%u %g %a %Y", "/mnt/file", mounts=[at("/mnt", tmp_path)])
    assert outcome.stdout == b"1234 5678 640 1000000000\n"


@ON_BOTH
async def test_owners_and_modes_given_in_the_container_are_the_nodes(pods: Pods, tmp_path: Path) -> None:
    async with pods.run() as pod:
        script = "umask 0; touch /mnt/file; chmod 4751 /mnt/file; mkdir -m 1777 /mnt/dir"
        linux = cri.LinuxContainerConfig(
            security_context=cri.LinuxContainerSecurityContext(
                run_as_user=cri.Int64Value(value=1234), run_as_group=cri.Int64Value(value=5678)
            )
        )
        tmp_path.chmod(0o777)
        assert (await pod.outcome("sh", "-c", script, mounts=[at("/mnt", tmp_path)], linux=linux)).code == 0
    file, directory = (tmp_path / "file").stat(), (tmp_path / "dir").stat()
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (1234, 5678, 0o4751)
    assert stat.S_IMODE(directory.st_mode) == 0o1777


@ON_BOTH
async def test_a_large_file_is_the_same_on_both_sides(pods: Pods, tmp_path: Path) -> None:
    data = os.urandom(16 << 20)
    (tmp_path / "in").write_bytes(data)
    async with pods.run() as pod:
        script = "sha256sum < /mnt/in; cp /mnt/in /mnt/out; sync"
        outcome = await pod.outcome("sh", "-c", script, mounts=[at("/mnt", tmp_path)])
        assert outcome.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(data).digest()


async def test_renames_links_and_removals_reach_the_node(shared_pod: Pod, tmp_path: Path) -> None:
    script = "cd /mnt; echo a > a; mv a b; ln b hard; ln -s b soft; mkdir d; rmdir d; mkfifo pipe; echo x > x; rm x"
    assert (await shared_pod.outcome("sh", "-c", script, mounts=[at("/mnt", tmp_path)])).code == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b", "hard", "pipe", "soft"]
    assert (tmp_path / "b").stat().st_nlink == 2
    assert (tmp_path / "soft").readlink() == Path("b")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


async def test_names_that_are_not_plain_are_kept(shared_pod: Pod, tmp_path: Path) -> None:
    names = ["with space", "ünïcode", "-dash", "new\nline", ".hidden"]
    for name in names:
        (tmp_path / name).write_text(name)
    outcome = await shared_pod.outcome(
        "sh", "-c", 'cd /mnt; for f in * .h*; do cat "./$f"; done', mounts=[at("/mnt", tmp_path)]
    )
    assert outcome.code == 0
    for name in names:
        assert name.encode() in outcome.stdout


async def test_the_message_of_a_container_is_written_to_its_file(shared_pod: Pod, tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.touch(mode=0o666)
    script = "echo out of disk > /dev/termination-log; exit 1"
    assert (await shared_pod.outcome("sh", "-c", script, mounts=[at("/dev/termination-log", file)])).code == 1
    assert file.read_text() == "out of disk\n"


async def test_a_mount_at_the_usual_place_of_secrets_is_read(shared_pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    outcome = await shared_pod.outcome("cat", f"{place}/token", mounts=[at(place, tmp_path, readonly=True)])
    assert outcome.stdout == b"secret"


async def test_hosts_and_resolver_of_the_pod_are_files_of_the_container(pods: Pods) -> None:
    dns = cri.DNSConfig(servers=["192.0.2.53"], searches=["svc.example"], options=["ndots:5"])
    async with pods.run(dns_config=dns) as pod:
        outcome = await pod.outcome("cat", "/etc/resolv.conf")
        assert outcome.stdout.decode().splitlines() == [
            "search svc.example",
            "nameserver 192.0.2.53",
            "options ndots:5",
        ]
        assert b"localhost" in (await pod.outcome("cat", "/etc/hosts")).stdout


async def test_sources_stay_after_the_pod(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("still here\n")
    async with pods.run() as pod:
        await pod.run("sleep", "1000", mounts=[at("/mnt", tmp_path), at("/one", tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "still here\n"


async def test_a_removed_container_lets_go_of_its_mounts(shared_pod: Pod, tmp_path: Path) -> None:
    container = await shared_pod.run("sleep", "1000", mounts=[at("/mnt", tmp_path)])
    await container.remove()
    held = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in held


async def test_a_relative_source_is_refused(shared_pod: Pod) -> None:
    mounts = [cri.Mount(container_path="/mnt", host_path="no/such/relative")]
    with pytest.raises(CriError):
        await shared_pod.run("true", mounts=mounts)


async def test_a_socket_of_the_node_is_seen_as_one(shared_pod: Pod, short_tmp: Path) -> None:
    directory = short_tmp / "socket"
    directory.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        outcome = await shared_pod.outcome("test", "-S", "/mnt/s", mounts=[at("/mnt", directory)])
        assert outcome.code == 0
    (directory / "s").unlink()
