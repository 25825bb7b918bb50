from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from kata_agent import linux
from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError, InvalidArgument, Unimplemented
from kata_agent.storage import block, group, handlers, memory, options, overlay
from kata_agent.storage.context import Cleanup, Context, Workshop
from kata_agent.storage.table import StorageTable
from kata_protos.agent_pb2 import FSGroup, Storage
from tests.unit.agent.machine import Machine


@pytest.fixture
def workshop(machine: Machine, reaper: Reaper) -> Workshop:
    return Workshop(machine.finder(timeout=0.01), reaper)


@pytest.fixture
def table(workshop: Workshop) -> StorageTable:
    return StorageTable(workshop)


def test_options_become_flags_propagation_and_data() -> None:
    parsed = options.parse(["rbind", "ro", "nosuid", "rslave", "size=64k", "mode=1777"])

    flags = linux.MS_BIND | linux.MS_REC | linux.MS_RDONLY | linux.MS_NOSUID
    assert parsed == (flags, linux.MS_SLAVE | linux.MS_REC, "size=64k,mode=1777")


def test_a_later_option_takes_an_earlier_one_back() -> None:
    assert options.parse(["ro", "noexec", "rw", "exec", "defaults", ""]) == (0, 0, "")


async def test_a_local_storage_is_a_directory_with_mode_and_group(table: StorageTable, tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"

    await table.add([Storage(driver="local", mount_point=str(place), options=["mode=0750", "fsgid=1234"])])

    found = place.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o2750, 1234)


async def test_an_option_that_should_be_a_number_is_named(table: StorageTable, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="fsgid=staff is no number"):
        await table.add([Storage(driver="local", mount_point=str(tmp_path), options=["fsgid=staff"])])


async def test_an_unknown_driver_is_named_and_what_came_before_is_released(table: StorageTable, tmp_path: Path) -> None:
    known = Storage(driver="local", mount_point=str(tmp_path / "known"))

    with pytest.raises(AgentError, match="Failed to find the storage handler 9p"):
        await table.add([known, Storage(driver="9p", mount_point="/x")])

    assert await table.add([known]) == [known.mount_point]


@pytest.mark.parametrize(
    "storage",
    [
        Storage(driver="erofs.multi-layer", mount_point="/x"),
        Storage(driver="blk", mount_point="/x", options=["X-kata.multi-layer=true"]),
        Storage(driver="bind", source="/dev", mount_point="/x", options=["io.katacontainers.fs-opt.layer=x"]),
        Storage(driver="blk", source="02", mount_point="/x", driver_options=["encryption_key=ephemeral"]),
        Storage(driver="blk", source="02", mount_point="/x", driver_options=["other"]),
    ],
)
async def test_what_is_not_supported_is_refused_with_its_name(table: StorageTable, storage: Storage) -> None:
    name = next(iter([*storage.driver_options, *storage.options]), storage.driver)
    name = storage.driver if name.startswith("X-kata") else name
    with pytest.raises(Unimplemented, match=f"{name}.* not supported|{name} needs a confidential guest"):
        await table.add([storage])


async def test_a_failure_of_the_kernel_says_what_and_where(table: StorageTable, tmp_path: Path) -> None:
    storage = Storage(driver="bind", source=str(tmp_path / "missing"), mount_point=str(tmp_path / "place"))

    with pytest.raises(AgentError, match=f"cannot make bind storage .*missing at {tmp_path}/place: No such file"):
        await table.add([storage])


async def test_a_storage_can_be_given_to_a_group(table: StorageTable, tmp_path: Path) -> None:
    place = tmp_path / "volume"
    storage = Storage(driver="local", mount_point=str(place), fs_group=FSGroup(group_id=4321))

    await table.add([storage])

    assert place.stat().st_gid == 4321
    assert stat.S_IMODE(place.stat().st_mode) & 0o2770 == 0o2770


