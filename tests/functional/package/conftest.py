"""The packages, made once, and the bundle unpacked where no one expects it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import package
from tools.package import Packages


@pytest.fixture(scope="session")
def packages(guest: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """All three."""
    return package.make(tmp_path_factory.mktemp("dist"), guest)


@pytest.fixture
def unpacked(packages: Packages, tmp_path: Path) -> Path:
    """The bundle's tree at a place of the test's."""
    place = tmp_path / "any place"
    place.mkdir()
    subprocess.run(["tar", "--extract", f"--file={packages.bundle}", f"--directory={place}"], check=True)
    return place / "kata-py"
