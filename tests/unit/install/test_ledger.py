"""A drop-in is written, and what was there before is put back, whatever happens in between."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kata_py.install import durable
from kata_py.install.errors import EditedError, InstallError
from kata_py.install.ledger import Ledger
from tests.trees import footprint

OURS, NEWER = "ours = 1\n", "ours = 2\n"


class Node:
    """A manager's directory of drop-ins, and a ledger."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.path = top / "etc" / "manager" / "conf.d" / "50-kata"
        self.ledger = Ledger("manager", top / "var" / "kata-py")
        (top / "var").mkdir()

    def holds(self, text: str) -> None:
        self.path.parent.mkdir(parents=True)
        self.path.write_text(text)
        self.path.chmod(0o640)
        os.utime(self.path, ns=(0, 1_234_567_890))

    def install(self, text: str = OURS, *, force: bool = False) -> str:
        return self.ledger.install(self.path, text, force=force).diff()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_was_not_there_is_not_there_afterwards(node: Node) -> None:
    before = footprint(node.top)
    node.install()
    assert node.path.read_text() == OURS
    assert node.path.stat().st_mode & 0o777 == 0o644
    node.ledger.uninstall()
    assert footprint(node.top) == before


def test_a_file_that_was_there_is_put_back_with_its_mode_and_time(node: Node) -> None:
    node.holds("theirs\r\n\xff")
    before, modified = footprint(node.top), node.path.stat().st_mtime_ns
    node.install()
    node.install(NEWER)
    node.ledger.uninstall()
    assert footprint(node.top) == before
    assert node.path.stat().st_mtime_ns == modified


def test_the_same_again_changes_nothing(node: Node) -> None:
    node.install()
    before = node.path.stat().st_ino
    assert node.install() == ""
    assert node.path.stat().st_ino == before


def test_a_change_is_shown_as_diff_shows_it(node: Node) -> None:
    assert node.install() == f"--- /dev/null\n+++ {node.path}\n@@ -0,0 +1 @@\n+ours = 1\n"
    assert node.install(NEWER).endswith("@@ -1 +1 @@\n-ours = 1\n+ours = 2\n")
    change = node.ledger.uninstall()
    assert change is not None
    assert change.diff() == f"--- {node.path}\n+++ /dev/null\n@@ -1 +0,0 @@\n-ours = 2\n"


def test_a_dry_run_shows_the_change_and_makes_none(node: Node) -> None:
    before = footprint(node.top)
    assert node.ledger.install(node.path, OURS, dry_run=True).diff()
    assert footprint(node.top) == before
    node.install()
    installed = footprint(node.top)
    assert node.ledger.uninstall(dry_run=True)
    assert footprint(node.top) == installed


def test_nothing_installed_is_nothing_to_uninstall(node: Node) -> None:
    before = footprint(node.top)
    assert node.ledger.uninstall() is None
    assert footprint(node.top) == before


@pytest.mark.parametrize("theirs", ["", "theirs\n"])
def test_what_somebody_else_has_edited_since_is_left_alone_without_force(node: Node, theirs: str) -> None:
    if theirs:
        node.holds(theirs)
    before = footprint(node.top)
    node.install()
    node.path.write_text("edited\n")
    with pytest.raises(EditedError, match="was edited by somebody else"):
        node.ledger.uninstall()
    with pytest.raises(EditedError):
        node.install(NEWER)
    assert node.path.read_text() == "edited\n"
    node.install(NEWER, force=True)
    assert node.path.read_text() == NEWER
    node.path.write_text("edited again\n")
    node.ledger.uninstall(force=True)
    assert footprint(node.top) == before


def test_what_somebody_else_has_removed_is_not_brought_back_without_force(node: Node) -> None:
    node.holds("theirs\n")
    node.install()
    node.path.unlink()
    with pytest.raises(EditedError, match="was removed by somebody else"):
        node.ledger.uninstall()
    node.ledger.uninstall(force=True)
    assert node.path.read_text() == "theirs\n"


def test_a_drop_in_of_ours_that_was_removed_is_as_if_uninstalled(node: Node) -> None:
    before = footprint(node.top)
    node.install()
    node.path.unlink()
    node.ledger.uninstall()
    assert footprint(node.top) == before


def test_a_directory_that_others_use_by_now_stays(node: Node) -> None:
    node.install()
    other = node.path.with_name("60-other")
    other.write_text("other\n")
    node.ledger.uninstall()
    assert list(node.path.parent.iterdir()) == [other]


def test_one_manager_has_one_drop_in(node: Node) -> None:
    node.install()
    with pytest.raises(InstallError, match=r"has the drop-in .+50-kata already"):
        node.ledger.install(node.path.with_name("60-kata"), OURS)


def test_a_link_is_not_replaced(node: Node) -> None:
    node.path.parent.mkdir(parents=True)
    node.path.symlink_to("elsewhere")
    with pytest.raises(InstallError, match="is no file but a link"):
        node.install()
    assert node.path.is_symlink()


def test_two_at_a_time_are_one_too_many(node: Node) -> None:
    with durable.locked(node.top / "var" / "kata-py"), pytest.raises(InstallError, match="another process is at work"):
        node.install()
    node.install()


@pytest.mark.parametrize("content", ["{", "{}", json.dumps({"version": 2}), json.dumps({"version": 1, "path": "/x"})])
def test_a_ledger_that_cannot_be_read_stops_everything(node: Node, content: str) -> None:
    node.install()
    (node.top / "var/kata-py/install/manager.json").write_text(content)
    for action in (node.install, node.ledger.uninstall):
        with pytest.raises(InstallError, match=r"manager\.json cannot be used"):
            action()
    assert node.path.read_text() == OURS