class Driver:
    """A driver that only counts; it fails for the container `fails_for`, and waits for `slow`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails_for: str | None = None
        self.slow: asyncio.Event | None = None

    async def __call__(self, storage: Storage, context: Context) -> Cleanup:
        self.done.append(f"make {storage.mount_point} {context.container_id}")
        if self.slow is not None:
            await self.slow.wait()
        if self.fails_for == context.container_id:
            raise AgentError("failed")

        async def cleanup() -> None:
            self.done.append(f"undo {storage.mount_point}")

        return cleanup


class TestUses:
    @pytest.fixture
    def driver(self, monkeypatch: pytest.MonkeyPatch) -> Driver:
        driver = Driver()
        monkeypatch.setitem(handlers.HANDLERS, "counting", driver)
        return driver

    def _storage(self, place: str, *, shared: bool = False) -> Storage:
        return Storage(driver="counting", mount_point=place, shared=shared)

    async def test_a_storage_is_made_at_its_first_use_and_undone_at_its_last(
        self, table: StorageTable, driver: Driver
    ) -> None:
        one = await table.add([self._storage("/a"), self._storage("/b")], "one")
        two = await table.add([self._storage("/a")], "two")
        await table.release(one)
        assert driver.done == ["make /a one", "make /b one", "undo /b"]
        await table.release(two)
        assert driver.done[3:] == ["undo /a"]

    async def test_a_shared_storage_stays_until_the_sandbox_ends(self, table: StorageTable, driver: Driver) -> None:
        await table.release(await table.add([self._storage("/a", shared=True)], "one"))
        await table.add([self._storage("/a")], "two")

        assert driver.done == ["make /a one"]

    async def test_what_was_made_before_a_failure_is_undone_in_reverse(
        self, table: StorageTable, driver: Driver
    ) -> None:
        with pytest.raises(AgentError, match="storage handler 9p"):
            await table.add([self._storage("/a"), self._storage("/b"), Storage(driver="9p", mount_point="/c")])

        assert driver.done == ["make /a ", "make /b ", "undo /b", "undo /a"]

    async def test_who_waits_for_another_s_storage_makes_it_when_that_fails(
        self, table: StorageTable, driver: Driver
    ) -> None:
        driver.slow, driver.fails_for = asyncio.Event(), "one"
        first = asyncio.create_task(table.add([self._storage("/a")], "one"))
        await asyncio.sleep(0)
        second = asyncio.create_task(table.add([self._storage("/a")], "two"))
        await asyncio.sleep(0)
        driver.slow.set()
        with pytest.raises(AgentError, match="failed"):
            await first

        await table.release(await second)

        assert driver.done == ["make /a one", "make /a two", "undo /a"]

    async def test_one_storage_does_not_wait_for_another(self, table: StorageTable, driver: Driver) -> None:
        driver.slow = asyncio.Event()
        slow = asyncio.create_task(table.add([self._storage("/slow")]))
        await asyncio.sleep(0)
        driver.slow, released = None, driver.slow
        async with asyncio.timeout(5):
            await table.add([self._storage("/fast")])
        released.set()
        await slow


class TestHugePages:
    def _pool(self, root: Path, present: int) -> Path:
        pool = root / "hugepages-2048kB" / "nr_hugepages"
        pool.parent.mkdir()
        pool.write_text(f"{present}\n")
        return pool

    def test_pages_are_taken_besides_those_that_others_have(self, tmp_path: Path) -> None:
        pool = self._pool(tmp_path, 3)

        memory.take_pages(2 << 20, (4 << 20) + 1, tmp_path)

        assert pool.read_text() == "6"

    def test_a_size_that_the_guest_has_not_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="no huge pages of 1048576 KiB"):
            memory.take_pages(1 << 30, 1 << 30, tmp_path)

    @pytest.mark.parametrize("size", ["", "size=", "size=many", "size=-1"])
    async def test_a_size_is_needed(self, table: StorageTable, size: str) -> None:
        storage = Storage(driver="ephemeral", fstype="hugetlbfs", mount_point="/x", options=["pagesize=2Mi", size])
        with pytest.raises(InvalidArgument, match="is no size: hugetlbfs needs one"):
            await table.add([storage])


class TestBlock:
    @pytest.mark.parametrize(
        ("driver", "source", "message"),
        [
            ("blk", "02/00", "waiting for uevent of the virtio-blk disk at PCI path 02.0/00.0"),
            ("blk-ccw", "0.0.0003", "waiting for uevent of the virtio-blk disk with CCW id 0.0.0003"),
            ("mmioblk", "/dev/vdx", "waiting for uevent of the block device /dev/vdx"),
            ("nvdimm", "/dev/pmem7", "waiting for uevent of the block device /dev/pmem7"),
            ("scsi", "1:0", "waiting for uevent of the SCSI disk 1:0"),
            ("blk", "/dev/no-such-disk", "get metadata on file '/dev/no-such-disk': No such file"),
            ("blk", "/dev/null", "Invalid device /dev/null"),
        ],
    )
    async def test_a_device_that_is_not_there_is_told_by_its_place(
        self, table: StorageTable, driver: str, source: str, message: str
    ) -> None:
        with pytest.raises(AgentError, match=message):
            await table.add([Storage(driver=driver, source=source, fstype="ext4", mount_point="/x")])

    async def test_only_ext4_is_made(self, table: StorageTable) -> None:
        storage = Storage(driver="blk", fstype="xfs", mount_point="/x", driver_options=["create_filesystem"])
        with pytest.raises(InvalidArgument, match="create_filesystem makes ext4 only, not 'xfs'"):
            await table.add([storage])

    async def test_a_file_system_is_made_once_and_its_data_stay(self, workshop: Workshop, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(8 << 20))
        assert block.ext4_uuid(disk) is None

        await block.make_file_system(str(disk), workshop)
        first = block.ext4_uuid(disk)
        await block.make_file_system(str(disk), workshop)

        assert first is not None
        assert block.ext4_uuid(disk) == first
        await block.make_file_system(str(disk), Workshop(workshop.finder, workshop.reaper))  # another pod's leftovers
        assert block.ext4_uuid(disk) != first

    async def test_why_no_file_system_can_be_made_is_told(self, workshop: Workshop, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(4096))
        with pytest.raises(AgentError, match=f"cannot make a file system on {disk}: .*\\n?.*Not enough space"):
            await block.make_file_system(str(disk), workshop)


async def test_a_layer_to_write_to_is_a_container_s_own(tmp_path: Path) -> None:
    storage = Storage(
        driver="overlayfs", mount_point=str(tmp_path), options=["lowerdir=/x", "io.katacontainers.fs-opt.overlay-rw"]
    )
    with pytest.raises(InvalidArgument, match="No container id in rw overlay"):
        await overlay.mount_layers(storage, "")


def _volume(top: Path) -> Path:
    (top / "directory").mkdir()
    (top / "directory" / "file").touch(mode=0o600)
    (top / "link").symlink_to("/etc/passwd")
    return top


def test_a_volume_given_to_a_group_can_be_written_by_it(tmp_path: Path) -> None:
    passwd = Path("/etc/passwd").stat()
    top = _volume(tmp_path)

    group.give(top, 4321, read_only=False, only_if_root_differs=False)

    directory, file = (top / "directory").stat(), (top / "directory" / "file").stat()
    assert {top.stat().st_gid, directory.st_gid, file.st_gid, (top / "link").lstat().st_gid} == {4321}
    assert stat.S_IMODE(file.st_mode) == 0o660
    assert stat.S_IMODE(directory.st_mode) & 0o2770 == 0o2770
    assert Path("/etc/passwd").stat() == passwd


def test_a_read_only_volume_gives_no_right_to_write(tmp_path: Path) -> None:
    top = _volume(tmp_path)

    group.give(top, 4321, read_only=True, only_if_root_differs=False)

    assert stat.S_IMODE((top / "directory" / "file").stat().st_mode) == 0o640


def test_a_volume_whose_root_fits_is_not_walked(tmp_path: Path) -> None:
    top = _volume(tmp_path)
    os.chown(top, -1, 4321)
    top.chmod(0o2770)

    group.give(top, 4321, read_only=False, only_if_root_differs=True)

    assert (top / "directory" / "file").stat().st_gid != 4321
