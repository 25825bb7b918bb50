"""containerd's drop-in, by the real containerd and by stand-ins of releases that merge differently."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kata_py.install.containerd import Containerd
from kata_py.install.errors import InstallError, NotImportedError
from kata_py.install.handler import Handler
from tests.unit.install import stand_in
from tests.unit.install.stand_in import GRPC, RUNTIME

REAL = "containerd"  # of this machine
REPLACES = "v1.7.27"
MERGES = "v2.1.4"


class Node:
    """A containerd, its files, and a drop-in to be."""

    def __init__(self, top: Path, release: str) -> None:
        self.program = release if release == REAL else str(stand_in.write(top / "containerd", release))
        said = subprocess.run([self.program, "--version"], check=True, capture_output=True, text=True).stdout
        self.merges = bool(re.search(r" v?2\.", said))
        self.main = top / "etc" / "config.toml"
        self.drop_in = top / "etc" / "conf.d" / "50-kata.toml"
        self.drop_in.parent.mkdir(parents=True)
        self.imports = f'imports = ["{self.drop_in.parent}/*.toml"]\n'
        self.handlers = [
            Handler(name, top / "containerd-shim-kata-v2", top / f"{name}.toml") for name in ("kata", "kata-remote")
        ]
        self.says("")

    def says(self, text: str, *, imports: str | None = None, version: int = 2) -> None:
        """Write the main file."""
        self.main.write_text(f"version = {version}\n{self.imports if imports is None else imports}{text}")

    def text(self) -> str:
        return Containerd(self.main, self.drop_in, self.program).drop_in(self.handlers)

    def table(self) -> dict[str, Any]:
        """The plug-in's table of the drop-in."""
        plugins = tomllib.loads(self.text())["plugins"]
        assert len(plugins) == 1
        table: dict[str, Any] = next(iter(plugins.values()))
        return table

    def effective(self) -> dict[str, Any]:
        """What containerd makes of its files: the plug-in's table."""
        dump = subprocess.run(
            [self.program, "--config", self.main, "config", "dump"], check=True, capture_output=True, text=True
        ).stdout
        table: dict[str, Any] = tomllib.loads(dump)["plugins"][RUNTIME if self.merges else GRPC]
        return table


@pytest.fixture(params=[REAL, REPLACES, MERGES])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    return Node(tmp_path, request.param)


