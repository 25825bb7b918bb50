"""What tests of several packages are given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource.mntns import MountNamespace

# As CRI-O's storage: a home that is a private mount, and a container's file system below it.
_MANAGER = """
mount --bind "$1" "$1" && mount --make-private "$1"
mount -t tmpfs tmpfs "$1/merged" && echo hello > "$1/merged/greeting"
mkdir "$1/merged/below" && mount -t tmpfs tmpfs "$1/merged/below" && touch "$1/merged/below/file"
echo ready; read _
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "merged").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def node(home: Path) -> Iterator[MountNamespace]:
    """A manager's namespace, in which it has mounted what is not seen here."""
    command = ["unshare", "--mount", "sh", "-ec", _MANAGER, "manager", str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as manager:
        assert manager.stdin is not None
        assert manager.stdout is not None
        assert manager.stdout.readline() == "ready\n"
        node = MountNamespace(os.open(f"/proc/{manager.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        yield node
        node.close()
        manager.stdin.close()
