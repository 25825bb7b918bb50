"""Volumes of pods, by CRI-O's calls: what is shared under both drivers, disks under QEMU."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kata_protos.mount_pb2 import Mount
from kata_py.resource import mount as mounts
from kata_py.storage import direct
from kata_py.storage.direct import DirectVolume
from kata_py.ttrpc.errors import StatusError
from tests import bundle as bundles
from tests.conftest import GUEST
from tests.integration.conftest import DRIVERS, ON_QEMU
from tests.manager import Container, Manager
from tools import configuration

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("clean", "guest"),
]

BLOCK = 16 << 20  # bytes of a disk
RULE = {"allow": True, "type": "b", "access": "rwm"}


def bind(destination: str, source: Path, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


@contextmanager
def disk(path: Path, *, fstype: str = "", content: Path | None = None, read_only: bool = False) -> Iterator[Path]:
    """A loop device, perhaps with a file system; afterwards it must be free at once."""
    with path.open("wb") as file:
        file.truncate(BLOCK)
    if fstype:
        source = ["-d", str(content)] if content else []
        subprocess.run(["mke2fs", "-q", "-t", fstype, *source, path], check=True)
    options = ["--read-only"] if read_only else []
    made = subprocess.run(
        ["losetup", "--find", "--show", *options, path], check=True, capture_output=True, text=True
    )  # fmt: skip
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        backing = Path("/sys/block", device.name, "loop/backing_file")
        left = backing.read_text().strip() if backing.exists() else ""
        path.unlink()
    assert left != str(path)  # a device that somebody has open is only detached later


def dumped(device: Path, path: str) -> str:
    """A file of an ext4, without mounting that."""
    shown = subprocess.run(["debugfs", "-R", f"cat {path}", device], capture_output=True, check=True, text=True)
    return shown.stdout


def node(device: Path, path: str = "/dev/xvda", access: str = "rwm") -> dict[str, Any]:
    """What a manager adds to a spec for a volume of `volumeMode: Block`."""
    number = device.stat().st_rdev
    numbers = {"major": os.major(number), "minor": os.minor(number)}
    return {
        "devices": [{"path": path, "type": "b", "fileMode": 0o660, "uid": 0, "gid": 0, **numbers}],
        "rules": [{**RULE, "access": access, **numbers}],
    }


@asynccontextmanager
async def running(
    manager: Manager,
    id: str,
    *args: str,
    pod: str = "",
    mounts: Sequence[Mapping[str, Any]] = (),
    device: Mapping[str, Any] | None = None,
    rootfs: Sequence[Mount] = (),
    capabilities: Sequence[str] = (),
    **process: Any,
) -> AsyncIterator[Container]:
    """A container of a pod that runs, or without a pod's id the pod's first."""
    content = bundles.process(args or ["sleep", "100000"], **process)
    for each in content["capabilities"].values():
        each += capabilities
    spec = bundles.in_pod(bundles.spec(id, manager.rootfs, content, mounts=mounts), pod or id, sandbox=not pod)
    for propagation in ("rslave", "rshared"):  # as managers say of a container's root what they say of any mount
        if any(propagation in mount["options"] for mount in mounts):
            spec["linux"]["rootfsPropagation"] = propagation
    if device is not None:
        spec["linux"]["devices"] = device["devices"]
        spec["linux"]["resources"]["devices"] += device["rules"]
    if rootfs:
        spec["root"]["path"] = "rootfs"
    async with manager.container(id, spec=spec, create=False) as container:
        await container.create(rootfs=rootfs)
        await container.start()
        yield container


def configured(
    manager: Manager, driver: str, short_tmp: Path, name: str, *, extra: str = "", runtime: str = ""
) -> Manager:
    """The manager with more in its configuration."""
    path = configuration.write(
        short_tmp / f"{driver}-{name}.toml",
        GUEST if driver == "qemu" else None,
        program="the tests",
        hypervisor=driver,
        extra=extra,
    )
    with path.open("a") as file:
        file.write(runtime)
    return manager.using(config=path)


@pytest.fixture
def place(short_tmp: Path) -> Iterator[Path]:
    """A directory on the host."""
    path = short_tmp / "storage"
    path.mkdir()
    yield path
    mounts.detach_below(str(path))
    shutil.rmtree(path)


async def said(container: Container, script: str) -> str:
    """What a script prints that succeeds."""
    code, output = await container.run("sh", "-ec", f"exec 2>&1\n{script}")
    assert code == 0, output
    return output.decode().strip()


@pytest.mark.parametrize("driver", [DRIVERS[0]], indirect=True)
async def test_where_there_are_no_disks_a_volume_of_blocks_is_refused(manager: Manager, place: Path) -> None:
    with disk(place / "image") as device:
        async with running(manager, "pod"):
            with pytest.raises(StatusError, match="cannot attach a BlockDevice"):
                async with running(manager, "app", pod="pod", device=node(device)):
                    pass


@ON_QEMU
@pytest.mark.parametrize("kind", ["virtio-blk", "virtio-scsi"])
async def test_a_volume_of_blocks_is_a_disk_in_all_containers_until_the_last_has_gone(
    manager: Manager, driver: str, short_tmp: Path, place: Path, kind: str
) -> None:
    # In the pod's cgroup, shim and machine may use the devices that its containers are given, and no others.
    manager = configured(
        manager, driver, short_tmp, kind,
        extra=f'block_device_driver = "{kind}"\n', runtime="sandbox_cgroup_only = true\n",
    )  # fmt: skip
    async with running(manager, "pod"):
        for turn in range(2):  # the place in the machine is used again
            with disk(place / "image") as device:
                async with running(manager, "one", pod="pod", device=node(device)) as one:
                    written = f"turn {turn}"
                    await said(one, f"echo {written} > /dev/xvda; sync")
                    assert device.read_bytes().startswith(written.encode())
                    async with running(manager, "two", pod="pod", device=node(device, "/dev/data")) as two:
                        assert await said(two, "head -n 1 /dev/data") == written
                    assert await said(one, "head -n 1 /dev/xvda") == written
        with disk(place / "image") as device:
            async with running(manager, "reader", pod="pod", device=node(device, access="rm")) as reader:
                assert (await reader.run("sh", "-c", "echo no > /dev/xvda"))[0] != 0
                with pytest.raises(StatusError, match="is read-only for another container of the pod"):
                    async with running(manager, "writer", pod="pod", device=node(device)):
                        pass
                path = bind("/dev/disk", device, "ro")
                async with running(manager, "other", pod="pod", mounts=[path]) as other:
                    assert await said(other, "test -b /dev/disk; head -c 1 /dev/disk | od -An -tu1") == "0"


@ON_QEMU
async def test_a_volume_that_is_assigned_directly_is_mounted_by_the_guest(manager: Manager, place: Path) -> None:
    volume = place / "mount"
    volume.mkdir()
    with disk(place / "image", fstype="ext4") as device:
        direct.add(str(volume), DirectVolume(device, "ext4", metadata={"fsGroup": "2000"}))
        try:
            async with running(manager, "pod"):
                async with running(manager, "app", pod="pod", mounts=[bind("/data", volume)]) as app:
                    assert direct.sandbox_of(str(volume)) == "pod"
                    assert await said(app, "stat -c '%g %A' /data; grep /data /proc/mounts | cut -d ' ' -f 3")
                    assert (await said(app, "stat -c '%g' /data")) == "2000"
                    await said(app, "echo kept > /data/file")
                assert direct.sandbox_of(str(volume)) is None
                async with running(manager, "next", pod="pod", mounts=[bind("/data", volume, "ro")]) as after:
                    assert await said(after, "cat /data/file") == "kept"
                    assert (await after.run("touch", "/data/no"))[0] != 0
        finally:
            direct.remove(str(volume))
            with suppress(OSError):  # others' volumes are there
                direct.ROOT.rmdir()


@ON_QEMU
async def test_a_root_file_system_on_a_disk_is_the_guests_to_mount(
    manager: Manager, driver: str, short_tmp: Path, place: Path
) -> None:
    fast = configured(manager, driver, short_tmp, "blocks", extra="disable_block_device_use = false\n")
    for each, is_disk in ((fast, True), (manager, False)):
        with disk(place / "image", fstype="ext4", content=manager.rootfs) as device:
            root = [Mount(type="ext4", source=str(device))]
            async with running(each, "pod") as pod, running(each, "app", pod="pod", rootfs=root) as app:
                kind = await said(app, "grep ' / ' /proc/mounts | tail -n 1 | cut -d ' ' -f 3")
                assert kind == ("ext4" if is_disk else "virtiofs")
                await said(app, "echo hello > /greeting; sync")
                assert (str(device) in Path(f"/proc/{pod.shim_pid}/mounts").read_text()) == (not is_disk)
            assert dumped(device, "/greeting") == "hello\n"


@contextmanager
def empty_dir(place: Path, name: str, fstype: str = "", options: str = "") -> Iterator[Path]:
    """A volume as the kubelet makes it."""
    path = place / "pods/1-2/volumes/kubernetes.io~empty-dir" / name
    path.mkdir(parents=True)
    path.chmod(0o777)
    if fstype:
        mounts.mount("tmpfs" if fstype == "tmpfs" else "nodev", str(path), fstype, data=options)
    yield path


async def test_an_empty_dir_in_memory_is_one_for_all_containers_and_outlives_them(
    manager: Manager, place: Path
) -> None:
    with empty_dir(place, "cache", "tmpfs", "size=1m") as cache:
        volume = [bind("/cache", cache)]
        async with running(manager, "pod"), running(manager, "one", pod="pod", mounts=volume) as one:
            async with running(manager, "two", pod="pod", mounts=volume) as two:
                await said(two, "echo here > /cache/file")
            async with running(manager, "three", pod="pod", mounts=volume) as three:
                assert await said(three, "cat /cache/file") == "here"
                assert (await three.run("dd", "if=/dev/zero", "of=/cache/large", "bs=1M", "count=2"))[0] != 0
                assert (
                    await said(three, "rm /cache/large; df -k /cache | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2")
                    == "1024"
                )
            assert await said(one, "cat /cache/file") == "here"
        assert list(cache.iterdir()) == []
        mounts.unmount(str(cache))


@asynccontextmanager
async def seen_by_another(manager: Manager, volume: Path) -> AsyncIterator[Container]:
    """Two containers of a pod: what the one mounts in a volume has come to the other, which is given."""
    seen = [bind("/seen", volume, "rw", "rslave")]
    async with running(manager, "pod"), running(manager, "two", pod="pod", mounts=seen) as two:
        script = "mkdir /volume/inner; mount -t tmpfs x /volume/inner; touch /volume/inner/file; sleep 100000"
        one = running(
            manager, "one", "sh", "-c", script, pod="pod", mounts=[bind("/volume", volume, "rw", "rshared")],
            capabilities=["CAP_SYS_ADMIN"],
        )  # fmt: skip
        async with one:
            async with asyncio.timeout(15):
                while (await two.run("test", "-e", "/seen/inner/file"))[0]:
                    pass
            yield two


@ON_QEMU
async def test_what_one_container_mounts_in_an_empty_dir_in_memory_is_seen_by_another(
    manager: Manager, place: Path
) -> None:
    with empty_dir(place, "volume", "tmpfs") as volume:
        async with seen_by_another(manager, volume):
            pass
        mounts.unmount(str(volume))


async def test_and_so_it_is_in_a_directory_of_the_host_whose_own_files_stay(manager: Manager, place: Path) -> None:
    volume = place / "volume"
    volume.mkdir()
    (volume / "hosts").touch()
    async with seen_by_another(manager, volume) as two:
        assert await said(two, "ls /seen; touch /seen/written") == "hosts\ninner"
        assert list((volume / "inner").iterdir()) == []  # another kernel's mount
        both = [bind("/third", volume, "rw", "rslave"), bind("/fourth", volume, "ro", "rslave")]
        async with running(manager, "late", pod="pod", mounts=both) as late:
            assert await said(late, "ls /third/inner") == "file"
            assert await said(late, "ls /fourth") == "hosts\ninner\nwritten"
            assert (await late.run("touch", "/fourth/file"))[0] != 0
    assert {path.name for path in volume.iterdir()} == {"hosts", "inner", "written"}


def write_map(directory: Path, content: Mapping[str, str], generation: int) -> None:
    """Do as the kubelet does. Source: `pkg/volume/util/atomic_writer.go`."""
    fresh = directory / f"..2026_01_01_{generation}"
    fresh.mkdir(parents=True)
    for name, text in content.items():
        (fresh / name).write_text(text)
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    old = (directory / "..data").resolve() if (directory / "..data").exists() else None
    link.rename(directory / "..data")
    for name in content:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in content:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old)


async def follows_a_map(container: Container, directory: Path) -> None:
    """A container sees a config map change, and what is gone from it."""
    assert await said(container, "ls /etc/map; cat /etc/map/one /etc/map/two") == "one\ntwo\n12"
    write_map(directory, {"one": "new", "three": "3"}, 2)
    listed = "one\nthree"
    async with asyncio.timeout(10):
        while await said(container, "cat /etc/map/one 2>/dev/null || true; ls /etc/map") != f"new{listed}":
            pass
    assert await said(container, "cat /etc/map/three; ls -d /etc/map/..2026* | wc -l") == "31"


async def test_a_config_map_changes_in_running_containers(manager: Manager, place: Path) -> None:
    write_map(place / "map", {"one": "1", "two": "2"}, 1)
    async with running(manager, "pod", mounts=[bind("/etc/map", place / "map", "ro")]) as container:
        await follows_a_map(container, place / "map")


async def test_files_and_directories_are_seen_as_the_spec_says(manager: Manager, place: Path) -> None:
    volume = place / "volume"
    (volume / "below" / "deep").mkdir(parents=True)
    (volume / "file").write_text("whole\n")
    (volume / "below" / "part").write_text("part\n")
    (place / "hosts").write_text("127.0.0.1 localhost\n")
    (place / "log").touch()
    shm = place / "shm"
    shm.mkdir()
    mounts.mount("shm", str(shm), "tmpfs", data="size=2m")
    mounts.mount("inner", str(volume / "below" / "deep"), "tmpfs")
    volumes = [
        bind("/volume", volume, "rw"),
        bind("/path", volume / "below", "rw"),
        bind("/path-file", volume / "file", "ro"),
        bind("/etc/hosts", place / "hosts", "rw"),
        bind("/dev/termination-log", place / "log", "rw"),
        bind("/shallow", volume / "below", "ro"),
        bind("/fixed", volume / "below", "rro"),
        bind("/dev/shm", shm, "rw"),
    ]
    async with running(manager, "pod", mounts=volumes) as first:
        assert await said(first, "cat /volume/file /path/part /path-file /etc/hosts | tr '\\n' ' '") == (
            "whole part whole 127.0.0.1 localhost"
        )
        assert (await first.run("sh", "-c", "echo no > /path-file"))[0] != 0
        assert (await first.run("touch", "/shallow/no"))[0] != 0
        assert (await first.run("touch", "/fixed/deep/no"))[0] != 0
        await said(first, "echo bye > /dev/termination-log; echo mine >> /etc/hosts; touch /path/new /path/deep/new")
        assert await said(first, "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2") == "2048"
        async with running(manager, "app", pod="pod", mounts=volumes) as app:
            assert (
                await said(app, "cat /dev/termination-log; ls /volume/below; ls /path/deep")
                == "bye\ndeep\nnew\npart\nnew"
            )
    assert (place / "log").read_text() == "bye\n"
    assert (volume / "below" / "new").exists()
    for point in (shm, volume / "below" / "deep"):
        mounts.unmount(str(point))


@ON_QEMU
async def test_without_a_share_files_are_copied_and_kept_up_to_date(
    manager: Manager, driver: str, short_tmp: Path, place: Path
) -> None:
    extra = 'shared_fs = "none"\ndisable_block_device_use = false\n'
    manager = configured(manager, driver, short_tmp, "none", extra=extra)
    write_map(place / "map", {"one": "1", "two": "2"}, 1)
    volume = place / "volume"
    (volume / "below").mkdir(parents=True)
    (volume / "below" / "large").write_bytes(os.urandom(3 << 20))
    (volume / "below" / "large").chmod(0o640)
    os.chown(volume / "below" / "large", 1000, 2000)
    (volume / "link").symlink_to("below/large")
    os.mkfifo(volume / "fifo")
    (place / "hosts").write_text("127.0.0.1 localhost\n")
    digest = hashlib.sha256((volume / "link").read_bytes()).hexdigest()
    volumes = [
        bind("/etc/map", place / "map", "ro"),
        bind("/volume", volume, "rw"),
        bind("/etc/hosts", place / "hosts", "rw"),
    ]
    with disk(place / "image", fstype="ext4", content=manager.rootfs) as device:
        root = [Mount(type="ext4", source=str(device))]
        async with running(manager, "pod", mounts=volumes, rootfs=root) as pod:
            assert await said(pod, "grep -c virtiofs /proc/mounts || true") == "0"
            assert (await said(pod, "sha256sum < /volume/link")).split()[0] == digest
            assert await said(pod, "cd /volume; stat -c '%A %u %g' below below/large; ls") == (
                "drwxr-xr-x 0 0\n-rw-r----- 1000 2000\nbelow\nlink"
            )
            assert await said(pod, "cat /etc/hosts") == "127.0.0.1 localhost"
            await said(pod, "echo mine >> /volume/below/mine")  # as in a pod's own disk
            await follows_a_map(pod, place / "map")
    assert not (volume / "below" / "mine").exists()


@ON_QEMU
async def test_without_a_share_and_a_disk_there_is_no_root_file_system(
    manager: Manager, driver: str, short_tmp: Path
) -> None:
    manager = configured(manager, driver, short_tmp, "none-at-all", extra='shared_fs = "none"\n')
    with pytest.raises(StatusError, match='shared_fs is "none": the root file system must be a disk'):
        async with running(manager, "pod"):
            pass


async def test_files_of_the_host_are_shown_to_all_guests_by_the_configuration(
    manager: Manager, driver: str, short_tmp: Path, place: Path
) -> None:
    (place / "fixed").mkdir()
    (place / "fixed" / "file").write_text("for all\n")
    (place / "open").mkdir()
    paths = [str(place / "fixed"), f"{place / 'open'}:rw"]
    manager = configured(manager, driver, short_tmp, "shown", runtime=f"sandbox_bind_mounts = {json.dumps(paths)}\n")
    async with running(manager, "pod") as pod:
        shared = Path("/run/kata-containers/shared/sandboxes/pod/shared/sandbox-mounts")
        inside = Path(f"/proc/{pod.shim_pid}/root{shared}")
        assert (inside / "fixed" / "file").read_text() == "for all\n"
        flags = {path.name: os.statvfs(path).f_flag & os.ST_RDONLY for path in inside.iterdir()}
        assert flags == {"fixed": os.ST_RDONLY, "open": 0}


async def test_an_empty_dir_can_be_the_sandboxs_own(
    manager: Manager, driver: str, short_tmp: Path, place: Path
) -> None:
    manager = configured(manager, driver, short_tmp, "local", runtime="disable_guest_empty_dir = false\n")
    with empty_dir(place, "scratch") as scratch:
        volume = [bind("/scratch", scratch)]
        async with running(manager, "pod"), running(manager, "one", pod="pod", mounts=volume) as one:
            await said(one, "echo here > /scratch/file")
            async with running(manager, "two", pod="pod", mounts=volume) as two:
                assert await said(two, "cat /scratch/file; stat -c %a /scratch") == "here\n777"
        assert list(scratch.iterdir()) == []


@ON_QEMU
async def test_an_empty_dir_can_be_a_disk_that_lasts_as_long_as_the_pod(
    manager: Manager, driver: str, short_tmp: Path, place: Path
) -> None:
    manager = configured(manager, driver, short_tmp, "plain", runtime='emptydir_mode = "block-plain"\n')
    (place / "pods").mkdir()
    mounts.mount("small", str(place / "pods"), "tmpfs", data="size=64m")  # which the image is as large as
    with empty_dir(place, "scratch") as scratch:
        volume = [bind("/scratch", scratch)]
        async with running(manager, "pod"):
            async with running(manager, "one", pod="pod", mounts=volume) as one:
                assert await said(one, "grep ' /scratch ' /proc/mounts | cut -d ' ' -f 3") == "ext4"
                await said(one, "echo here > /scratch/file")
                async with running(manager, "two", pod="pod", mounts=volume) as two:
                    assert await said(two, "cat /scratch/file") == "here"
            image = scratch / "disk.img"
            assert image.stat().st_size == 64 << 20
            assert image.stat().st_blocks * 512 < 16 << 20
            async with running(manager, "three", pod="pod", mounts=volume) as three:
                assert await said(three, "cat /scratch/file") == "here"
        assert list(scratch.iterdir()) == []
    mounts.unmount(str(place / "pods"))


_KINDS = """
echo x > file; chown 1000:2000 file; chmod 4755 file
printf '%s | ' "$(stat -c '%u:%g %a' file)"
ln file hard; ln -s file soft; mkfifo pipe; test -p pipe
printf '%s %s | ' $(stat -c %h file) $(readlink soft)
mv file renamed; read x < hard; rm -f hard
printf '%s %s | ' $x $(stat -c %h renamed)
truncate -s 4G sparse; echo end | dd of=sparse bs=1 seek=4294967292 conv=notrunc,fsync 2> /dev/null
test $(stat -c %b sparse) -lt 1000
printf '%s %s | ' $(stat -c %s sparse) $(tail -c 4 sparse)
mkdir many; for i in $(seq 300); do : > many/$i; done; printf '%s' $(ls many | wc -l); rm -r many
"""


async def test_a_root_file_system_has_what_programs_expect_of_one(manager: Manager, place: Path) -> None:
    async with running(manager, "pod", mounts=[bind("/data", place, "rw")]) as pod:
        for directory in ("/data", "/tmp"):
            script = f"mkdir -p {directory}/kinds; cd {directory}/kinds\n{_KINDS}\ncd ..; rm -r kinds"
            assert await said(pod, script) == ("1000:2000 4755 | 2 file | x 1 | 4294967296 end | 300")


@ON_QEMU
async def test_capabilities_of_files_count_in_the_guest(manager: Manager, place: Path) -> None:
    program = place / "busybox"
    shutil.copy("/bin/busybox", program)
    # Version 2, effective, CAP_NET_RAW. Source: Linux `include/uapi/linux/capability.h`.
    os.setxattr(program, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    async with running(manager, "pod", mounts=[bind("/data", place, "rw")]) as pod:
        code, output = await pod.run(
            "/data/busybox", "grep", "CapEff", "/proc/self/status", uid=1000, new_privileges=True
        )
        assert (code, output.split()[1]) == (0, b"0000000000002000")
