from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from image import wheel
from image.errors import BuildError
from image.tree import File
from image.wheel import Wheel


@pytest.fixture
def here(tmp_path: Path) -> tuple[Wheel, Path]:
    """A wheel that was downloaded before."""
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/__init__.py", "a = 1")
        archive.writestr("x/native.so", "ELF")
        archive.writestr("x/tests/test.py", "")
        archive.writestr("x-1.dist-info/METADATA", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel("kata-py-no-such-package", "1", path.name, digest, ("x/__init__.py", "x/*.so")), path


def test_of_a_wheel_the_root_gets_what_was_asked_for(here: tuple[Wheel, Path]) -> None:
    known, path = here

    assert wheel.fetch(known, path.parent, pytest.fail) == path
    tree = wheel.read(path, known.keep, "usr/lib/python3")

    files = {name: node for name, node in tree.items() if isinstance(node, File)}
    assert files == {"usr/lib/python3/x/__init__.py": File(b"a = 1"), "usr/lib/python3/x/native.so": File(b"ELF")}


def test_a_damaged_wheel_is_named(here: tuple[Wheel, Path]) -> None:
    known, path = here
    path.write_bytes(b"damaged")

    with pytest.raises(BuildError, match=r"cannot read .*x-1-py3-none-any.whl"):
        wheel.read(path, known.keep, "usr")
