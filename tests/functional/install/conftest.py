"""A node's directories below one of the test's own, kata-ctl on them, and real sandboxes of the namespace driver."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.cli import command
from kata_py.resource import mount
from tests import trees
from tests.manager import Manager
from tools import oci_image

OLD, NEW = "0.1.0", "0.2.0"


class Node:
    """A node.

    Attributes:
        top: Where its directories are.
        home: Where versions are.
        main: containerd's main file.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.home = top / "opt" / "kata"
        self.main = top / "etc" / "containerd" / "config.toml"
        self.bundles = top.with_name(f"{top.name}-bundles")
        self.main.parent.mkdir(parents=True)
        (top / "var").mkdir()
        (top / "etc" / "crio").mkdir()
        self.main.write_text(f'version = 2\nimports = ["{self.main.parent}/conf.d/*.toml"]\n')
        for version in (OLD, NEW):
            trees.make(self.bundles / version, version)

    @property
    def shim(self) -> Path:
        """The program that managers start."""
        return self.home / "current" / "bin" / "containerd-shim-kata-v2"

    @property
    def configuration(self) -> Path:
        """The configuration that managers name."""
        return self.home / "current" / "share" / "configuration.toml"

    def ctl(self, *words: object, expect: int = 0) -> None:
        """Run kata-ctl on this node; its exit status is what is expected."""
        assert command.main([*map(str, words), "--state", str(self.top / "var" / "kata-py")]) == expect

    def upgrade(self, *words: object, expect: int = 0) -> None:
        """Run `kata-ctl upgrade`."""
        self.ctl("upgrade", "--home", self.home, *words, expect=expect)

    def install(self, manager: str, *words: object, expect: int = 0) -> None:
        """Run `kata-ctl install`."""
        places = {
            "containerd": ("--containerd-config", self.main, "--drop-in", self.main.parent / "conf.d" / "50-kata.toml"),
            "crio": ("--drop-ins", self.top / "etc" / "crio" / "crio.conf.d"),
        }
        files = ("--shim", self.shim, "--configuration", self.configuration)
        remote = ("--remote-configuration", self.configuration.with_name("configuration-remote.toml"))
        self.ctl("install", manager, *files, *remote, *places[manager], *words, expect=expect)


@pytest.fixture
def node(short_tmp: Path) -> Iterator[Node]:
    """A node without anything of ours, in memory: each change waits for the disk, and a disk takes its time."""
    top = Path(tempfile.mkdtemp(prefix="node-", dir=short_tmp))
    mount.mount("tmpfs", str(top), "tmpfs")
    node = Node(top)
    yield node
    mount.unmount(str(top))
    top.rmdir()
    shutil.rmtree(node.bundles)


@pytest.fixture(scope="session")
def rootfs(short_tmp: Path) -> Path:
    """A busybox root file system."""
    path = short_tmp / "rootfs"
    path.mkdir()
    oci_image.rootfs(path)
    return path


@pytest.fixture
def manager(node: Node, rootfs: Path) -> Manager:
    """A manager that starts whichever version is in force."""
    return Manager(node.shim, node.top.with_name(f"{node.top.name}-m"), node.configuration, rootfs)
