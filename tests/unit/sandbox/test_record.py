from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kata_py.resource import process
from kata_py.resource.undo import KillProcess, RemoveFile, RemoveTree, Undo
from kata_py.sandbox.errors import AlreadyExists, NotFound
from kata_py.sandbox.record import TIMELINE_LIMIT, Record, RecordError, Shim, State, program_of
from kata_py.sandbox.timeline import Span


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.create("pod", namespace="default", bundle="/bundle", root=tmp_path / "sbs")


def reload(record: Record) -> Record:
    return Record.load(record.id, root=record.directory.parent)


def test_a_record_reads_back_as_it_was_written(record: Record) -> None:
    record.intend(RemoveFile("/a"))
    record.intend(KillProcess(7, 8, "qemu"))
    record.stage("kernel", 1, 2)
    record.move(State.RUNNING)

    again = reload(record)

    assert (again.id, again.namespace, again.bundle) == ("pod", "default", "/bundle")
    assert again.shim == Shim.current()
    assert again.program == os.path.realpath(sys.argv[0])
    assert again.undo == (RemoveFile("/a"), KillProcess(7, 8, "qemu"))
    assert again.timeline == (Span("kernel", 1, 2),)
    assert again.state is State.RUNNING


def test_the_program_is_told_by_a_record_of_whichever_version(record: Record) -> None:
    root, path = record.directory.parent, record.directory / "record.json"
    path.write_text(json.dumps({"version": 99, "program": "/later/shim"}))
    assert program_of("pod", root=root) == "/later/shim"
    for text in ("{", "[]", "{}", '{"program": 7}'):
        path.write_text(text)
        assert program_of("pod", root=root) == ""
    assert program_of("none", root=root) == ""


def test_a_record_of_before_programs_were_told_is_read(record: Record) -> None:
    path = record.directory / "record.json"
    content = json.loads(path.read_bytes())
    del content["program"]
    path.write_text(json.dumps(content))
    assert reload(record).program == ""


def test_an_intention_is_on_disk_when_intend_returns(record: Record) -> None:
    record.intend(RemoveFile("/a"))
    assert reload(record).undo == (RemoveFile("/a"),)


def test_an_intention_that_cannot_be_written_is_an_error_and_not_on_record(record: Record) -> None:
    (record.directory / "record.json.new").mkdir()
    with pytest.raises(OSError, match=r"record\.json"):
        record.intend(RemoveFile("/a"))
    assert record.undo == ()


