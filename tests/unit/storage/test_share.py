from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource import mount
from kata_py.resource.mntns import MountNamespace
from kata_py.resource.undo import RemoveTree, Unmount
from kata_py.storage import share as shares
from kata_py.storage.errors import StorageError
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.share import Volume, open_share
from tests.drivers.journal import ListJournal

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "sandboxes"
    yield path
    mount.detach_below(str(path))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs"
    path.mkdir()
    (path / "hello").write_text("hello")
    return path


def mounted_below(path: Path) -> list[str]:
    return [point for point in mount.mount_points() if point.startswith(str(path))]


async def test_a_containers_files_appear_in_what_is_shared_and_go_away(
    root: Path, rootfs: Path, tmp_path: Path, journal: ListJournal
) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost")
    volume = Volume.for_container("c1", tmp_path / "hosts", "/etc/hosts")
    async with open_share("pod", journal, root) as share:
        shared = shares.directory("pod", root)
        async with share.container("c1", [RootfsMount("bind", str(rootfs), ("rbind",))], [volume]):
            assert (shared / "c1/rootfs/hello").read_text() == "hello"
            assert (shared / volume.name).read_text() == "127.0.0.1 localhost"
        assert list((root / "pod").glob("*/*")) == []  # not even a mount point: containers come and go for months
    assert not (root / "pod").exists()
    assert mounted_below(root) == []
    assert journal.entries == []


