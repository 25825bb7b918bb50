from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kata_py.resource.mntns import MountNamespace

pytestmark = pytest.mark.root


def test_a_function_sees_what_is_mounted_in_the_namespace_and_the_caller_does_not(
    home: Path, node: MountNamespace
) -> None:
    greeting = home / "merged" / "greeting"
    assert node.run(greeting.read_text) == "hello\n"
    assert not greeting.exists()


def test_threads_that_went_there_end_and_take_their_errors_along(home: Path, node: MountNamespace) -> None:
    before = threading.active_count()
    with pytest.raises(FileNotFoundError):
        node.run((home / "nothing").stat)
    assert threading.active_count() == before
    assert Path.cwd() == Path("/proc/self/cwd").readlink()  # theirs was another


def test_the_namespace_of_this_process_is_one_too(tmp_path: Path) -> None:
    with _closing(MountNamespace.own()) as own:
        assert own.run(tmp_path.is_dir)


@contextmanager
def _closing(namespace: MountNamespace) -> Iterator[MountNamespace]:
    try:
        yield namespace
    finally:
        namespace.close()
