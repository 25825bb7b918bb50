"""Which shim and which configurations managers are told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.install import handler
from kata_py.install.errors import InstallError
from kata_py.install.handler import Handler, find, tree
from kata_py.install.versions import Versions
from tests import trees


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host without any of ours."""
    monkeypatch.setattr(handler, "SEARCHED", (tmp_path / "etc/configuration.toml", tmp_path / "usr/configuration.toml"))
    monkeypatch.setattr(handler, "_REMOTE_SEARCHED", (tmp_path / "etc/configuration-remote.toml",))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Where a version is installed."""
    Versions(tmp_path / "opt", tmp_path / "records").upgrade(trees.make(tmp_path / "source", "0.1.0"))
    return tmp_path / "opt"


def test_a_version_is_named_by_the_link_that_a_later_one_gets(installed: Path, tmp_path: Path) -> None:
    current = installed / "current"
    Versions(installed, tmp_path / "records").upgrade(trees.make(tmp_path / "later", "0.2.0"))
    for program in (current / "bin/kata-ctl", installed / "versions/0.1.0/bin/kata-ctl"):
        assert find(program=program) == [
            Handler("kata", current / "bin/containerd-shim-kata-v2", current / "share/configuration.toml"),
            Handler(
                "kata-remote", current / "bin/containerd-shim-kata-v2", current / "share/configuration-remote.toml"
            ),
        ]


def test_a_tree_elsewhere_is_named_as_it_is(tmp_path: Path) -> None:
    place = trees.make(tmp_path / "place", "0.1.0")
    assert tree(place / "bin/kata-ctl") == place
    assert find(program=place / "bin/kata-ctl")[0].shim == place / "bin/containerd-shim-kata-v2"
    assert tree(tmp_path / "bin/kata-ctl") is None


def test_the_nodes_own_configuration_comes_before_the_trees(installed: Path, tmp_path: Path) -> None:
    own = tmp_path / "etc/configuration.toml"
    own.parent.mkdir()
    own.touch()
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/configuration.toml").touch()
    found = find(program=installed / "current/bin/kata-ctl")
    assert [each.configuration for each in found] == [own, installed / "current/share/configuration-remote.toml"]


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The one directory in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "path"


def test_without_a_tree_the_shim_is_looked_for_in_path(tmp_path: Path, path: Path) -> None:
    shim, own = path / "containerd-shim-kata-v2", tmp_path / "usr/configuration.toml"
    for file in (shim, own):
        file.parent.mkdir()
        file.touch()
    shim.chmod(0o755)
    program = tmp_path / "venv/bin/kata-ctl"
    assert find(program=program) == [Handler("kata", shim, own)]  # nobody has a configuration for peer pods
    with pytest.raises(InstallError, match="configuration of kata-remote is not found") as caught:
        find(["kata-remote"], program=program)
    assert "--remote-configuration" in caught.value.hint


@pytest.mark.usefixtures("path")
def test_what_is_missing_is_named_before_a_manager_finds_it_missing(tmp_path: Path) -> None:
    program = tmp_path / "venv/bin/kata-ctl"
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InstallError, match="shim's program is not found"):
        find(program=program, configuration=file)
    with pytest.raises(InstallError, match=r"shim's program, .*none, is not there"):
        find(program=program, configuration=file, shim=tmp_path / "none")
    with pytest.raises(InstallError, match="is no name for a shim"):
        find(program=program, configuration=file, shim=file)
