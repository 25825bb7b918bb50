from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.resource import mount
from kata_py.resource.process import start_time
from kata_py.resource.undo import (
    KillProcess,
    RemoveCgroup,
    RemoveFile,
    RemoveLink,
    RemoveQdisc,
    RemoveTree,
    RestoreLink,
    Undo,
    Unmount,
    from_json,
    to_json,
)

PATH_KINDS = (Unmount, RemoveFile, RemoveTree, RemoveCgroup)

undos = st.one_of(
    st.builds(KillProcess, st.integers(1), st.integers(0), st.text()),
    *(st.builds(kind, st.text(min_size=1)) for kind in PATH_KINDS),
    st.builds(RemoveLink, st.text(), st.integers(0), st.text()),
    st.builds(RemoveQdisc, st.text(), st.integers(0), st.text(), st.integers(0)),
    st.builds(RestoreLink, st.text(), st.integers(0), st.text(), st.text(), st.lists(st.text()).map(tuple)),
)


@given(undos)
def test_an_undo_reads_back_from_the_json_it_was_written_as(undo: Undo) -> None:
    assert from_json(json.loads(json.dumps(to_json(undo)))) == undo


def test_an_unknown_kind_is_told_apart_from_damage() -> None:
    with pytest.raises(ValueError, match="unknown kind of undo 'warp'; this record is of a newer version"):
        from_json({"kind": "warp"})
    with pytest.raises(ValueError, match=r"undo 'remove-file': .*colour"):
        from_json({"kind": "remove-file", "colour": "red"})


@pytest.mark.parametrize(
    "undo",
    [
        KillProcess(2**22 - 1, 1, "nobody"),
        *(kind("/no/such/path") for kind in PATH_KINDS),
        RemoveLink("/no/such/netns", 1, "eth0"),
        RemoveLink("/proc/self/ns/net", 1, "lo"),  # another namespace is at the path by now
        RemoveQdisc("/no/such/netns", 1, "eth0", 1),
        RestoreLink("/proc/4194303/ns/net", 1, "eth0", "02:00:00:00:00:01", ("10.0.0.2/24",)),
    ],
    ids=lambda undo: undo.kind,
)
def test_undoing_what_was_never_made_is_success(undo: Undo) -> None:
    undo.perform()


def test_a_process_is_killed() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        born = start_time(child.pid)
        assert born is not None
        KillProcess(child.pid, born, "sleep").perform()
        assert start_time(child.pid) is None


def test_a_file_and_a_dangling_link_are_removed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    RemoveFile(str(link)).perform()
    assert not os.path.lexists(link)


def test_a_tree_is_removed_with_all_kinds_of_files_in_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "precious").touch()
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "file").touch()
    (tree / "link").symlink_to(kept)
    os.mkfifo(tree / "fifo")
    RemoveTree(str(tree)).perform()
    assert not tree.exists()
    assert (kept / "precious").exists()


def test_a_link_in_a_trees_place_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "tree").symlink_to("kept")
    RemoveTree(str(tmp_path / "tree")).perform()
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


@pytest.mark.root
class TestMounts:
    @pytest.fixture
    def precious(self, tmp_path: Path) -> Iterator[Path]:
        """A file in a directory that is bound into `tree/inside`."""
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "precious").touch()
        inside = tmp_path / "tree" / "inside"
        inside.mkdir(parents=True)
        mount.mount(str(tmp_path / "source"), str(inside), flags=mount.MS_BIND)
        yield tmp_path / "source" / "precious"
        mount.detach_below(str(tmp_path))

    def test_a_mount_is_undone_and_its_source_stays(self, precious: Path, tmp_path: Path) -> None:
        Unmount(str(tmp_path / "tree" / "inside")).perform()
        assert not (tmp_path / "tree" / "inside" / "precious").exists()
        assert precious.exists()

    def test_a_tree_is_removed_and_what_was_mounted_into_it_stays(self, precious: Path, tmp_path: Path) -> None:
        RemoveTree(str(tmp_path / "tree")).perform()
        assert not (tmp_path / "tree").exists()
        assert precious.exists()

    def test_a_mount_made_while_a_tree_is_removed_stops_the_removal(
        self, precious: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(mount, "detach_below", lambda path: None)  # as if it came right after
            with pytest.raises(OSError, match="a mount appeared inside") as failure:
                RemoveTree(str(tmp_path / "tree")).perform()
        assert failure.value.errno == errno.EXDEV
        assert precious.exists()


def writable_cgroup() -> Path:
    """A hierarchy that lets us make cgroups and hold processes: version 2 if it is there, else any of version 1."""
    for top in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids")):
        if (top / "cgroup.procs").exists():
            return top
    raise AssertionError("no cgroup hierarchy is mounted")


@pytest.mark.root
def test_a_cgroup_is_removed_with_its_children_and_processes() -> None:
    top = writable_cgroup() / f"kata-py-test-{os.getpid()}"
    child = top / "child"
    child.mkdir(parents=True)
    sleepers = []
    try:
        for directory in (top, child):
            sleepers.append(sleeper := subprocess.Popen(["/bin/sleep", "60"]))
            (directory / "cgroup.procs").write_text(str(sleeper.pid))
        RemoveCgroup(str(top)).perform()
        assert not top.exists()
        assert [start_time(sleeper.pid) for sleeper in sleepers] == [None, None]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