async def test_files_of_no_container_lie_in_a_directory_of_their_own(
    root: Path, tmp_path: Path, journal: ListJournal
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("x")
    volumes = [
        Volume.for_sandbox(tmp_path / "data", read_only=True),
        Volume.for_sandbox(tmp_path / "file", read_only=False),
    ]
    async with open_share("pod", journal, root) as share, share.sandbox(volumes):
        place = shares.directory("pod", root) / "sandbox-mounts"
        assert (place / "file").read_text() == "x"
        with pytest.raises(OSError, match="Read-only"):
            (place / "data" / "new").touch()
        (place / "file").write_text("y")
    assert journal.entries == []


async def test_a_rootfs_that_the_guest_mounts_is_a_place_to_mount_it(root: Path, journal: ListJournal) -> None:
    async with open_share("pod", journal, root) as share, share.container("c1", None, []):
        assert (shares.directory("pod", root) / "c1").is_dir()
        assert [point for point in mounted_below(root) if "c1" in point] == []


async def test_a_rootfs_that_the_manager_has_mounted_is_bound(root: Path, rootfs: Path, journal: ListJournal) -> None:
    async with open_share("pod", journal, root) as share, share.container("c1", rootfs, []):
        assert (shares.directory("pod", root) / "c1/rootfs/hello").exists()


async def test_a_read_only_volume_cannot_be_written_through_the_share(
    root: Path, rootfs: Path, tmp_path: Path, journal: ListJournal
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    volume = Volume.for_container("c1", secret, "/secret", ["ro"])
    async with open_share("pod", journal, root) as share, share.container("c1", rootfs, [volume]):
        for way in ("mounts", "shared"):
            with pytest.raises(OSError, match="Read-only"):
                (root / "pod" / way / volume.name / "new").touch()
        (secret / "from-the-host").touch()
        assert (root / "pod/shared" / volume.name / "from-the-host").exists()
        assert not any("/private/" in point for point in mounted_below(root))


_OTHER_NAMESPACE = """
import os, sys
print("ready", flush=True)
for line in sys.stdin:
    print(os.path.exists(line.strip()), flush=True)
"""


async def test_what_is_mounted_later_appears_in_a_namespace_that_was_cloned_before(
    root: Path, rootfs: Path, tmp_path: Path, journal: ListJournal
) -> None:
    """As virtiofsd does: clone the mount namespace, make it a slave, bind the shared directory onto itself."""
    async with open_share("pod", journal, root) as share:
        shared = shares.directory("pod", root)
        script = f"mount --bind {shared} {shared} && exec {sys.executable} -c '{_OTHER_NAMESPACE}'"
        with subprocess.Popen(  # noqa: ASYNC220  a helper that answers at once
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as virtiofsd:  # fmt: skip
            assert virtiofsd.stdin is not None
            assert virtiofsd.stdout is not None

            def sees(path: Path) -> str:
                assert virtiofsd.stdin is not None
                assert virtiofsd.stdout is not None
                virtiofsd.stdin.write(f"{path}\n")
                virtiofsd.stdin.flush()
                return virtiofsd.stdout.readline().strip()

            assert virtiofsd.stdout.readline() == "ready\n"
            volume = Volume.for_container("c1", rootfs, "/data", ["ro"])
            async with share.container("c1", rootfs, [volume]):
                assert sees(shared / "c1/rootfs/hello") == "True"
                assert sees(shared / volume.name / "hello") == "True"
            assert sees(shared / "c1/rootfs/hello") == "False"
            virtiofsd.stdin.close()
            assert virtiofsd.wait(timeout=5) == 0


async def test_every_mount_is_in_the_journal_before_it_is_made(
    root: Path, rootfs: Path, journal: ListJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    unrecorded: list[str] = []
    real = mount.mount

    def watched(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
        if Unmount(target) not in journal.entries:
            unrecorded.append(target)
        real(source, target, fstype, flags, data)

    monkeypatch.setattr(mount, "mount", watched)
    async with open_share("pod", journal, root) as share, share.container("c1", rootfs, []):
        assert journal.entries[0] == RemoveTree(str(root / "pod"))
    assert unrecorded == []


async def test_a_missing_source_is_named_and_leaves_nothing_behind(
    root: Path, rootfs: Path, journal: ListJournal
) -> None:
    volume = Volume.for_container("c1", Path("/nowhere"), "/data")
    async with open_share("pod", journal, root) as share:
        mounts = len(mounted_below(root))
        with pytest.raises(StorageError, match="cannot share /nowhere with the guest: No such file"):
            async with share.container("c1", rootfs, [volume]):
                pass
        assert len(mounted_below(root)) == mounts
    assert journal.entries == []


async def test_the_record_alone_removes_everything(root: Path, rootfs: Path, journal: ListJournal) -> None:
    share = open_share("pod", journal, root)
    opened = await share.__aenter__()
    container = opened.container("c1", rootfs, [])
    await container.__aenter__()
    for undo in reversed(journal.entries):
        undo.perform()
    assert not (root / "pod").exists()
    assert mounted_below(root) == []
    assert (rootfs / "hello").exists()
    await container.__aexit__(None, None, None)  # and the regular way after it is fine
    await share.__aexit__(None, None, None)


async def test_two_volumes_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    one = Volume.for_container("c1", tmp_path / "one", "/a/data")
    other = Volume.for_container("c1", tmp_path / "one", "/b/data")
    assert one.name != other.name
    assert one.name.endswith("-data")
    assert one.guest_path == f"/run/kata-containers/shared/containers/{one.name}"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory on a mount of its own, shared with its like as `/` is by systemd, with another mounted below."""
    top = tmp_path / "tree"
    top.mkdir()
    mount.mount("top", str(top), "tmpfs")
    mount.mount("", str(top), "", mount.MS_SHARED)
    (top / "below").mkdir()
    mount.mount("below", str(top / "below"), "tmpfs")
    (top / "below/deep").touch()
    yield top
    mount.detach_below(str(top))


@pytest.mark.parametrize(("option", "seen"), [("bind", False), ("rbind", True)])
async def test_what_is_mounted_below_is_seen_by_a_recursive_bind_only(
    root: Path, rootfs: Path, tree: Path, journal: ListJournal, option: str, seen: bool
) -> None:
    volume = Volume.for_container("c1", tree, "/data", [option])
    async with open_share("pod", journal, root) as share, share.container("c1", rootfs, [volume]):
        assert (root / "pod/shared" / volume.name / "below/deep").exists() is seen
    assert mounted_below(root) == []


@pytest.mark.parametrize(("option", "writable"), [("ro", True), ("rro", False)])
async def test_what_is_mounted_below_is_read_only_if_it_is_asked_for(
    root: Path, rootfs: Path, tree: Path, journal: ListJournal, option: str, writable: bool
) -> None:
    volume = Volume.for_container("c1", tree, "/data", ["rbind", option])
    async with open_share("pod", journal, root) as share, share.container("c1", rootfs, [volume]):
        seen = root / "pod/mounts" / volume.name
        with pytest.raises(OSError, match="Read-only"):
            (seen / "new").touch()
        assert os.access(seen / "below", os.W_OK) is writable
        assert os.access(tree, os.W_OK)  # the host's own way to it stays as it was


@pytest.mark.parametrize(("option", "seen"), [("rprivate", False), ("rslave", True), ("rshared", True)])
async def test_what_is_mounted_on_the_host_later_is_seen_if_it_is_asked_for(
    root: Path, rootfs: Path, tree: Path, journal: ListJournal, option: str, seen: bool
) -> None:
    volume = Volume.for_container("c1", tree, "/data", ["rbind", option])
    (tree / "late").mkdir()
    async with open_share("pod", journal, root) as share, share.container("c1", rootfs, [volume]):
        mount.mount("late", str(tree / "late"), "tmpfs")
        (tree / "late/file").touch()
        assert (root / "pod/shared" / volume.name / "late/file").exists() is seen
        mount.unmount(str(tree / "late"))
        assert not (root / "pod/shared" / volume.name / "late/file").exists()
    assert mounted_below(root) == []


async def test_what_all_containers_of_a_pod_see_is_there_once_and_stays_to_the_pods_end(
    root: Path, rootfs: Path, tree: Path, journal: ListJournal
) -> None:
    volume = Volume.for_pod(tree, ["rbind", "rshared"])
    (tree / "late").mkdir()
    async with open_share("pod", journal, root) as share:
        seen = root / "pod/shared" / volume.name
        async with share.container("c1", rootfs, [volume]), share.container("c2", rootfs, [volume]):
            assert mounted_below(root).count(str(root / "pod/mounts" / volume.name)) == 1
        mount.mount("late", str(tree / "late"), "tmpfs")
        (tree / "late/file").touch()
        async with share.container("c3", rootfs, [volume]):
            assert (seen / "late/file").exists()
        assert (seen / "below/deep").exists()
        mount.unmount(str(tree / "late"))
    assert mounted_below(root) == []
    assert journal.entries == []
    assert (tree / "below/deep").exists()


async def test_what_cannot_be_there_for_all_is_tried_again(
    root: Path, rootfs: Path, tmp_path: Path, journal: ListJournal
) -> None:
    volume = Volume.for_pod(tmp_path / "later", ["rbind", "rshared"])
    async with open_share("pod", journal, root) as share:
        with pytest.raises(StorageError, match="cannot share"):
            async with share.container("c1", rootfs, [volume]):
                pass
        (tmp_path / "later").mkdir()
        async with share.container("c2", rootfs, [volume]):
            assert (root / "pod/shared" / volume.name).is_dir()
    assert journal.entries == []


async def test_a_rootfs_below_a_private_mount_of_the_manager_is_shared(
    home: Path, node: MountNamespace, root: Path, journal: ListJournal
) -> None:
    async with open_share("pod", journal, root, node=node) as share:
        shared = shares.directory("pod", root)
        async with share.container("c1", home / "merged", []):
            assert (shared / "c1/rootfs/greeting").read_text() == "hello\n"
            assert list((shared / "c1/rootfs/below").iterdir()) == []  # as of a bind that is not recursive
            (root / "pod/mounts/c1/rootfs/written").write_text("by the container")
        assert node.run((home / "merged" / "written").read_text) == "by the container"
        assert not any("c1" in point for point in mounted_below(root))
    assert journal.entries == []


async def test_volumes_below_it_are_shared_whole_or_read_only_as_they_ask(
    home: Path, node: MountNamespace, root: Path, journal: ListJournal
) -> None:
    whole = Volume.for_container("c1", home / "merged", "/whole", ["rbind", "rro"])
    file = Volume.for_container("c1", home / "merged" / "greeting", "/file", ["ro"])
    async with open_share("pod", journal, root, node=node) as share, share.container("c1", None, [whole, file]):
        shared, mounts = shares.directory("pod", root), root / "pod/mounts"
        assert (shared / whole.name / "below/file").exists()
        assert (shared / file.name).read_text() == "hello\n"
        for place in (mounts / whole.name / "new", mounts / whole.name / "below/new", mounts / file.name):
            with pytest.raises(OSError, match="Read-only"):
                place.write_text("no")
    assert journal.entries == []


async def test_a_source_that_is_not_there_either_is_named(
    home: Path, node: MountNamespace, root: Path, journal: ListJournal
) -> None:
    async with open_share("pod", journal, root, node=node) as share:
        with pytest.raises(StorageError, match=r"cannot share .*/home/nothing with the guest: No such file"):
            async with share.container("c1", home / "nothing", []):
                pass
    assert not any(isinstance(entry, Unmount) for entry in journal.entries)
