"""`kata-ctl install`, `uninstall` and `upgrade` as a person at a node types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kata_py.cli import command
from tests import trees
from tests.trees import footprint


class Node:
    """A node's directories, kata-ctl on them, and what it says."""

    def __init__(self, top: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.top = top
        self.home = top / "opt"
        self.drop_in = top / "crio" / "conf.d" / "50-kata"
        self.drop_in.parent.mkdir(parents=True)
        self._state = ["--state", str(top / "state")]
        self._capsys = capsys

    def says(self, *words: object, status: int = 0) -> str:
        """Run it; returns stdout, or stderr where it fails."""
        self._capsys.readouterr()
        assert command.main([*map(str, words), *self._state]) == status
        printed = self._capsys.readouterr()
        return printed.err if status in (1, 2) else printed.out

    def install(self, *words: object, status: int = 0) -> str:
        current = self.home / "current"
        shim, configuration = current / "bin/containerd-shim-kata-v2", current / "share/configuration.toml"
        files = ("--shim", shim, "--configuration", configuration, "--handler", "kata")
        places = ("--drop-ins", self.drop_in.parent, "--crio-config", self.top / "crio.conf")
        return self.says("install", "crio", *files, *places, *words, status=status)

    def upgrade(self, *words: object, status: int = 0) -> str:
        return self.says("upgrade", "--home", self.home, *words, status=status)


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Node:
    node = Node(tmp_path, capsys)
    for version in ("0.1.0", "0.2.0"):
        trees.make(tmp_path / version, version)
    node.upgrade(tmp_path / "0.1.0")
    return node


def test_install_shows_what_it_changes_and_what_to_restart(node: Node) -> None:
    before = footprint(node.top)
    shown = node.install("--dry-run")
    assert f"+++ {node.drop_in}\n" in shown
    assert "+[crio.runtime.runtimes.kata]\n" in shown
    assert "would be in force after: systemctl restart crio" in shown
    assert footprint(node.top) == before
    assert node.install() == shown.replace("would be in force", "is in force")
    assert node.install() == f"{node.drop_in}: nothing changes\n"
    assert f"--- {node.drop_in}\n+++ /dev/null\n" in node.says("uninstall", "crio", "--dry-run")
    assert "is in force after: systemctl restart crio" in node.says("uninstall", "crio")
    assert footprint(node.top) == before
    assert node.says("uninstall", "crio") == "nothing is installed for crio\n"


def test_what_is_installed_and_taken_away_is_told_to_programs(node: Node) -> None:
    planned = json.loads(node.install("--dry-run", "-o", "json"))
    assert (planned["done"], planned["restart"].partition(" (")[0], planned["left_out"]) == (
        False,
        "systemctl restart crio",
        [],
    )
    [file] = planned["files"]
    assert (file["path"], file["changes"]) == (str(node.drop_in), True)
    assert "+[crio.runtime.runtimes.kata]\n" in file["diff"]
    assert json.loads(node.install("-o", "json")) == planned | {"done": True}
    again = json.loads(node.install("-o", "json"))
    assert (again["restart"], again["files"][0]["changes"]) == ("", False)
    assert json.loads(node.says("uninstall", "crio", "-o", "json"))["restart"] == planned["restart"]
    assert json.loads(node.says("uninstall", "crio", "-o", "json"))["files"] == []


def test_each_handler_of_crios_has_a_drop_in_and_none_is_written_before_all_can_be(node: Node) -> None:
    before = footprint(node.top)
    remote = node.drop_in.with_name("50-kata-remote")
    both = ("--handler", "kata-remote", "--remote-configuration", node.home / "current/share/configuration-remote.toml")
    node.install(*both)
    assert "[crio.runtime.runtimes.kata]" in node.drop_in.read_text()
    assert "[crio.runtime.runtimes.kata-remote]" in remote.read_text()
    remote.write_text("edited\n")
    node.drop_in.unlink()
    assert "50-kata-remote was edited by somebody else" in node.install(*both, status=1)
    assert not node.drop_in.exists()
    node.install(*both, "--force")
    remote.write_text("edited\n")
    assert "50-kata-remote was edited by somebody else" in node.says("uninstall", "crio", status=1)
    assert node.drop_in.exists()
    node.says("uninstall", "crio", "--force")
    assert footprint(node.top) == before


def test_what_cannot_be_done_is_said_with_the_next_step(node: Node) -> None:
    node.install()
    node.drop_in.write_text("edited\n")
    assert "kata-ctl: next: look at it" in node.says("uninstall", "crio", status=1)
    assert node.says("uninstall", "crio", "--force")
    files = ("--shim", node.home / "current/bin/containerd-shim-kata-v2", "--configuration", __file__)
    assert "no program /no/containerd" in node.says(
        "install", "containerd", "--containerd", "/no/containerd", *files, status=1
    )
    assert "handlers are kata and kata-remote" in node.says("install", "crio", "--handler", "runc", status=2)
    node.drop_in.parent.rmdir()
    node.drop_in.parent.write_text("no directory")
    assert "Not a directory" in node.install(status=1)


def test_handlers_without_a_configuration_are_said_to_be_left_out(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from kata_py.install import handler

    monkeypatch.setattr(handler, "_REMOTE_SEARCHED", (node.top / "none",))
    shim, configuration = (
        node.home / "current/bin/containerd-shim-kata-v2",
        node.home / "current/share/configuration.toml",
    )
    said = node.says(
        "install",
        "crio",
        "--shim",
        shim,
        "--configuration",
        configuration,
        "--drop-ins",
        node.drop_in.parent,
        "--dry-run",
    )
    assert said.startswith("kata-remote is left out: no configuration for it is found on this node\n")


def test_an_upgrade_is_planned_done_and_taken_back(node: Node) -> None:
    node.install()
    plan = node.upgrade("--plan", node.top / "0.2.0")
    assert plan.startswith(
        "new pods would get 0.2.0; before: 0.1.0\nits tree would be unpacked\nversion 0.1.0: stays\n"
    )
    assert f"crio: no restart; {node.drop_in} names {node.home}/current" in plan
    assert node.upgrade(node.top / "0.2.0").startswith("new pods get 0.2.0; before: 0.1.0\nits tree is unpacked\n")
    assert [line.split() for line in node.upgrade().splitlines()[2:]] == [["0.1.0", "previous"], ["0.2.0", "current"]]
    assert "new pods would get 0.1.0; before: 0.2.0" in node.upgrade("--rollback", "--plan")
    rolled = json.loads(node.upgrade("--rollback", "-o", "json"))
    assert (rolled["done"], rolled["origin"], rolled["target"], rolled["kept"]) == (True, "0.2.0", "0.1.0", ["0.2.0"])
    assert json.loads(node.upgrade("--remove", "0.2.0", "-o", "json")) == {"done": True, "removed": ["0.2.0"]}
    assert json.loads(node.upgrade("-o", "json")) == [{"version": "0.1.0", "role": "current", "users": []}]


def test_a_drop_in_that_names_another_place_is_told_of(node: Node) -> None:
    node.install("--shim", trees.make(node.top / "elsewhere", "0.1.0") / "bin/containerd-shim-kata-v2")
    assert f"run {node.home}/current/bin/kata-ctl install crio" in node.upgrade("--plan", node.top / "0.2.0")
    assert node.upgrade("--remove", "0.1.0") == "version 0.1.0 is removed\n"


@pytest.mark.parametrize(
    "words", [("--rollback", "--remove", "0.1.0"), (".", "--rollback"), ("--plan",), ("--plan", "--remove", "0.1.0")]
)
def test_two_wishes_at_once_are_no_command_line(node: Node, words: tuple[str, ...]) -> None:
    before = footprint(node.top)
    assert "Usage" in node.upgrade(*words, status=2)
    assert footprint(node.top) == before
