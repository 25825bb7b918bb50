"""What is removed of sandboxes whose shims died, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kata_py.resource.undo import RemoveFile, Undo
from kata_py.sandbox import failure, shims
from kata_py.sandbox.errors import FailedPrecondition, NotFound
from kata_py.sandbox.record import Record
from kata_py.sandbox.sweep import sweep
from tests.tasks import host_paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return host_paths(tmp_path, "").records


def swept(root: Path) -> set[str]:
    """Sweep, and give what is there no more."""
    before = {path.name for path in root.iterdir()}
    sweep(host_paths(root.parent, ""))
    return before - {path.name for path in root.iterdir()}


def left(root: Path, id: str, bundle: Path, *undo: Undo, alive: bool = False) -> Record:
    """A record as a shim that died has left it."""
    record = Record.create(id, namespace="default", bundle=bundle, root=root)
    for entry in undo:
        record.intend(entry)
    if not alive:
        path = record.directory / "record.json"
        content = json.loads(path.read_text())
        content["shim"]["start_time"] -= 1  # a later process has its pid
        path.write_text(json.dumps(content))
    return record


def test_what_a_dead_shim_has_left_goes_once_its_bundle_is_removed(root: Path, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    socket.touch()
    record = left(root, "gone", tmp_path / "no-bundle", RemoveFile(str(socket)))
    assert swept(root) == {"gone"}
    assert not socket.exists()
    assert not record.directory.exists()
    [kept] = failure.load(root.with_name("failures"))
    assert (kept.sandbox, kept.kind, kept.stage) == ("gone", "loss", "plan")


def test_what_a_manager_may_still_ask_for_stays(root: Path, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    socket.touch()
    left(root, "served", tmp_path / "no-bundle", RemoveFile(str(socket)), alive=True)
    left(root, "to-be-deleted", tmp_path, RemoveFile(str(socket)))
    (root / "damaged").mkdir()
    (root / "damaged" / "record.json").write_text("{")
    (root / "a-file").touch()
    assert swept(root) == set()
    assert socket.exists()
    assert {path.name for path in root.iterdir()} == {"served", "to-be-deleted", "damaged", "a-file"}


@pytest.mark.parametrize(
    ("manager", "goes"), [("cri-o", {"pod"}), ("other", set())], ids=["CRI-O never asks", "others run delete"]
)
def test_a_dead_shims_pod_that_its_manager_keeps_stays_only_if_it_will_be_deleted(
    root: Path, tmp_path: Path, manager: str, goes: set[str]
) -> None:
    document = {"ociVersion": "1.0.2", "annotations": {"io.container.manager": manager}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    left(root, "pod", tmp_path, RemoveFile(str(tmp_path / "socket")))
    left(root, "served", tmp_path, alive=True)
    assert swept(root) == goes


def test_a_record_that_a_shim_had_hardly_begun_or_all_but_removed_goes(root: Path, tmp_path: Path) -> None:
    (root / "empty").mkdir(parents=True)
    (root / "partial").mkdir()
    (root / "partial" / "record.json.new").write_text('{"version": 1')
    assert swept(root) == {"empty", "partial"}


def test_a_shim_that_is_about_to_begin_its_record_begins_anew_if_it_is_swept_up(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, sweeps = Record._write, []

    def interrupted(record: Record) -> None:
        if len(sweeps) < 2:
            sweeps.append(swept(root))
        write(record)

    monkeypatch.setattr(Record, "_write", interrupted)
    record = Record.create("new", namespace="default", bundle=tmp_path, root=root)
    assert sweeps == [{"new"}, {"new"}]
    assert Record.load("new", root=root).shim == record.shim
    assert swept(root) == set()


def test_what_cannot_be_undone_stays_on_record_and_is_told(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = tmp_path / "stuck"
    stuck.mkdir()
    record = left(root, "gone", tmp_path / "no-bundle", RemoveFile(str(stuck)))
    swept(root)
    assert Record.load("gone", root=root).undo == (RemoveFile(str(stuck)),)
    assert f"sandbox gone: left behind by a shim that died: {RemoveFile(str(stuck))}" in caplog.text
    stuck.rmdir()
    swept(root)
    assert not record.directory.exists()


def test_nobody_sweeps_what_another_process_removes(root: Path, tmp_path: Path) -> None:
    record = left(root, "gone", tmp_path / "no-bundle")
    with Record.claimed("gone", root=root):
        swept(root)
        with pytest.raises(FailedPrecondition, match="another process removes sandbox gone right now"):
            Record.claimed("gone", root=root).__enter__()
        assert record.directory.exists()
    swept(root)
    assert not record.directory.exists()


def test_a_sandbox_that_a_manager_deletes_is_not_held_meanwhile(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(root, "to-be-deleted", tmp_path)
    claimed: list[str] = []
    monkeypatch.setattr(Record, "claimed", lambda id, root: claimed.append(id))
    swept(root)
    assert claimed == []


def test_a_record_that_is_not_there_cannot_be_claimed(root: Path) -> None:
    with pytest.raises(NotFound), Record.claimed("gone", root=root):
        pass


def test_the_socket_of_a_dead_shim_goes_too(root: Path, tmp_path: Path) -> None:
    paths = host_paths(tmp_path, "")
    root.mkdir()
    shims.note("pod", "/run/no-such-socket", "/no/such/bundle", str(paths.shims))
    swept(root)
    assert list(paths.shims.iterdir()) == []


def test_a_node_without_records_is_clean(tmp_path: Path) -> None:
    sweep(host_paths(tmp_path, ""))