def only(release: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("node", [release], indirect=True)


OWN = f"""\
[plugins."{GRPC}"]
sandbox_image = "mine"
[plugins."{GRPC}".cni]
bin_dir = "/own/cni"
[plugins."{GRPC}".containerd]
default_runtime_name = "other"
[plugins."{GRPC}".containerd.runtimes.other]
runtime_type = "io.containerd.runc.v2"
[plugins."{GRPC}".containerd.runtimes.other.options]
SystemdCgroup = true
"""


@pytest.mark.parametrize("own", ["", OWN])
def test_the_handlers_are_added_and_nothing_else_is_different(node: Node, own: str) -> None:
    node.says(own)
    before = node.effective()
    node.drop_in.write_text(node.text())
    after = node.effective()
    runtimes = after["containerd"]["runtimes"]
    for handler in node.handlers:
        added = runtimes.pop(handler.name)
        assert added["runtime_path"] == str(handler.shim)
        assert added["options"]["ConfigPath"] == str(handler.configuration)
        assert added["privileged_without_host_devices"]
        assert added["pod_annotations"] == ["io.katacontainers.*"]
    assert after == before
    assert runtimes


def test_the_same_files_give_the_same_text(node: Node) -> None:
    node.says(OWN)
    text = node.text()
    node.drop_in.write_text(text)
    assert node.text() == text


@only(MERGES)
def test_where_tables_are_merged_the_drop_in_has_ours_alone(node: Node) -> None:
    node.says(OWN)
    assert node.table().keys() == {"containerd"}
    assert node.table()["containerd"]["runtimes"].keys() == {"kata", "kata-remote"}
    node.says("", version=3)
    assert tomllib.loads(node.text()).keys() == {"version", "plugins"}
    assert tomllib.loads(node.text())["plugins"].keys() == {RUNTIME}


@pytest.mark.parametrize(
    ("node", "by_path"),
    [("v1.6.20", False), ("v1.6.21", True), ("v1.7.0", False), ("v1.7.1", True), ("v2.1.4", True)],
    indirect=["node"],
)
def test_the_type_is_the_program_where_its_path_is_not_heeded(node: Node, by_path: bool) -> None:
    expected = "io.containerd.kata.v2" if by_path else str(node.handlers[0].shim)
    assert node.table()["containerd"]["runtimes"]["kata"]["runtime_type"] == expected


@pytest.mark.parametrize(("imports", "step"), [("", "put this line above"), ('imports = ["/else.toml"]\n', "add to")])
def test_a_main_file_that_does_not_lead_to_it_is_left_alone_and_the_line_told(
    node: Node, imports: str, step: str
) -> None:
    node.imports = imports
    if imports:
        other = node.main.with_name("else.toml")
        other.write_text("version = 2\n")
        node.imports = f'imports = ["{other}"]\n'
    node.says("")
    before = node.main.read_text()
    with pytest.raises(NotImportedError, match="does not import") as caught:
        node.text()
    assert step in caught.value.hint
    assert f'"{node.drop_in.parent}/*.toml"' in caught.value.hint
    assert node.main.read_text() == before


def test_without_a_main_file_no_drop_in_is_read(node: Node) -> None:
    node.main.unlink()
    with pytest.raises(NotImportedError, match="there is no") as caught:
        node.text()
    assert node.imports.strip() in caught.value.hint


@only(REPLACES)
def test_a_relative_pattern_is_of_no_use_where_it_is_relative_to_whatever(node: Node) -> None:
    node.says("", imports='imports = ["conf.d/*.toml"]\n')
    with pytest.raises(NotImportedError):
        node.text()


@only(MERGES)
def test_a_relative_pattern_is_relative_to_the_main_file(node: Node) -> None:
    node.says("", imports='imports = ["conf.d/*.toml"]\n')
    assert node.text()


@pytest.mark.parametrize("line", ["", "version = 1\n"])
def test_a_file_of_version_1_is_to_be_rewritten_first(node: Node, line: str) -> None:
    node.main.write_text(line + node.imports)
    with pytest.raises(InstallError, match="of version 1") as caught:
        node.text()
    assert "config migrate" in caught.value.hint


@only(REPLACES)
def test_the_table_that_is_repeated_is_that_of_the_last_file_before(node: Node) -> None:
    node.says(OWN)
    node.drop_in.with_name("10-other.toml").write_text(f'version = 2\n[plugins."{GRPC}"]\nsandbox_image = "theirs"\n')
    assert node.table()["sandbox_image"] == "theirs"
    assert "cni" not in node.table()


def test_a_later_file_with_the_table_is_in_the_way_where_it_replaces_ours(node: Node) -> None:
    later = node.drop_in.with_name("99-other.toml")
    later.write_text(f'version = 2\n[plugins."{GRPC}"]\nsandbox_image = "theirs"\n')
    if node.merges:
        assert node.text()
        return
    with pytest.raises(InstallError, match=r"99-other\.toml is read after") as caught:
        node.text()
    assert "--drop-in" in caught.value.hint
    node.drop_in = node.drop_in.with_name("zz-kata.toml")
    assert node.table()["sandbox_image"] == "theirs"


def test_a_handler_of_somebody_elses_is_not_taken_over(node: Node) -> None:
    node.says(f'[plugins."{GRPC}".containerd.runtimes.kata]\nruntime_type = "theirs"\n')
    with pytest.raises(InstallError, match="has a handler kata already"):
        node.text()
    node.handlers = node.handlers[1:]
    assert node.table()["containerd"]["runtimes"]["kata-remote"]


def test_a_containerd_without_its_cri_plug_in_has_no_handlers(node: Node) -> None:
    node.says(f'disabled_plugins = ["{GRPC}"]\n')
    with pytest.raises(InstallError, match="switched off"):
        node.text()


def test_what_is_no_toml_is_named(node: Node) -> None:
    node.says("[")
    with pytest.raises(InstallError, match=r"config\.toml cannot be read as TOML"):
        node.text()


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (None, "there is no program"),
        ("#!/bin/sh\necho 'of no number'\n", "does not say which"),
        ("#!/bin/sh\necho broken >&2; exit 3\n", "--version: broken"),
        ('#!/bin/sh\n[ "$1" = --version ] && echo v2.0.0 && exit; echo plugins = 1; exit 1\n', "config dump: status 1"),
    ],
)
def test_a_containerd_that_cannot_be_asked_is_named(tmp_path: Path, script: str | None, cause: str) -> None:
    node = Node(tmp_path, "v2.1.4")
    program = tmp_path / "broken"
    if script:
        program.write_text(script)
        program.chmod(0o755)
    node.program = str(program)
    with pytest.raises(InstallError, match=cause):
        node.text()


def test_what_would_change_more_than_handlers_is_not_written(tmp_path: Path) -> None:
    node = Node(tmp_path, "v2.1.4")
    program = Path(node.program)
    # A containerd that takes the last file's tables alone, though it is of a release that merges.
    program.write_text(program.read_text().replace("main(", "stand_in._merged = lambda to, table: table\nmain(")
                       .replace("from tests", "from tests.unit.install import stand_in\nfrom tests"))  # fmt: skip
    node.says(OWN)
    with pytest.raises(InstallError, match="would make something else"):
        node.text()