def test_a_record_that_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        with pytest.raises(OSError, match=r"pod/record\.json"):
            Record.create("pod", namespace="default", bundle="/bundle", root=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert list(tmp_path.iterdir()) == []


def test_settled_strikes_the_newest_of_equal_entries(record: Record) -> None:
    record.intend(RemoveFile("/a"))
    record.intend(RemoveFile("/b"))
    record.intend(RemoveFile("/a"))
    record.settled(RemoveFile("/a"))
    record.settled(RemoveFile("/never"))
    assert reload(record).undo == (RemoveFile("/a"), RemoveFile("/b"))


def test_a_stage_is_on_disk_while_it_runs_and_marked_when_it_fails(record: Record) -> None:
    running: list[Span] = []

    def fail() -> None:
        with record.span("agent"):
            running.extend(reload(record).timeline)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (span,) = reload(record).timeline
    assert running == [Span("agent", span.began)]
    assert span.failed
    assert span.ended is not None
    assert span.ended > span.began


def test_a_second_sandbox_of_the_same_id_is_refused(record: Record) -> None:
    with pytest.raises(AlreadyExists, match="pod is already on record"):
        Record.create("pod", namespace="default", bundle="/", root=record.directory.parent)


def test_a_missing_record_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no sandbox pod"):
        Record.load("pod", root=tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod/record.json").write_text(content)
    with pytest.raises(RecordError, match=r"pod/record\.json"):
        Record.load("pod", root=tmp_path)


def test_an_undo_of_a_newer_version_is_an_error(record: Record) -> None:
    path = record.directory / "record.json"
    content = json.loads(path.read_text())
    content["undo"] = [{"kind": "release-quantum"}]
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="release-quantum"):
        reload(record)


def test_a_kill_before_the_first_write_leaves_a_record_that_unwinds(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    assert Record.load("pod", root=tmp_path).unwind() == []
    assert not (tmp_path / "pod").exists()


def test_unwinding_goes_newest_first_and_removes_the_record_last(record: Record, tmp_path: Path) -> None:
    tree, inner = tmp_path / "tree", tmp_path / "tree/inner"
    record.intend(RemoveTree(str(tree)))
    inner.mkdir(parents=True)
    record.intend(RemoveFile(str(inner / "socket")))
    (inner / "socket").touch()

    assert reload(record).unwind() == []

    assert not tree.exists()
    assert not record.directory.exists()


def test_a_failure_does_not_stop_the_rest_and_stays_on_record(record: Record, tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    stubborn = RemoveFile(str(tmp_path))  # a directory: unlink refuses
    for undo in (RemoveFile(str(first)), stubborn, RemoveFile(str(last))):
        record.intend(undo)
    first.touch()
    last.touch()

    (left,) = reload(record).unwind()

    assert left.undo == stubborn
    assert str(tmp_path) in left.cause
    assert not first.exists()
    assert not last.exists()
    assert reload(record).undo == (stubborn,)


def test_unwinding_twice_is_fine(record: Record) -> None:
    other = reload(record)
    assert record.unwind() == []
    assert other.unwind() == []


def test_unwinding_begins_nothing_after_its_timeout(record: Record, tmp_path: Path) -> None:
    undo = RemoveFile(str(tmp_path / "file"))
    record.intend(undo)
    (tmp_path / "file").touch()
    (left,) = record.unwind(timeout=-1.0)
    assert left.undo == undo
    assert (tmp_path / "file").exists()


def test_unwinding_kills_the_processes_on_record(record: Record) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        born = process.start_time(child.pid)
        assert born is not None
        record.intend(KillProcess(child.pid, born, "sleep"))
        assert record.unwind() == []
        assert child.wait(timeout=5) == -9


def test_what_comes_after_the_unwinding_is_forgotten_quietly_except_intentions(record: Record) -> None:
    with record.span("late"):
        record.unwind()
    record.settled(RemoveFile("/a"))
    record.move(State.STOPPED)
    with pytest.raises(FileNotFoundError):
        record.intend(RemoveFile("/a"))


def test_a_shim_that_ended_is_not_alive(record: Record) -> None:
    assert record.shim.alive
    assert not Shim(os.getpid(), record.shim.start_time + 1).alive
    assert not Shim(0, 0).alive


def test_the_record_needs_the_standard_library_alone() -> None:
    program = "import sys; import kata_py.sandbox.record; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    assert not {"google", "kata_protos", "pyroute2", "qemu"} & set(loaded.stdout.split())


def test_every_kind_of_undo_survives_the_disk(record: Record) -> None:
    from kata_py.resource import undo

    entries: list[Undo] = [
        KillProcess(1, 2, "x"), undo.Unmount("/a"), RemoveFile("/b"), RemoveTree("/c"), undo.RemoveCgroup("/d"),
        undo.RemoveLink("/ns", 1, "tap0_kata"), undo.RemoveQdisc("/ns", 1, "eth0", 0x10000),
        undo.RestoreLink("/ns", 1, "eth0", "02:00:00:00:00:01", ("10.0.0.2/24",)),
    ]  # fmt: skip
    for entry in entries:
        record.intend(entry)
    assert list(reload(record).undo) == entries


def test_the_timeline_of_a_pod_that_lives_long_keeps_its_start_and_the_latest(record: Record) -> None:
    record.stage("kernel", 1, 2)
    with record.span("request"):
        for number in range(1000):
            with record.span(f"create {number}"):
                pass

    names = [span.name for span in reload(record).timeline]

    assert len(names) == TIMELINE_LIMIT
    assert names[:2] == ["kernel", "request"]
    assert names[-1] == "create 999"
    assert all(span.ended for span in record.timeline)
