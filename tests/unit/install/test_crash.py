"""Kill -9 before every act on the disk: whoever comes next finds a node that can be brought on, or back."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from kata_py.install.errors import InstallError
from kata_py.install.ledger import Ledger
from kata_py.install.versions import Versions
from tests import trees
from tests.trees import footprint

ACTS_MAX = 200  # a change has fewer


def killed_at_each_act(top: Path, change: Callable[[], object]) -> Iterator[int]:
    """Run a change in a child that is killed before its first act below a directory, its second, and so on.

    The last, which is not killed, is not told of.
    """
    for number in count(1):
        assert number < ACTS_MAX
        pid = os.fork()
        if pid == 0:
            try:
                _die_at(str(top), number)
                change()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            assert number > 1, "nothing was done that could be killed"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield number


def _die_at(top: str, number: int) -> None:
    left = number

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event.startswith(("open", "os.", "shutil.")) and any(top in str(each) for each in arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory in memory: each act waits for the disk, and a disk takes its time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kata-py-") as name:
        yield Path(name)


@pytest.mark.parametrize("theirs", [None, "theirs\n"])
@pytest.mark.parametrize("again", [False, True])
def test_an_install_that_is_killed_is_completed_or_taken_back(top: Path, theirs: str | None, again: bool) -> None:
    path, ledger = top / "etc/crio/crio.conf.d/50-kata", Ledger("crio", top / "kata-py")
    if theirs:
        path.parent.mkdir(parents=True)
        path.write_text(theirs)
    before = footprint(top)
    for number in killed_at_each_act(top, lambda: ledger.install(path, "ours\n")):
        if path.exists():
            assert path.read_text() in ("ours\n", theirs), number
        if again:
            ledger.install(path, "ours\n")
            assert path.read_text() == "ours\n"
        ledger.uninstall()
        assert footprint(top) == before, number
    ledger.uninstall()
    assert footprint(top) == before


@pytest.mark.parametrize("theirs", [None, "theirs\n"])
@pytest.mark.parametrize("again", [False, True])
def test_an_uninstall_that_is_killed_is_completed_or_taken_back(top: Path, theirs: str | None, again: bool) -> None:
    path, ledger = top / "etc/crio/crio.conf.d/50-kata", Ledger("crio", top / "kata-py")
    if theirs:
        path.parent.mkdir(parents=True)
        path.write_text(theirs)
    before = footprint(top)
    ledger.install(path, "ours\n")
    for number in killed_at_each_act(top, ledger.uninstall):
        if again:
            ledger.install(path, "newer\n")
            assert path.read_text() == "newer\n"
        ledger.uninstall()
        assert footprint(top) == before, number
        ledger.install(path, "ours\n")


@pytest.fixture
def versions(top: Path) -> Versions:
    """One version installed, and the tree of another."""
    trees.make(top / "new", "0.2.0")
    trees.make(top / "old", "0.1.0")
    versions = Versions(top / "opt", top / "records")
    versions.upgrade(top / "old")
    return versions


def taken_back(versions: Versions) -> None:
    """Whatever a kill has left, bring the node back to the version before."""
    if versions.current() == "0.2.0":
        versions.roll_back()
    try:
        versions.remove("0.2.0")
    except InstallError:
        assert "0.2.0" not in versions.installed()


@pytest.mark.parametrize("again", [False, True])
def test_an_upgrade_that_is_killed_is_completed_or_taken_back(versions: Versions, top: Path, again: bool) -> None:
    home = top / "opt"
    before = footprint(home)
    for number in killed_at_each_act(home, lambda: versions.upgrade(top / "new")):
        assert (home / "current/bin/containerd-shim-kata-v2").is_file(), number
        if again:
            versions.upgrade(top / "new")
            assert (versions.current(), versions.previous()) == ("0.2.0", "0.1.0")
        taken_back(versions)
        assert footprint(home) == before, number


@pytest.mark.parametrize("change", ["roll back", "remove"])
def test_a_way_back_that_is_killed_is_gone_to_its_end(versions: Versions, top: Path, change: str) -> None:
    home = top / "opt"
    before = footprint(home)

    def prepare() -> None:
        versions.upgrade(top / "new")
        if change == "remove":
            versions.roll_back()

    prepare()
    act: Callable[[], object] = versions.roll_back if change == "roll back" else lambda: versions.remove("0.2.0")
    for number in killed_at_each_act(home, act):
        assert (home / "current/bin/containerd-shim-kata-v2").is_file(), number
        taken_back(versions)
        assert footprint(home) == before, number
        prepare()
