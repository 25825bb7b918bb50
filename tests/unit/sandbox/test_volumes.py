from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.oci.spec import LinuxDevice, Mount
from kata_py.sandbox.disks import DiskUse
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.volumes import (
    EmptyDirs,
    Volumes,
    bind_sources,
    disk_numbers,
    disk_of,
    plan_disks,
    plan_volumes,
    root_disk,
)
from kata_py.storage.direct import DirectVolume
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.source import Kind, Source, Sources

SHARE = "/run/kata-containers/shared/containers"
EMPTY_DIR = Path("/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/cache")


def bind(destination: str, source: str | Path, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def planned(mount: Mount, source: Source | None = None) -> Volumes:
    sources = Sources({source.path: source} if source else {})
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
    assert planned(mount, Source(Path(mount["source"]), Kind.OTHER)) == Volumes((mount,))


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


@pytest.mark.parametrize("propagation", ["rshared", "rslave"])
def test_a_directory_in_which_mounts_go_round_is_one_mount_of_the_guest(propagation: str) -> None:
    mounts = [bind("/one", "/srv", "rw", propagation), bind("/two", "/srv", "rw", propagation)]
    told = [planned(mount, Source(Path("/srv"), Kind.DIRECTORY)) for mount in mounts]
    [volume] = {volume for each in told for volume in each.shared}
    assert (volume.source, volume.follows, volume.lasts, volume.read_only) == (Path("/srv"), True, True, False)
    for mount, each in zip(mounts, told, strict=True):
        [storage] = each.storages
        assert (storage.driver, storage.source, storage.shared) == ("bind", volume.guest_path, True)
        assert list(storage.options) == ["rbind", "shared"]
        assert each.mounts == (bind(mount["destination"], storage.mount_point, "rw", propagation),)


def test_what_a_machine_may_not_write_it_gets_read_only_by_the_host() -> None:
    told = planned(bind("/data", "/srv", "ro", "rslave"), Source(Path("/srv"), Kind.DIRECTORY))
    [volume] = told.shared
    assert (volume.read_only, volume.lasts, told.storages) == (True, False, ())


def test_copies_have_nothing_that_goes_round() -> None:
    mount, path = bind("/data", "/srv", "rw", "rslave"), Path("/srv")
    sources = Sources({path: Source(path, Kind.DIRECTORY)})
    told = plan_volumes("c1", [mount], sources, pod_shm=True, shared=False)
    assert (told.shared[0].lasts, told.storages) == (False, ())


def test_an_empty_dir_in_memory_is_the_guests_own_and_lasts_as_long_as_the_pod() -> None:
    source = Source(EMPTY_DIR, Kind.DIRECTORY, "tmpfs", size=64 << 20, group=2000, mode=0o2777)
    told = planned(bind("/cache", EMPTY_DIR, "rprivate"), source)
    [storage] = told.storages
    place = "/run/kata-containers/sandbox/ephemeral/cache"
    assert (storage.driver, storage.fstype, storage.mount_point, storage.shared) == ("ephemeral", "tmpfs", place, True)
    assert list(storage.options) == ["size=67108864", "mode=2777", "shared", "fsgid=2000"]
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


def test_a_socket_of_the_host_cannot_be_reached() -> None:
    source = Source(Path("/run/docker.sock"), Kind.OTHER)
    with pytest.raises(InvalidArgument, match="which a virtual machine cannot reach"):
        planned(bind("/docker.sock", source.path), source)


def test_only_sources_whose_nature_counts_are_looked_at() -> None:
    mounts = [bind("/data", "/srv"), bind("/dev/shm", "/run/shm"), bind("/proc/cpuinfo", "/run/cpuinfo")]
    assert bind_sources(mounts) == [Path("/srv")]


DISK = Path("/dev/loop7")


@pytest.mark.parametrize(("option", "read_only"), [("rw", False), ("ro", True)])
def test_a_mount_of_a_disk_becomes_a_device_node_in_its_place(option: str, read_only: bool) -> None:
    disk = Path("/mnt/disk")
    told = planned(bind("/dev/xvda", disk, option), Source(disk, Kind.BLOCK_DEVICE))
    assert told.mounts == ()
    [use] = told.disks
    assert (use.node, use.device.read_only) == ("/dev/xvda", read_only)
    assert [node["path"] for node in told.nodes] == ["/dev/xvda"]


def node(path: str = "/dev/xvda", type: str = "b", major: int = 7, minor: int = 7) -> LinuxDevice:
    return {"path": path, "type": type, "major": major, "minor": minor}


def test_a_disk_of_the_hosts_devices_is_none_of_the_guests() -> None:
    [use] = planned(bind("/dev/xvda", DISK), Source(DISK, Kind.BLOCK_DEVICE)).disks
    assert use.device.path == DISK
    [volume] = planned(bind("/log", "/dev/log-file"), Source(Path("/dev/log-file"), Kind.FILE)).shared
    assert volume.source == Path("/dev/log-file")


@pytest.mark.parametrize(("access", "read_only"), [("rwm", False), ("rm", True)])
def test_a_disk_named_as_a_device_is_plugged_in_as_its_rule_allows(access: str, read_only: bool) -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 7, "minor": 7, "access": access}]
    uses = plan_disks([node(), node("/dev/fuse", "c", 10, 229)], rules, Sources(disks={(7, 7): DISK}))  # type: ignore[arg-type]
    assert uses == (DiskUse(disk_of(DISK, read_only=read_only), node="/dev/xvda"),)


