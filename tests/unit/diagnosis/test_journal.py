"""What is taken of a node's journal, and what is done without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kata_py.diagnosis import journal
from kata_py.diagnosis.journal import LINES, lines_of
from kata_py.sandbox.failure import Failure, Pod

FAILED = Failure("abc123", "c1", "k8s.io", Pod("shop", "web"), 5.0, "create", "create", 1.0, 60.0, "no", ("E",))
OOM = "oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/kata_overhead/abc123,task=qemu-system-x86,pid=7,uid=0"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program in journalctl's place prints."""
    program, entries = tmp_path / "journalctl", tmp_path / "entries"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\n/bin/cat {entries}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return entries


def entry(message: object, speaker: str = "crio", priority: str = "6") -> str:
    return json.dumps({"MESSAGE": message, "SYSLOG_IDENTIFIER": speaker, "PRIORITY": priority}) + "\n"


def test_lines_that_name_sandbox_container_or_pod_are_told_with_who_said_them(said: Path) -> None:
    said.write_text(
        entry("sandbox abc123") + entry("sandbox def") + entry("container c1 of it") + entry("pod=shop/web", "kubelet")
        + entry(OOM, "kernel") + entry("abc123", priority="7") + entry(None) + entry([*b"\xffabc123"]) + "no JSON\n"
    )  # fmt: skip
    told = lines_of(FAILED)
    assert told == (
        "crio: sandbox abc123", "crio: container c1 of it", "kubelet: pod=shop/web", f"kernel: {OOM}",
        "crio: \ufffdabc123",
    )  # fmt: skip
    words = (said.parent / "words").read_text()
    assert "--since=@-596 --until=@15 --lines=5000 --identifier=kata --identifier=virtiofsd --identifier=crio" in words


def test_what_each_line_of_the_shims_repeats_is_left_out(said: Path) -> None:
    said.write_text(
        entry(
            r'level=error msg="no \"x\"" name=containerd-shim-v2 pid=3 sandbox=abc123 source=a stack="x \"y\" z"',
            "kata",
        )
    )
    assert lines_of(FAILED) == (r'kata: level=error msg="no \"x\"" source=a',)


def test_no_more_than_the_latest_are_told(said: Path) -> None:
    said.write_text("".join(entry(f"abc123 {number}") for number in range(LINES + 5)))
    assert [line.split()[-1] for line in lines_of(FAILED)] == [str(number) for number in range(5, LINES + 5)]


def test_a_node_without_a_journal_or_with_one_that_hangs_has_nothing_to_tell(
    said: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said.parent / "journalctl").write_text("#!/bin/sh\nexec /bin/sleep 100\n")
    monkeypatch.setattr(journal, "TIMEOUT", 0.1)
    assert lines_of(FAILED) == ()
    (said.parent / "journalctl").unlink()
    assert lines_of(FAILED) == ()
