"""The packages that `make package` made, and the bundle unpacked where no one expects it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tools.package import Packages


def _made(pattern: str) -> Path:
    found = sorted((REPOSITORY / "dist").glob(pattern))
    if len(found) != 1:
        pytest.fail(f"not one {pattern} in dist: run `make package`, after removing those of other versions")
    return found[0]


@pytest.fixture(scope="session")
def packages() -> Packages:
    """All three."""
    return Packages(_made("*.whl"), _made("*.tar.zst"), _made("*.deb"))


@pytest.fixture
def unpacked(packages: Packages, tmp_path: Path) -> Path:
    """The bundle's tree at a place of the test's."""
    place = tmp_path / "any place"
    place.mkdir()
    subprocess.run(["tar", "--extract", f"--file={packages.bundle}", f"--directory={place}"], check=True)
    return place / "kata"
