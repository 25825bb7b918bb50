"""The units for systemd, as systemd itself reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

UNITS = sorted((REPOSITORY / "configs" / "systemd").iterdir())
EXPOSURE_MAX = 3.2  # of 10, by `systemd-analyze security`


def verified(unit: Path) -> str:
    """What systemd has to say against a unit; empty is nothing."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=30, check=False
    )
    assert not done.stdout
    return done.stderr or ("" if done.returncode == 0 else f"status {done.returncode}")


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit, whose program is where it is here."""
    text, count = re.subn(
        r"(?m)^ExecStart=/usr/bin", f"ExecStart={Path(sys.executable).parent}", request.param.read_text()
    )
    assert count == 1
    path = tmp_path / request.param.name
    path.write_text(text)
    return path


def test_systemd_has_nothing_to_say_against_it(unit: Path) -> None:
    assert verified(unit) == ""


@pytest.mark.parametrize("line", ["ProtectSystme=strict", "RestrictNamespaces=nte", "SystemCallFilter=@system-servcie"])
def test_systemd_would_tell_what_is_misspelt(unit: Path, line: str) -> None:
    unit.write_text(unit.read_text().replace("[Install]", f"{line}\n[Install]"))
    assert line.partition("=")[0 if "Systme" in line else 2] in verified(unit)


def test_it_is_exposed_no_more_than_it_needs(unit: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", unit]
    told = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    found = re.search(rf"exposure level for {re.escape(unit.name)}: (\S+) ", told)
    assert found is not None
    assert float(found[1]) <= EXPOSURE_MAX
