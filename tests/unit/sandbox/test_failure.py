"""What is kept of sandboxes that failed."""

from __future__ import annotations

import errno
import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kata_py.resource.undo import KillProcess
from kata_py.sandbox import failure
from kata_py.sandbox.errors import StageFailed
from kata_py.sandbox.failure import LIMIT, Pod, of_container
from kata_py.sandbox.record import Record, State
from kata_py.sandbox.timeline import Span
from kata_py.shim.errors import ListenerError


def failed(bundle: Path, id: str = "one") -> failure.Failure:
    error = StageFailed("share", "no room", elapsed=1.5, budget=60.0, evidence=("x" * 9000, "last"))
    error.timeline = (Span("share", 1, 2, failed=True),)
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    error.__cause__.__cause__ = FileNotFoundError(errno.ENOENT, "on the way")
    return of_container("create", id, id, "k8s.io", str(bundle), error)


def test_a_failure_is_read_as_it_was_written_and_by_root_alone(tmp_path: Path) -> None:
    names = {f"io.kubernetes.cri.sandbox-{key}": key for key in ("namespace", "name", "uid")}
    (tmp_path / "config.json").write_text(json.dumps({"annotations": names}))
    root = tmp_path / "failures"
    failure.keep(failed(tmp_path), root)
    (kept,) = failure.load(root)
    assert kept == replace(failed(tmp_path), at=kept.at)
    assert kept.pod == Pod("namespace", "name", "uid")
    assert kept.errno == errno.ENOSPC
    assert kept.evidence[-1] == "last"
    assert len(kept.evidence[0]) == failure.LINE_LENGTH
    assert [path.name for path in root.iterdir()] == ["one.json"]
    assert root.stat().st_mode & 0o777 == 0o700


def test_the_oldest_failures_go_first(tmp_path: Path) -> None:
    for number in range(LIMIT):
        failure.keep(failed(tmp_path, f"s{number}"), tmp_path)
        os.utime(tmp_path / f"s{number}.json", (number, number))
    failure.keep(failed(tmp_path, "new"), tmp_path)
    names = {path.stem for path in tmp_path.glob("*.json")}
    assert len(names) == LIMIT
    assert "new" in names
    assert "s0" not in names


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    failure.keep(failed(tmp_path), tmp_path)
    (tmp_path / "garbled.json").write_text("{")
    (tmp_path / "other.json").write_text('{"version": 99}')
    assert [each.sandbox for each in failure.load(tmp_path)] == ["one"]


def test_a_failure_that_cannot_be_kept_is_no_failure_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failure.keep(failed(tmp_path), tmp_path / "file")
    assert failure.load(tmp_path / "file") == []


def left(root: Path, *open_stages: str) -> Record:
    """A record in the middle of these stages, with a process that is gone."""
    record = Record.create("lost", namespace="k8s.io", bundle="/no/bundle", root=root)
    with record.span("request"), ExitStack() as stack:
        for name in open_stages:
            stack.enter_context(record.span(name))
        with record.span("over"):
            pass
        record.intend(KillProcess(pid=1, start_time=-1, name="qemu"))
        return Record.load("lost", root=root)


def test_a_lost_shim_was_in_the_innermost_stage_that_was_not_over(tmp_path: Path) -> None:
    lost = failure.of_loss(left(tmp_path, "machine", "qemu"))
    assert lost is not None
    assert (lost.kind, lost.stage, lost.elapsed) == ("loss", "qemu", None)
    assert lost.evidence == ("qemu (pid 1) is gone", "1 entries of the record were still to be undone")


def test_a_lost_shim_of_a_running_sandbox_is_told_from_one_that_hung(tmp_path: Path) -> None:
    record = left(tmp_path)
    record.move(State.RUNNING)
    killed, hung = failure.of_loss(record), failure.of_loss(record, hung=True)
    assert killed is not None
    assert hung is not None
    assert killed.stage == hung.stage == failure.RUNNING
    assert "was killed: it left" in killed.cause
    assert "answered nobody any more" in hung.cause


@pytest.mark.parametrize("state", [State.STOPPING, State.STOPPED])
def test_a_shim_that_ended_its_sandbox_is_no_loss(tmp_path: Path, state: State) -> None:
    record = left(tmp_path)
    record.move(state)
    assert failure.of_loss(record) is None


def test_a_creation_that_was_given_up_tells_its_stage_and_whose_time_was_up(tmp_path: Path) -> None:
    late = failure.of_lateness(left(tmp_path, "agent"), "app", 120.0)
    assert (late.stage, late.container, late.elapsed, late.budget) == ("agent", "app", 120.0, 120.0)


def test_a_shim_that_never_served_has_a_failure_without_stages(tmp_path: Path) -> None:
    error = ListenerError("socket path too long")
    error.__cause__ = OSError(errno.ENAMETOOLONG, "too long")
    never = failure.of_shim("one", "app", "k8s.io", str(tmp_path), error)
    assert (never.kind, never.stage, never.errno) == ("serve", failure.SHIM, errno.ENAMETOOLONG)
    assert never.errors == ("ListenerError", "OSError")


def test_lines_that_are_not_told_are_kept(tmp_path: Path) -> None:
    error = StageFailed("create", "refused", elapsed=1.0, budget=60.0)
    error.context = ("console", "agent: log")
    assert "console" not in str(error)
    assert of_container("create", "one", "one", "k8s.io", str(tmp_path), error).evidence == error.context
