"""Cgroups of the host: as they are mounted here, and v2 besides on a tree of plain files."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource.cgroup import (
    CONTROLLERS,
    Cgroup,
    Hierarchy,
    OomKills,
    hierarchies,
    joined,
    made,
    membership,
    sandbox_path,
)
from kata_py.resource.undo import RemoveCgroup, RemoveEmptyCgroup, from_json, to_json
from tests import cgroups
from tests.drivers.journal import ListJournal

POD = f"/kata-py-test-{os.getpid()}/pod"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/kubepods/besteffort/pod1/abc", "/kubepods/besteffort/pod1/kata_abc"),
        ("relative/abc", "/relative/kata_abc"),
        ("/a/../../b", "/kata_b"),
        ("", "/kata_sid"),
        ("/", "/kata_sid"),
        (
            "kubepods-burstable-pod1.slice:crio:abc",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/crio-abc.scope",
        ),
        (":cri-containerd:abc", "/system.slice/cri-containerd-abc.scope"),
        ("-.slice::abc", "/abc.scope"),
        ("/k8s.io/a:b:c", "/k8s.io/kata_a:b:c"),
    ],
)
def test_the_sandboxs_cgroup_lies_beside_the_one_that_is_the_managers(given: str, path: str) -> None:
    assert sandbox_path(given, "sid") == path


class TestTrees:
    def mounted(self, root: Path, *lines: str) -> tuple[Hierarchy, ...]:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))
        return hierarchies(root)

    def test_of_v1_each_with_a_controller_that_counts(self, tmp_path: Path) -> None:
        found = self.mounted(
            tmp_path,
            "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro",
            "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            "32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
            "33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "34 30 0:30 /docker/x /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory",
            "35 30 0:30 /docker/x /elsewhere rw - cgroup cgroup rw,memory",
            "36 30 0:31 / /sys/fs/cgroup/perf_event rw - cgroup cgroup rw,perf_event",
        )
        places = tmp_path / "sys/fs/cgroup"
        assert found == (
            Hierarchy(places / "cpu,cpuacct", "/", frozenset({"cpu", "cpuacct"})),
            Hierarchy(places / "memory", "/docker/x", frozenset({"memory"})),
        )
        (tmp_path / "proc/7").mkdir()
        (tmp_path / "proc/7/cgroup").write_text("5:memory:/docker/x/a\n4:cpu,cpuacct:/b\n1:name=systemd:/c\n0::/d\n")
        assert membership(7, found, tmp_path) == {
            found[0]: places / "cpu,cpuacct/b", found[1]: places / "memory/a",
        }  # fmt: skip

    def test_of_v2_where_there_is_nothing_else(self, tmp_path: Path) -> None:
        found = self.mounted(tmp_path, "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate")
        assert found == (Hierarchy(tmp_path / "sys/fs/cgroup", "/", frozenset()),)
        assert found[0].unified


class TestUnified:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Hierarchy:
        (tmp_path / "pod").mkdir()
        for directory in (tmp_path, tmp_path / "pod"):
            (directory / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
            (directory / "cgroup.subtree_control").write_text("cpu memory\n")
        return Hierarchy(tmp_path, "/", frozenset())

    def test_controllers_are_handed_down_to_it(self, tree: Hierarchy) -> None:
        journal = ListJournal()
        with made("/pod/kata_x", [tree], journal):
            assert journal.entries == [RemoveCgroup(str(tree.place / "pod/kata_x"))]
            assert (tree.place / "pod/kata_x").is_dir()
            for directory in (tree.place, tree.place / "pod"):  # a real kernel would add to it, word by word
                assert (directory / "cgroup.subtree_control").read_text() == "+pids"
        assert journal.entries == []

    def test_processors_are_written(self, tree: Hierarchy) -> None:
        directory = tree.place / "kata_x"
        directory.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            (directory / name).touch()
            (tree.place / f"{name}.effective").write_text("0-3\n")
        cgroup = Cgroup("/kata_x", {tree: directory})
        cgroup.confine("0-1", "")
        assert {file.name: file.read_text() for file in directory.iterdir()} == {
            "cpuset.cpus": "0-1\n", "cpuset.mems": "",
        }  # fmt: skip
        cgroup.confine("", "")
        assert (directory / "cpuset.cpus").read_text() == "0-3\n"

    def test_a_controller_that_was_not_handed_down_is_told(self, tree: Hierarchy) -> None:
        cgroup = Cgroup("/pod", {tree: tree.place / "pod"})
        with pytest.raises(FileNotFoundError, match=r"not handed down.*cpuset\.cpus"):
            cgroup.confine("0", "0")


@pytest.mark.root
class TestReal:
    @pytest.fixture
    def trees(self) -> Iterator[tuple[Hierarchy, ...]]:
        found = hierarchies()
        assert found
        yield found
        assert not any(tree.directory(str(Path(POD).parent)).exists() for tree in found)

    def test_a_cgroup_is_made_with_its_parents_and_leaves_none_of_them(self, trees: tuple[Hierarchy, ...]) -> None:
        journal = ListJournal()
        parents = [tree.directory(str(Path(POD).parent)) for tree in trees]
        with made(POD, trees, journal), made(f"{POD}2", trees, ListJournal()):
            assert {type(entry) for entry in journal.made} == {RemoveCgroup, RemoveEmptyCgroup}
            assert all(tree.directory(POD).is_dir() for tree in trees)
        assert journal.entries == []
        assert not any(parent.exists() for parent in parents)

    def test_a_parent_that_a_manager_made_stays(self, trees: tuple[Hierarchy, ...]) -> None:
        parents = [tree.directory(str(Path(POD).parent)) for tree in trees]
        for parent in parents:
            parent.mkdir()
        try:
            with made(POD, trees, ListJournal()):
                pass
        finally:
            for parent in parents:
                parent.rmdir()

    def test_what_we_start_is_in_it_and_is_killed_with_it_while_we_are_where_we_were(
        self, trees: tuple[Hierarchy, ...]
    ) -> None:
        before = membership(os.getpid(), trees)
        with made(POD, trees, ListJournal()) as cgroup:
            with joined(cgroup, trees):
                sleeper = subprocess.Popen(["/bin/sleep", "60"])
            inside = {tree: tree.directory(POD) for tree in trees}
            assert membership(sleeper.pid, trees) == inside
            assert membership(os.getpid(), trees) == before
        assert sleeper.wait(5) == -9

    def test_a_shim_in_it_steps_out_before_it_is_removed(self, trees: tuple[Hierarchy, ...]) -> None:
        before = membership(os.getpid(), trees)
        with made(POD, trees, ListJournal()) as cgroup:
            cgroup.join(os.getpid())
        try:
            assert not any(tree.directory(str(Path(POD).parent)).exists() for tree in trees)
        finally:
            for directory in before.values():
                (directory / "cgroup.procs").write_text(f"{os.getpid()}\n")

    def test_it_has_the_processors_it_is_given_or_its_parents(self, trees: tuple[Hierarchy, ...]) -> None:
        [tree] = [tree for tree in trees if tree.unified or "cpuset" in tree.controllers]
        with made(POD, [tree], ListJournal()) as cgroup:
            file = tree.directory(POD) / ("cpuset.cpus.effective" if tree.unified else "cpuset.cpus")
            everything = file.read_text()
            cgroup.confine("", "")
            assert file.read_text() == everything
            cgroup.confine("0", "0")
            assert file.read_text() == "0\n"
            cgroup.confine("", "")
            assert file.read_text() == everything
            with pytest.raises(OSError, match="cpuset"):
                cgroup.confine("60000", "")

    def test_it_has_the_devices_it_is_given_and_no_others(self, trees: tuple[Hierarchy, ...]) -> None:
        [tree] = [tree for tree in trees if tree.unified or "devices" in tree.controllers]
        joining = f"echo 0 > {tree.directory(POD)}/cgroup.procs; "

        def can(script: str) -> bool:
            return subprocess.run(["/bin/sh", "-ec", joining + script], stderr=subprocess.DEVNULL).returncode == 0

        with made(POD, [tree], ListJournal()) as cgroup:
            assert can("true < /dev/zero; true < /dev/null")
            cgroup.allow([])
            assert not can("true < /dev/null")
            with pytest.raises(OSError, match="nonsense"):
                cgroup.allow(["c 1:3 rwm", "nonsense", "c 136:* rw"])
            assert can("true < /dev/null")
            assert not can("true < /dev/zero")

    def test_a_hierarchy_that_does_not_let_us_is_warned_of(
        self, trees: tuple[Hierarchy, ...], caplog: pytest.LogCaptureFixture
    ) -> None:
        forbidden = Hierarchy(Path("/proc"), "/", CONTROLLERS)
        journal = ListJournal()
        with made(POD, [forbidden, *trees], journal):
            assert trees[0].directory(POD).is_dir()
        assert journal.entries == []
        assert "no cgroup for the sandbox in /proc: " in caplog.text
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1

    def test_a_kill_for_want_of_memory_is_told_with_its_cgroup(self, trees: tuple[Hierarchy, ...]) -> None:
        with made(POD, trees, ListJournal()) as cgroup:
            hog = subprocess.Popen(["/bin/sh", "-c", "read x; exec tail /dev/zero"], stdin=subprocess.PIPE)
            cgroup.join(hog.pid)
            kills = OomKills(hog.pid)
            assert kills.told() == ""
            place = cgroups.limit_memory(POD, 32 << 20)
            hog.communicate(b"\n", timeout=20)
            assert hog.returncode == -9
            assert kills.told() == str(place)

    def test_of_a_process_that_is_gone_nothing_is_told(self) -> None:
        assert OomKills(1 << 30).told() == ""


def test_a_shared_parent_is_kept_in_the_record() -> None:
    undo = RemoveEmptyCgroup("/sys/fs/cgroup/memory/kata_overhead")
    assert from_json(to_json(undo)) == undo
