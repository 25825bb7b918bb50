"""Versions side by side, and what keeps one from being removed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kata_py.install.errors import InstallError, InUseError
from kata_py.install.usage import User
from kata_py.install.versions import Versions
from tests import trees
from tests.trees import footprint

OLD, NEW, NEWEST = "0.1.0", "0.2.0", "0.3.0"

# A program that maps a file of its tree, as Python does with a compiled module, and waits for the test.
MAPPING = """\
#!{python}
import mmap, sys
from os.path import dirname, realpath
with open(dirname(dirname(realpath(__file__))) + "/lib/compiled.so", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(flush=True)
sys.stdin.read()
"""


class Node:
    """Places for versions and records, and sources to install from."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.home = top / "opt"
        self.records = top / "records"
        self.versions = Versions(self.home, self.records)

    def source(self, version: str, build: str = "") -> Path:
        place = self.top / f"source-{version}{build}"
        return place if place.exists() else trees.make(place, version, build=build)

    def upgrade(self, version: str) -> None:
        self.versions.upgrade(self.source(version))

    def tree(self, version: str) -> Path:
        return self.home / "versions" / version

    def record(self, id: str, program: object) -> Path:
        path = self.records / id / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"version": 99, "program": program}))
        return path

    @contextmanager
    def running(self, program: Path, *arguments: str, script: str = "") -> Iterator[int]:
        """A program with a name of ours that does nothing until it is told to end."""
        if script:
            program.write_text(script.format(python=sys.executable))
            program.chmod(0o755)
        words = [program, *arguments] if script else ["/bin/sh", "-c", "echo; read _", program, *arguments]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
            process.communicate()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_first_version_is_the_one_in_force(node: Node) -> None:
    plan = node.versions.upgrade(node.source(OLD))
    assert (plan.origin, plan.target, plan.unpacked) == ("", OLD, True)
    assert (node.versions.current(), node.versions.previous()) == (OLD, "")
    assert (node.home / "current").resolve() == node.tree(OLD)


