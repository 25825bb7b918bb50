from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kata_py.resource import file


def test_a_file_is_replaced_as_a_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    for text in ("first", "second"):
        file.replace(str(tmp_path / "address"), text)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("address", text)]


def test_a_full_disk_is_told_with_the_path_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "address"
    path.write_text("first")
    (tmp_path / "address.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'") as caught:
        file.replace(str(path), "second")
    assert caught.value.errno == errno.ENOSPC
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("address", "first")]


def test_a_missing_directory_is_told_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "address"
    with pytest.raises(FileNotFoundError, match=f"'{path}'"):
        file.replace(str(path), "text")
