from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.oci.spec import Mount
from kata_py.sandbox.errors import InvalidArgument, SandboxError
from kata_py.sandbox.volumes import Volumes, bind_sources, plan_volumes
from kata_py.storage.source import Kind, Source

SHARE = "/run/kata-containers/shared/containers"
EMPTY_DIR = Path("/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/cache")


def bind(destination: str, source: str | Path, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def planned(mount: Mount, source: Source | None = None) -> Volumes:
    sources = {source.path: source} if source else {}
    return plan_volumes("c1", [mount], sources, pod_shm=False)


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        bind("/sys/fs/cgroup", "/sys/fs/cgroup"),
        bind("/proc/cpuinfo", "/run/cpuinfo"),
        bind("/dev/fuse", "/dev/fuse"),
    ],
)
def test_what_the_guest_has_itself_is_left_as_it_is(mount: Mount) -> None:
    assert planned(mount) == Volumes((mount,))
    assert bind_sources([mount]) == []


def test_a_directory_of_the_host_is_shared_with_the_mounts_own_options() -> None:
    told = planned(bind("/data", "/srv/data", "rprivate", "ro"))
    [volume] = told.shared
    assert (volume.source, volume.read_only, volume.recursive) == (Path("/srv/data"), True, True)
    assert told.mounts == (bind("/data", volume.guest_path, "rprivate", "ro"),)
    assert volume.guest_path.startswith(f"{SHARE}/c1-")


def test_a_file_has_nothing_mounted_below_it() -> None:
    source = Source(Path("/etc/hosts"), Kind.FILE)
    [volume] = planned(bind("/etc/hosts", source.path), source).shared
    assert not volume.recursive


def test_an_empty_dir_in_memory_is_the_guests_own_and_lasts_as_long_as_the_pod() -> None:
    source = Source(EMPTY_DIR, Kind.DIRECTORY, "tmpfs", size=64 << 20, group=2000, mode=0o2777)
    told = planned(bind("/cache", EMPTY_DIR, "rprivate"), source)
    [storage] = told.storages
    place = "/run/kata-containers/sandbox/ephemeral/cache"
    assert (storage.driver, storage.fstype, storage.mount_point, storage.shared) == ("ephemeral", "tmpfs", place, True)
    assert list(storage.options) == ["size=67108864", "mode=2777", "fsgid=2000"]
    assert told.mounts == (bind("/cache", place, "rw"),)
    assert told.shared == ()


def test_an_empty_dir_of_huge_pages_tells_their_size() -> None:
    source = Source(EMPTY_DIR, Kind.DIRECTORY, "hugetlbfs", size=4 << 20, block_size=2 << 20)
    [storage] = planned(bind("/huge", EMPTY_DIR), source).storages
    assert (storage.fstype, list(storage.options)) == ("hugetlbfs", ["size=4194304", "pagesize=2097152"])


@pytest.mark.parametrize("source", [Source(EMPTY_DIR, Kind.DIRECTORY), Source(Path("/mnt"), Kind.DIRECTORY, "tmpfs")])
def test_an_empty_dir_on_disk_and_memory_that_is_none_are_shared(source: Source) -> None:
    told = planned(bind("/data", source.path), source)
    assert (len(told.shared), told.storages) == (1, ())


@pytest.mark.parametrize("kind", [Kind.OTHER, Kind.BLOCK_DEVICE])
def test_what_cannot_be_given_to_a_machine_is_named(kind: Kind) -> None:
    source = Source(Path("/run/docker.sock"), kind)
    with pytest.raises(SandboxError, match=r"^mount of /run/docker.sock at /docker.sock: "):
        planned(bind("/docker.sock", source.path), source)


def test_a_socket_of_the_host_cannot_be_reached() -> None:
    source = Source(Path("/run/docker.sock"), Kind.OTHER)
    with pytest.raises(InvalidArgument, match="which a virtual machine cannot reach"):
        planned(bind("/docker.sock", source.path), source)


def test_only_sources_whose_nature_counts_are_looked_at() -> None:
    mounts = [bind("/data", "/srv"), bind("/dev/shm", "/run/shm"), bind("/dev/kvm", "/dev/kvm")]
    assert bind_sources(mounts) == [Path("/srv")]
