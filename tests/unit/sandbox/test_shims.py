"""Notes of sockets: whose they are, and which are nobody's any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.sandbox import shims
from kata_py.shim import listener


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "shims")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.mkdir()
    return path


@pytest.fixture
def path(short_tmp: Path) -> Iterator[Path]:
    path = short_tmp / "s" / "socket"
    yield path
    path.unlink(missing_ok=True)


def dead(path: Path) -> None:
    """Leave the socket of a listener that was killed."""
    taken = listener.take(str(path))
    assert taken is not None
    taken.close()


def test_a_dead_socket_goes_with_its_note_once_the_bundle_is_removed(root: str, bundle: Path, path: Path) -> None:
    shims.note("pod", str(path), str(bundle), root)
    dead(path)
    shims.sweep(root)
    assert path.exists()
    bundle.rmdir()
    assert shims.forsaken(root) == [("pod", str(path))]
    shims.sweep(root)
    assert not path.exists()
    assert os.listdir(root) == []  # noqa: PTH208 as it is named


def test_a_shim_that_was_killed_before_it_listened_leaves_a_note_that_goes(root: str, bundle: Path, path: Path) -> None:
    shims.note("pod", str(path), str(bundle), root)
    bundle.rmdir()
    shims.sweep(root)
    assert os.listdir(root) == []  # noqa: PTH208


def test_a_socket_that_somebody_listens_at_stays_though_the_bundle_is_gone(root: str, bundle: Path, path: Path) -> None:
    shims.note("pod", str(path), str(bundle), root)
    listening = listener.take(str(path))
    assert listening is not None
    bundle.rmdir()
    shims.sweep(root)
    assert shims.forsaken(root) == []
    assert path.exists()
    listening.close()
    assert shims.forsaken(root) == [("pod", str(path))]


def test_a_later_shim_of_the_same_sandbox_has_the_note(root: str, bundle: Path, path: Path, tmp_path: Path) -> None:
    shims.note("pod", str(path), str(tmp_path / "gone"), root)
    shims.note("pod", str(path), str(bundle), root)
    dead(path)
    assert shims.forsaken(root) == []
    shims.forget(str(path), root)
    assert os.listdir(root) == []  # noqa: PTH208


def test_what_a_kill_amid_a_note_has_left_goes_too(root: str, bundle: Path, path: Path) -> None:
    shims.note("pod", str(path), str(bundle), root)
    (note,) = Path(root).iterdir()
    note.rename(f"{note}.new")
    bundle.rmdir()
    shims.sweep(root)
    assert os.listdir(root) == []  # noqa: PTH208


def test_a_node_without_shims_is_clean(root: str) -> None:
    shims.sweep(root)
    shims.forget("/run/containerd/s/none", root)
    assert shims.forsaken(root) == []
