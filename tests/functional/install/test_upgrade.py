"""Versions come and go beneath sandboxes that run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from kata_py.sandbox import record
from tests.functional.install.conftest import NEW, OLD, Node
from tests.manager import Container, Manager
from tests.trees import footprint

pytestmark = pytest.mark.root

ROUNDS = 100
LOOKS = 10  # rounds after which the sandbox is asked whether it lives


def version_of(node: Node, container: Container) -> str:
    """Which version a sandbox is of, by its record and by its process."""
    program = record.program_of(container.id)
    assert program.encode() in Path(f"/proc/{container.shim_pid}/cmdline").read_bytes().split(b"\0")
    return Path(program).relative_to(node.home / "versions").parts[0]


async def alive(container: Container) -> None:
    assert await container.run("echo", "alive") == (0, b"alive\n")


async def test_a_hundred_times_on_and_off_a_node_with_a_running_sandbox(
    node: Node, manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    node.upgrade(node.bundles / OLD)
    before = footprint(node.top)
    async with manager.container("stays", "sleep", "100000") as container:
        await container.start()
        for number in range(ROUNDS):
            managers = ("crio", "containerd") if number % LOOKS == 0 else ("crio",)
            for each in managers:
                node.install(each)
            node.upgrade(node.bundles / NEW)
            assert node.shim.resolve().is_relative_to(node.home / "versions" / NEW)
            node.upgrade("--rollback")
            node.upgrade("--remove", NEW)
            for each in managers:
                node.ctl("uninstall", each)
            assert footprint(node.top) == before
            if number % LOOKS == 0:
                await alive(container)
        await alive(container)
        assert version_of(node, container) == OLD
        assert f"sandbox stays: stays on {OLD} until it ends" in capsys.readouterr().out
    node.upgrade("--remove", OLD)
    assert not node.home.exists()


async def test_a_sandbox_keeps_its_version_and_the_next_gets_the_new_one(node: Node, manager: Manager) -> None:
    node.upgrade(node.bundles / OLD)
    async with manager.container("earlier", "sleep", "100000") as earlier:
        await earlier.start()
        node.upgrade(node.bundles / NEW)
        async with manager.container("later", "sleep", "100000") as later:
            await later.start()
            assert [version_of(node, each) for each in (earlier, later)] == [OLD, NEW]
            node.upgrade("--remove", OLD, expect=1)
            node.upgrade("--rollback")
            node.upgrade("--remove", NEW, expect=1)
            await alive(earlier)
            await alive(later)
        node.upgrade("--remove", NEW)
        await alive(earlier)


async def test_a_sandbox_of_a_later_version_is_deleted_after_a_roll_back(node: Node, manager: Manager) -> None:
    node.upgrade(node.bundles / OLD)
    # The new version undoes something that the old one has never heard of.
    launcher = node.bundles / NEW / "bin/containerd-shim-kata-v2"
    lines = launcher.read_text().split("from kata_py.shim.command")
    known = "from kata_py.resource import undo\nundo._KINDS['later'] = undo.RemoveFile\nfrom kata_py.shim.command"
    launcher.write_text(known.join(lines))
    node.upgrade(node.bundles / NEW)
    left = node.top / "left"
    left.touch()
    async with manager.container("later", "sleep", "100000") as container:
        await container.start()
        node.upgrade("--rollback")
        await container.disconnect()
        os.kill(container.shim_pid, signal.SIGKILL)
        path = record.ROOT / "later" / "record.json"
        content = json.loads(path.read_bytes())
        content["undo"].append({"kind": "later", "path": str(left)})
        path.write_text(json.dumps(content))
        manager.delete("later", container.bundle)
        assert not path.exists()
        assert not left.exists()
    node.upgrade("--remove", NEW)


def test_the_last_version_stays_as_long_as_a_manager_is_told_of_it(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.upgrade(node.bundles / OLD)
    node.install("crio")
    node.upgrade("--plan", node.bundles / NEW)
    assert f"names {node.home}/current, so its next pod is of that version" in capsys.readouterr().out
    node.upgrade("--remove", OLD, expect=1)
    assert "kata-ctl uninstall crio" in capsys.readouterr().err
    node.ctl("uninstall", "crio")
    node.upgrade("--remove", OLD)
