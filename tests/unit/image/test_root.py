"""The guest's Python, prepared for a machine that this one is not."""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from image import root
from image.errors import BuildError
from image.peer import PEER

FOREIGN = next(each for machine, each in PEER.architectures.items() if machine != os.uname().machine)


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A root with two modules of ours, of which one needs a module in C."""
    (tmp_path / "usr/lib/kata-agent").mkdir(parents=True)
    stdlib = f"{sys.base_prefix}/lib/{root.PYTHON}"
    (tmp_path / f"usr/lib/{root.PYTHON}").symlink_to(stdlib)
    (tmp_path / "usr/lib/kata-agent/first.py").write_text("import second\n")
    (tmp_path / "usr/lib/kata-agent/second.py").write_text("import _json\n")
    return tmp_path


def test_bytecode_is_compiled_and_packed_by_an_interpreter_of_the_same_version(guest: Path) -> None:
    root.compile_python(FOREIGN, guest, "usr/lib/kata-agent")
    root.pack_code(replace(PEER, packs={"boot": ("first",)}), FOREIGN, guest)
    code = guest / "usr/lib/kata-agent"
    assert (code / "first.pyc").read_bytes()[:4] == importlib.util.MAGIC_NUMBER
    pack = marshal.loads((code / "boot.pack").read_bytes())
    assert {"first", "second"} <= pack.keys()
    assert pack["second"].co_filename == "/usr/lib/kata-agent/second.py"


def test_an_interpreter_of_another_version_is_refused(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "PYTHON", "python3.99")
    with pytest.raises(BuildError, match=rf"cannot run python3\.99 of {FOREIGN.machine}, nor is its own the same"):
        root.compile_python(FOREIGN, guest, "usr/lib/kata-agent")
