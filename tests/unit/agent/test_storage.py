from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kata_agent import linux
from kata_agent.errors import AgentError, InvalidArgument, Unimplemented
from kata_agent.storage import group, handlers, options
from kata_agent.storage.table import StorageTable
from kata_protos.agent_pb2 import FSGroup, Storage


def test_options_become_flags_propagation_and_data() -> None:
    parsed = options.parse(["rbind", "ro", "nosuid", "rslave", "size=64k", "mode=1777"])

    flags = linux.MS_BIND | linux.MS_REC | linux.MS_RDONLY | linux.MS_NOSUID
    assert parsed == (flags, linux.MS_SLAVE | linux.MS_REC, "size=64k,mode=1777")


def test_a_later_option_takes_an_earlier_one_back() -> None:
    assert options.parse(["ro", "noexec", "rw", "exec", "defaults", ""]) == (0, 0, "")


def test_a_local_storage_is_a_directory_with_mode_and_group(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"

    mounted = handlers.local(Storage(mount_point=str(place), options=["mode=0750", "fsgid=1234"]))

    found = place.stat()
    assert not mounted
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o2750, 1234)


def test_an_option_that_should_be_a_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="fsgid=staff is no number"):
        handlers.local(Storage(mount_point=str(tmp_path), options=["fsgid=staff"]))


def test_huge_pages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unimplemented):
        handlers.ephemeral(Storage(mount_point=str(tmp_path), fstype="hugetlbfs"))


async def test_an_unknown_driver_is_named_and_what_came_before_is_released(tmp_path: Path) -> None:
    table = StorageTable()
    known = Storage(driver="local", mount_point=str(tmp_path / "known"))

    with pytest.raises(AgentError, match="Failed to find the storage handler 9p"):
        await table.add([known, Storage(driver="9p", mount_point="/x")])

    assert await table.add([known]) == [known.mount_point]


async def test_a_failure_of_the_kernel_says_what_and_where(tmp_path: Path) -> None:
    storage = Storage(driver="bind", source=str(tmp_path / "missing"), mount_point=str(tmp_path / "place"))

    with pytest.raises(AgentError, match=f"cannot make bind storage .*missing at {tmp_path}/place: No such file"):
        await StorageTable().add([storage])


async def test_a_storage_can_be_given_to_a_group(tmp_path: Path) -> None:
    place = tmp_path / "volume"
    storage = Storage(driver="local", mount_point=str(place), fs_group=FSGroup(group_id=4321))

    await StorageTable().add([storage])

    assert place.stat().st_gid == 4321
    assert stat.S_IMODE(place.stat().st_mode) & 0o2770 == 0o2770


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
