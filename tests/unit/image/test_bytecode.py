"""The compiler of the guest's code and PID 1's way of reading it, run as in the guest, by this interpreter."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

import image

SOURCES = Path(image.__file__).parent

AGENT = """\
import sys
from kata_agent import early

def main():
    from kata_agent.rpc import late
    import kata_agent.loose
    for name in ("kata_agent", "kata_agent.early", "kata_agent.rpc.late", "kata_agent.loose"):
        print(name, type(sys.modules[name].__spec__.loader).__name__)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A small agent in source."""
    code = tmp_path / "code"
    (code / "kata_agent/rpc").mkdir(parents=True)
    (code / "kata_agent/__init__.py").touch()
    (code / "kata_agent/__main__.py").write_text(AGENT)
    (code / "kata_agent/early.py").write_text("import textwrap\n")
    (code / "kata_agent/loose.py").touch()
    (code / "kata_agent/rpc/__init__.py").touch()
    (code / "kata_agent/rpc/late.py").touch()
    return code


def bytecode(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-s", "-S", "-P", "-B", SOURCES / "bytecode.py", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def compiled(code: Path, root: str = "") -> None:
    done = bytecode("compile", root, str(code).removeprefix(f"{root}/"), path=code)
    assert (done.returncode, done.stderr) == (0, "")


def packed(code: Path) -> dict[str, str]:
    packs = ("boot=kata_agent.__main__", "service=kata_agent.rpc.late")
    done = bytecode("pack", "", str(code).removeprefix("/"), *packs, path=code)
    assert (done.returncode, done.stderr) == (0, "")
    index = marshal.loads((code / "index").read_bytes())
    assert isinstance(index, dict)
    return index


def test_bytecode_takes_the_place_of_sources_and_is_never_out_of_date(code: Path) -> None:
    compiled(code)
    files = [path for path in code.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".pyc"}
    assert {path.read_bytes()[4:16] for path in files} == {b"\x01\0\0\0" + bytes(8)}


def test_code_names_its_file_as_the_guest_does(code: Path, tmp_path: Path) -> None:
    compiled(code, root=str(tmp_path))
    early = marshal.loads((code / "kata_agent/early.pyc").read_bytes()[16:])
    assert early.co_filename == "/code/kata_agent/early.py"


def test_a_pack_holds_what_its_entries_load_less_what_packs_before_hold(code: Path) -> None:
    compiled(code)
    index = packed(code)
    assert index == {
        "kata_agent": "boot",
        "kata_agent.__main__": "boot",
        "kata_agent.early": "boot",
        "kata_agent.rpc": "service",
        "kata_agent.rpc.late": "service",
    }


def test_pid_1_takes_modules_from_packs_and_the_others_from_their_files(code: Path, tmp_path: Path) -> None:
    compiled(code)
    packed(code)
    init = tmp_path / "init.py"
    init.write_text((SOURCES / "guest/init.py").read_text().replace('"/usr/lib/kata-agent"', repr(str(code))))
    done = subprocess.run([sys.executable, "-IS", init], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "kata_agent Packs",
            "kata_agent.early Packs",
            "kata_agent.rpc.late Packs",
            "kata_agent.loose SourcelessFileLoader",
        ],
        "",
    )


def test_a_source_that_is_no_python_is_named_with_the_line(code: Path) -> None:
    (code / "kata_agent/early.py").write_text("fine = 1\nfine +\n")
    done = bytecode("compile", "", str(code).removeprefix("/"), path=code)
    assert done.returncode != 0
    assert f'File "{code}/kata_agent/early.py", line 2' in done.stderr