def test_a_disk_that_the_host_has_not_is_named() -> None:
    with pytest.raises(InvalidArgument, match="device /dev/xvda: the host has no block device 7:7"):
        plan_disks([node()], [], Sources())


def test_only_disks_are_looked_for() -> None:
    assert disk_numbers([node(), node(type="c"), node(major=11), node(major=2)]) == [(7, 7)]


def test_one_disk_has_one_id_that_a_guest_can_see_whole() -> None:
    assert disk_of(DISK).id == disk_of(DISK, read_only=True).id != disk_of(Path("/dev/loop8")).id
    assert len(disk_of(DISK).id) <= 20


@pytest.mark.parametrize(("fstype", "options"), [("ext4", ["noatime"]), ("xfs", ["noatime", "nouuid"])])
def test_a_direct_assigned_volume_is_mounted_by_the_guest(fstype: str, options: list[str]) -> None:
    volume = DirectVolume(DISK, fstype, ("noatime",), {"fsGroup": "2000", "fsGroupChangePolicy": "OnRootMismatch"})
    source = Source(Path("/var/lib/kubelet/pods/1/volumes/csi/pv"), Kind.DIRECTORY, direct=volume)
    told = planned(bind("/data", source.path), source)
    [use] = told.disks
    assert use.storage is not None
    assert (use.device, use.storage.fstype, list(use.storage.options)) == (disk_of(DISK), fstype, options)
    assert (use.storage.fs_group.group_id, use.storage.fs_group.group_change_policy) == (2000, 1)
    assert told.mounts == (bind("/data", use.storage.mount_point, "rw"),)


@pytest.mark.parametrize("metadata", [{"fsGroup": "users"}, {"fsGroup": "1", "fsGroupChangePolicy": "Never"}])
def test_a_group_that_is_not_known_is_named(metadata: dict[str, str]) -> None:
    source = Source(Path("/pv"), Kind.DIRECTORY, direct=DirectVolume(DISK, "ext4", metadata=metadata))
    with pytest.raises(InvalidArgument, match="direct-assigned volume /pv: fsGroup"):
        planned(bind("/data", source.path), source)


def rootfs(*options: str, type: str = "ext4") -> RootfsMount:
    return RootfsMount(type, str(DISK), options)


def test_a_root_file_system_that_is_one_disk_is_plugged_in() -> None:
    sources = Sources({DISK: Source(DISK, Kind.BLOCK_DEVICE)})
    use = root_disk("c1", [rootfs("rw", "noatime")], sources)
    assert use is not None
    assert use.storage is not None
    assert (use.storage.mount_point, use.storage.fstype) == (f"{SHARE}/c1", "ext4")
    assert list(use.storage.options) == ["noatime"]
    assert not use.device.read_only
    fixed = root_disk("c1", [rootfs("ro", type="xfs")], sources)
    assert fixed is not None
    assert fixed.storage is not None
    assert list(fixed.storage.options) == ["ro", "nouuid"]
    assert fixed.device.read_only


def test_a_root_file_system_of_layers_or_of_a_directory_is_no_disk() -> None:
    sources = Sources({DISK: Source(DISK, Kind.BLOCK_DEVICE)})
    assert root_disk("c1", [rootfs(), rootfs()], sources) is None
    assert root_disk("c1", [RootfsMount("overlay", "overlay", ("lowerdir=/a",))], sources) is None
    assert root_disk("c1", [], sources) is None


def kept_in(empty_dirs: EmptyDirs) -> Volumes:
    sources = Sources({EMPTY_DIR: Source(EMPTY_DIR, Kind.DIRECTORY, group=2000)})
    return plan_volumes(
        "c1", [bind("/data", EMPTY_DIR, "rshared")], sources, pod_shm=True, empty_dirs=empty_dirs, sandbox_id="pod"
    )


def test_an_empty_dir_can_be_kept_in_the_sandboxs_root_file_system() -> None:
    told = kept_in(EmptyDirs.LOCAL)
    [storage] = told.storages
    place = f"{SHARE}/pod/rootfs/local/cache"
    assert (storage.driver, storage.mount_point) == ("local", place)
    assert list(storage.options) == ["mode=0777", "fsgid=2000"]
    assert told.mounts == (bind("/data", place, "rw", "rshared"),)
    assert told.shared == ()


def test_an_empty_dir_can_be_kept_on_a_disk_that_the_guest_formats() -> None:
    told = kept_in(EmptyDirs.DISK)
    [use] = told.disks
    assert (use.device.path, use.made) == (EMPTY_DIR / "disk.img", True)
    assert use.storage is not None
    assert (use.storage.fstype, list(use.storage.options)) == ("ext4", ["discard", "shared"])
    assert list(use.storage.driver_options) == ["create_filesystem"]
    assert use.storage.fs_group.group_id == 2000
    assert told.mounts == (bind("/data", use.storage.mount_point, "rw", "rshared"),)


@pytest.mark.parametrize("fstype", ["tmpfs", "hugetlbfs"])
def test_an_empty_dir_in_memory_stays_there_wherever_the_others_are_kept(fstype: str) -> None:
    sources = Sources({EMPTY_DIR: Source(EMPTY_DIR, Kind.DIRECTORY, fstype)})
    mount = bind("/data", EMPTY_DIR)
    told = plan_volumes("c1", [mount], sources, pod_shm=True, empty_dirs=EmptyDirs.LOCAL, sandbox_id="pod")
    assert [storage.driver for storage in told.storages] == ["ephemeral"]
