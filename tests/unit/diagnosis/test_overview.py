"""Sandboxes as their records and their processes tell of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.diagnosis.overview import DEAD, FOREIGN, UNREADABLE, gather
from kata_py.resource.process import start_time
from kata_py.resource.undo import KillProcess, RemoveFile
from kata_py.sandbox.failure import Pod
from kata_py.sandbox.record import Record, State
from kata_py.sandbox.sockets import SOCKET


@pytest.fixture
def qemu() -> Iterator[subprocess.Popen[bytes]]:
    """A process with memory that it shares, as QEMU has its guest's, and memory of its own."""
    script = (
        "import mmap, sys; m = mmap.mmap(-1, 32 << 20); m.write(b'x' * (32 << 20)); own = bytearray(16 << 20);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_sandbox_is_told_with_its_pod_and_the_memory_of_its_parts(
    tmp_path: Path, qemu: subprocess.Popen[bytes]
) -> None:
    record = Record.create("aa", namespace="k8s.io", bundle="/b", root=tmp_path)
    record.intend(KillProcess(qemu.pid, start_time(qemu.pid) or 0, "qemu"))
    with record.span("plan"):
        pass
    record.move(State.RUNNING)
    (found,) = gather((tmp_path,), {"aa": Pod("shop", "web")})
    assert (str(found.pod), found.manager, found.state, found.leftovers) == ("shop/web", "k8s.io", "running", 0)
    assert [span.name for span in found.timeline] == ["plan"]
    assert found.age is not None
    assert list(found.memory) == ["VM", "QEMU", "shim"]
    assert 32 << 20 <= found.memory["VM"] < 40 << 20
    assert 16 << 20 <= found.memory["QEMU"] < 60 << 20
    assert found.memory["shim"] > 10 << 20


def test_a_process_that_got_the_id_of_an_earlier_one_is_not_counted(
    tmp_path: Path, qemu: subprocess.Popen[bytes]
) -> None:
    record = Record.create("aa", namespace="k8s.io", bundle="/b", root=tmp_path)
    record.intend(KillProcess(qemu.pid, 1, "qemu"))
    (found,) = gather((tmp_path,))
    assert list(found.memory) == ["shim"]


def test_a_sandbox_whose_shim_is_gone_stands_first_with_what_it_left(tmp_path: Path) -> None:
    Record.create("aa", namespace="k8s.io", bundle="/b", root=tmp_path)
    record = Record.create("bb", namespace="k8s.io", bundle="/b", root=tmp_path)
    record.intend(RemoveFile("/x"))
    content = json.loads((tmp_path / "bb" / "record.json").read_text())
    content["shim"] = {"pid": 1, "start_time": 1}
    (tmp_path / "bb" / "record.json").write_text(json.dumps(content))
    first, second = gather((tmp_path,))
    assert (first.id, first.state, first.leftovers) == ("bb", DEAD, 1)
    assert second.id == "aa"


def test_sandboxes_of_other_runtimes_are_shown_and_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    go = tmp_path / "other" / "go"
    go.mkdir(parents=True)
    (go / SOCKET).touch()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_text("{")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    found = {each.id: each.state for each in gather((tmp_path, go.parent, tmp_path / "none"))}
    assert found == {"bad": UNREADABLE, "go": FOREIGN}
