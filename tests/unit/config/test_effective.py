from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from kata_py.config import meaning
from kata_py.config.effective import DEFAULT, effective, explain
from kata_py.config.errors import ConfigurationError
from kata_py.config.load import load
from kata_py.config.model import AgentConfig, HypervisorConfig, RuntimeConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with a drop-in."""
    (tmp_path / "c.toml").write_text("[hypervisor.qemu]\ndefault_memory = 512\ndefault_vcpus = 2\n")
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/50-site.toml").write_text(
        "[runtime]\nenable_debug = true\n[hypervisor.qemu]\ndefault_memory = 300\n"
    )
    return tmp_path / "c.toml"


def test_every_key_is_told_with_the_file_and_line_whose_word_counts(file: Path) -> None:
    found = {f"{each.table}.{each.key}": (each.value, each.origin) for each in effective(file)}
    drop_in = file.parent / "config.d/50-site.toml"
    assert found["hypervisor.qemu.default_memory"] == (300, f"{drop_in}:4")
    assert found["hypervisor.qemu.default_vcpus"] == (2.0, f"{file}:2".replace(":2", ":3"))
    assert found["runtime.enable_debug"] == (True, f"{drop_in}:2")
    assert found["agent.kata.dial_timeout"] == (45, DEFAULT)
    assert found["hypervisor.qemu.initrd"] == ("", DEFAULT)
    keys = sum(len(dataclasses.fields(shape)) for shape in (HypervisorConfig, AgentConfig, RuntimeConfig))
    assert len(found) == keys - 1  # the hypervisor's name is its table's


def test_what_is_shown_is_a_configuration_that_comes_to_the_same(file: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from kata_py.cli.verbs.config import command

    shown = CliRunner().invoke(command, ["show", "--effective", str(file)], standalone_mode=False)
    assert shown.exception is None
    assert tomllib.loads(shown.stdout)["runtime"]["enable_debug"] is True
    (tmp_path / "again").mkdir()
    (tmp_path / "again/c.toml").write_text(shown.stdout)
    again, first = load(tmp_path / "again/c.toml"), load(file)
    assert dataclasses.replace(again, source=first.source) == first


def test_a_key_is_explained_with_its_meaning_its_bounds_and_its_annotations(file: Path) -> None:
    (memory,) = explain("default_memory", file)
    assert (memory.default, memory.entry.value, memory.type) == (2048, 300, "a whole number of at least 96")
    assert memory.annotations == ("io.katacontainers.config.hypervisor.default_memory",)
    assert memory.honoured
    assert [each.entry.table for each in explain("enable_debug", file)] == ["hypervisor.qemu", "agent.kata", "runtime"]
    (runtime,) = explain("runtime.enable_debug", file)
    assert runtime.meaning.startswith("A shim that talks")
    assert not explain("memory_offset", file)[0].honoured


def test_a_key_that_is_none_is_told_with_the_nearest(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="no key default_memroy; the nearest is default_memory"):
        explain("default_memroy", file)


@pytest.mark.parametrize("shape", [HypervisorConfig, AgentConfig, RuntimeConfig])
def test_every_key_has_a_meaning(shape: type) -> None:
    without = [
        each.name for each in dataclasses.fields(shape) if each.name != "name" and not meaning.of(shape, each.name)
    ]
    assert without == []
