"""What is kept of sandboxes that failed."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

from kata_py.sandbox import failure
from kata_py.sandbox.errors import StageFailed
from kata_py.sandbox.failure import LIMIT, Pod, of_container
from kata_py.sandbox.timeline import Span


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
