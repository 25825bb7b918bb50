from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kata_py.sandbox.driver import find_driver
from kata_py.sandbox.errors import InvalidArgument
from tests.conftest import REPOSITORY
from tests.drivers.namespace import NamespaceHypervisor
from tests.tasks import make_configuration


def test_a_driver_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "tests/drivers"), *sys.path])
    assert isinstance(find_driver(make_configuration("namespace")), NamespaceHypervisor)


def test_an_unknown_name_is_told_with_the_file_and_what_there_is() -> None:
    with pytest.raises(InvalidArgument, match=r"configuration\.toml: no driver for \[hypervisor\.firebird\].*qemu"):
        find_driver(make_configuration("firebird"))


def test_a_driver_that_cannot_be_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[kata_py.hypervisors]\nbroken = no_such_module:Driver\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(InvalidArgument, match="cannot be loaded: No module named 'no_such_module'"):
        find_driver(make_configuration("broken"))