def test_an_upgrade_keeps_the_version_before_and_no_other(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    plan = node.versions.upgrade(node.source(NEWEST))
    assert (plan.kept, plan.removed) == ((NEW,), (OLD,))
    assert node.versions.installed() == [NEW, NEWEST]
    assert (node.versions.current(), node.versions.previous()) == (NEWEST, NEW)


def test_a_plan_says_what_the_upgrade_does_and_does_nothing(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    node.record("c1", str(node.tree(OLD) / "bin/containerd-shim-kata-v2"))
    source = node.source(NEWEST)
    before = footprint(node.top)
    plan = node.versions.plan(source)
    assert footprint(node.top) == before
    assert plan == node.versions.upgrade(source)
    assert (plan.kept, plan.removed) == ((OLD, NEW), ())
    assert plan.users == (User("sandbox c1", OLD),)


def test_the_same_again_changes_nothing(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    before = footprint(node.home)
    plan = node.versions.upgrade(node.source(NEW))
    assert (plan.origin, plan.target, plan.unpacked, plan.kept) == (NEW, NEW, False, (OLD,))
    assert footprint(node.home) == before


def test_a_roll_back_goes_to_the_version_before_once(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    plan = node.versions.roll_back()
    assert (plan.origin, plan.target, plan.kept) == (NEW, OLD, (NEW,))
    assert node.versions.current() == OLD
    with pytest.raises(InstallError, match="no version to go back to"):
        node.versions.roll_back()
    node.versions.upgrade(node.tree(NEW))
    assert (node.versions.current(), node.versions.previous()) == (NEW, OLD)


def test_another_build_of_an_installed_version_is_refused(node: Node) -> None:
    node.upgrade(OLD)
    with pytest.raises(InstallError, match="another build of it"):
        node.versions.upgrade(node.source(OLD, "again"))


def test_the_configuration_names_the_versions_own_files(node: Node) -> None:
    source = node.source(OLD)
    configuration = source / "share/configuration.toml"
    configuration.write_text(f'kernel = "/opt/kata/share/guest/vmlinux"\nimage = "{source}/share/image"\n')
    node.upgrade(OLD)
    lines = (node.tree(OLD) / "share/configuration.toml").read_text().splitlines()
    assert lines == [f'kernel = "{node.tree(OLD)}/share/guest/vmlinux"', f'image = "{node.tree(OLD)}/share/image"']


def test_a_bundle_is_a_source_too(node: Node) -> None:
    tree, bundle = trees.make(node.top / "kata", OLD), node.top / "bundle.tar.zst"
    (tree / "share/guest").mkdir()
    (tree / "share/guest/manifest.json").write_text("{}")
    tar = ["tar", "--create", "--use-compress-program=zstd -q", f"--file={bundle}", f"--directory={node.top}"]
    subprocess.run([*tar, "kata"], check=True)
    assert node.versions.plan(bundle).unpacked
    node.versions.upgrade(bundle)
    assert not node.versions.plan(bundle).unpacked
    assert not node.versions.plan(tree).unpacked  # known as the same
    assert footprint(node.tree(OLD)).keys() == footprint(tree).keys()


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_what_is_no_bundle_is_refused_and_nothing_is_left(node: Node, content: bytes | None) -> None:
    node.upgrade(OLD)
    bundle = node.top / "bundle.tar.zst"
    if content is not None:
        bundle.write_bytes(content)
    before = footprint(node.home)
    with pytest.raises(InstallError, match=r"no bundle|tar:"):
        node.versions.upgrade(bundle)
    assert footprint(node.home) == before


def test_a_directory_of_something_else_is_refused(node: Node) -> None:
    with pytest.raises(InstallError, match="is no tree of kata-py"):
        node.versions.upgrade(node.top)


def test_a_version_goes_when_its_last_sandbox_has_gone(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    record = node.record("c1", str(node.tree(OLD) / "bin/containerd-shim-kata-v2"))
    with pytest.raises(InUseError, match="needed by sandbox c1"):
        node.versions.remove(OLD)
    record.unlink()
    node.versions.remove(OLD)
    assert node.versions.installed() == [NEW]
    assert node.versions.previous() == ""
    node.upgrade(OLD)


def test_the_version_in_force_is_removed_last_and_leaves_nothing(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    with pytest.raises(InstallError, match="the one that new pods get"):
        node.versions.remove(NEW)
    node.versions.remove(OLD)
    node.versions.remove(NEW)
    assert not node.home.exists()
    with pytest.raises(InstallError, match=r"no version 0\.2\.0 is installed; there is: none"):
        node.versions.remove(NEW)


@pytest.mark.parametrize("program", ["", None, 7, "/usr/bin/containerd-shim-kata-v2", "relative"])
def test_a_record_of_another_place_holds_no_version(node: Node, program: object) -> None:
    node.upgrade(OLD)
    node.record("c1", program)
    (node.records / "empty").mkdir()
    assert node.versions.users() == []


def test_a_shim_without_a_record_yet_is_found_by_its_command_line(node: Node) -> None:
    node.upgrade(OLD)
    with node.running(node.tree(OLD) / "bin/containerd-shim-kata-v2", "-id", "c1", "-debug"):
        assert node.versions.users() == [User("sandbox c1", OLD)]
    assert node.versions.users() == []


def test_a_shim_that_starts_by_the_link_may_be_of_any_version(node: Node) -> None:
    node.upgrade(OLD)
    node.upgrade(NEW)
    with node.running(node.home / "current/bin/containerd-shim-kata-v2", "-id", "c1", "start"):
        assert node.versions.users() == [User("sandbox c1", "")]
        with pytest.raises(InUseError):
            node.versions.remove(OLD)
        assert node.versions.plan(node.source(NEWEST)).removed == ()


def test_a_monitor_is_found_by_what_it_has_mapped(node: Node) -> None:
    node.upgrade(OLD)
    (node.tree(OLD) / "lib/compiled.so").write_bytes(b"compiled")
    with node.running(node.tree(OLD) / "bin/kata-monitor", script=MAPPING):
        pass
    node.upgrade(NEW)
    node.versions.roll_back()
    with node.running(node.home / "current/bin/kata-monitor", script=MAPPING) as pid:
        node.versions.upgrade(node.tree(NEW))
        [user] = node.versions.users()
        assert user == User(f"kata-monitor (pid {pid})", OLD)
        assert user.is_monitor
        with pytest.raises(InUseError, match="needed by kata-monitor"):
            node.versions.remove(OLD)


def test_a_shim_of_another_place_is_nobodys(node: Node) -> None:
    node.upgrade(OLD)
    with node.running(node.source(OLD) / "bin/containerd-shim-kata-v2", "-id", "c1"):
        assert node.versions.users() == []
