"""Peer pods on disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kata_caa import apf
from kata_caa.errors import SandboxExists
from kata_caa.providers.api import InstanceSpec
from kata_caa.record import PodRecord, PodRecords, RecordError, State

NETWORK = apf.PodNetwork(
    pod_ip="10.0.0.2/24", vxlan_id=555000, interfaces=(apf.Interface("net1", "02:00:00:00:00:01", (), 0, 555001),)
)
RECORD = PodRecord(
    "id", "web", "shop", "/run/netns/pod", "podvm-web-id", "material", "token", InstanceSpec(vcpus=2), network=NETWORK
)
CONFIG = apf.ForwarderConfig(NETWORK, "web", "shop", tls_server_key="KEY")


@pytest.fixture
def records(tmp_path: Path) -> PodRecords:
    return PodRecords(tmp_path / "pods")


def test_what_is_written_is_read_back(records: PodRecords):
    records.create(RECORD, CONFIG, "user data")
    assert records.load("id") == RECORD
    running = replace(RECORD, state=State.STARTING, instance_id="i-1", addresses=("10.1.0.1",))
    records.update(running)
    assert records.load("id") == running
    assert list(records.ids()) == ["id"]
    assert records.user_data("id") == "user data"
    assert RECORD.vnis == (555000, 555001)


def test_secrets_are_for_nobody_else(records: PodRecords, tmp_path: Path):
    records.create(RECORD, CONFIG, "user data")
    home = tmp_path / "pods" / "id"
    assert home.stat().st_mode & 0o777 == 0o700
    for name in ("apf.json", "user-data"):
        assert (home / name).stat().st_mode & 0o777 == 0o600


def test_what_the_machine_has_read_is_not_kept(records: PodRecords):
    records.create(RECORD, CONFIG, "user data")
    records.update(replace(RECORD, state=State.RUNNING))
    with pytest.raises(RecordError, match="user data of id cannot be read"):
        records.user_data("id")


def test_a_sandbox_is_announced_once(records: PodRecords):
    records.create(RECORD, CONFIG, "first")
    with pytest.raises(SandboxExists):
        records.create(RECORD, CONFIG, "second")
    assert records.user_data("id") == "first"


def test_what_is_forgotten_may_be_forgotten_again(records: PodRecords):
    records.create(RECORD, CONFIG, "")
    records.remove("id")
    records.remove("id")
    assert list(records.ids()) == []
    assert records.load("id") is None


def test_a_kill_before_the_record_was_written_leaves_a_directory_that_is_no_pod(records: PodRecords, tmp_path: Path):
    (tmp_path / "pods" / "id").mkdir(parents=True)
    assert list(records.ids()) == ["id"]
    assert records.load("id") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, '{"version": 2}', '{"version": 1, "state": "odd"}'])
def test_a_damaged_record_is_an_error_that_names_it(records: PodRecords, tmp_path: Path, text: str):
    records.create(RECORD, CONFIG, "")
    (tmp_path / "pods" / "id" / "pod.json").write_text(text)
    with pytest.raises(RecordError, match="id"):
        records.load("id")


def test_a_record_without_what_its_machine_was_given_is_damaged_and_not_gone(records: PodRecords, tmp_path: Path):
    records.create(RECORD, CONFIG, "")
    (tmp_path / "pods" / "id" / "apf.json").unlink()
    with pytest.raises(RecordError, match=r"id: No such file or directory: .*apf\.json"):
        records.load("id")


def test_a_damaged_record_hides_no_other_and_tells_the_numbers_of_its_tunnels(records: PodRecords, tmp_path: Path):
    other = replace(RECORD, sandbox_id="other")
    for each in (RECORD, other):
        records.create(each, CONFIG, "")
    (tmp_path / "pods" / "id" / "pod.json").write_text("{")
    good, damaged = records.known()
    assert (good, list(damaged)) == ([other], ["id"])
    assert records.vnis("id") == (555000, 555001)
    (tmp_path / "pods" / "id" / "apf.json").write_text("{")
    assert records.vnis("id") == ()


def test_what_a_kill_leaves_of_a_removal_is_no_damaged_record(
    records: PodRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(home: Path) -> None:
        raise KeyboardInterrupt

    records.create(RECORD, CONFIG, "")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            records.remove("id")
    assert list(records.ids()) == ["id"]
    assert records.load("id") is None


def test_a_record_is_on_the_disk_before_it_takes_its_place(
    records: PodRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flushed, flush = list[str](), os.fsync

    def noted(fd: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path)))
        flush(fd)

    monkeypatch.setattr(os, "fsync", noted)
    records.create(RECORD, CONFIG, "")
    assert flushed == ["pods/id/apf.json", "pods/id/user-data", "pods/id/pod.json.new", "pods/id", "pods"]
    del flushed[:]
    records.update(replace(RECORD, state=State.STARTING))
    assert flushed == ["pods/id/pod.json.new", "pods/id"]


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "pods").write_text("a file")
    with pytest.raises(RecordError, match="cannot be made"):
        PodRecords(tmp_path / "pods").create(RECORD, CONFIG, "")
