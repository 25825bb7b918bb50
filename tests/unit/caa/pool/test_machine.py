"""Machines that wait for a pod, on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kata_caa.pool.machine import Machine, MachineRecords, Phase
from kata_caa.providers.api import InstanceSpec, Target
from kata_caa.record import RecordError

MACHINE = Machine("0123456789abcdef", InstanceSpec("m6a.large", image="ami-1"), "material", "token")


@pytest.fixture
def records(tmp_path: Path) -> MachineRecords:
    return MachineRecords(tmp_path / "pool")


def test_what_is_written_is_read_back(records: MachineRecords):
    assert list(records.ids()) == []
    records.write(MACHINE)
    waiting = replace(MACHINE, phase=Phase.WAITING, instance_id="i-1", addresses=("10.0.0.1",), instance_type="t")
    records.write(waiting)
    assert records.load(MACHINE.id) == waiting
    assert list(records.ids()) == [MACHINE.id]
    for _ in range(2):
        records.remove(MACHINE.id)
    assert records.load(MACHINE.id) is None
    assert list(records.ids()) == []


def test_the_cloud_knows_it_by_its_own_id():
    assert MACHINE.target == Target(MACHINE.id, "podvm-pool-01234567")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2}', '{"version": 1}', json.dumps({"version": 1, "id": "x", "spec": {"a": 1}})],
)
def test_a_damaged_record_is_an_error_that_names_it(records: MachineRecords, tmp_path: Path, text: str):
    records.write(MACHINE)
    (tmp_path / "pool" / f"{MACHINE.id}.json").write_text(text)
    with pytest.raises(RecordError, match=MACHINE.id):
        records.load(MACHINE.id)


def test_what_cannot_be_written_or_removed_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    records = MachineRecords(tmp_path / "file")
    with pytest.raises(RecordError, match="podvm-pool-01234567 cannot be written"):
        records.write(MACHINE)
    with pytest.raises(RecordError, match="cannot be removed"):
        records.remove(MACHINE.id)
