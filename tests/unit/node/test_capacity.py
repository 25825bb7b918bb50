"""What is free on a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.config.load import load
from kata_py.node.capacity import judged, judged_memory, judged_space
from kata_py.node.eligibility import Verdict

GIB = 1 << 30


@pytest.mark.parametrize(("free", "verdict"), [(50, Verdict.OK), (6, Verdict.OK), (4, Verdict.WARN), (0, Verdict.FAIL)])
def test_a_file_system_is_judged_by_the_part_that_is_free(free: int, verdict: Verdict) -> None:
    [found] = judged_space(Path("/run"), "inodes", free, 100)
    assert found.verdict is verdict
    assert found.evidence == f"{free} of 100 free ({free}%)"
    assert ("du --inodes -x" in found.fix) is (verdict is not Verdict.OK)


def test_a_file_system_without_a_count_is_passed_over() -> None:
    assert list(judged_space(Path("/"), "inodes", 0, 0)) == []


def test_memory_is_judged_by_what_one_more_sandbox_takes() -> None:
    configuration = load(b"[hypervisor.qemu]\ndefault_memory = 1024\n")
    for available, verdict in ((2 * GIB, Verdict.OK), (GIB, Verdict.WARN)):
        [found] = judged_memory(configuration, {"MemAvailable": available})
        assert (found.name, found.verdict) == ("memory", verdict)


def test_huge_pages_are_judged_where_machines_take_them() -> None:
    configuration = load(b"[hypervisor.qemu]\ndefault_memory = 1024\nenable_hugepages = true\n")
    meminfo = {"MemAvailable": GIB, "HugePages_Free": 511, "Hugepagesize": 2 << 20}
    assert [each.verdict for each in judged_memory(configuration, meminfo)] == [Verdict.FAIL, Verdict.OK]
    meminfo["HugePages_Free"] = 512
    assert [each.verdict for each in judged_memory(configuration, meminfo)] == [Verdict.OK, Verdict.OK]


def test_machines_elsewhere_take_no_memory() -> None:
    assert list(judged_memory(load(b"[hypervisor.remote]\n"), {})) == []


def test_a_file_system_is_told_once_however_many_places_are_on_it(tmp_path: Path) -> None:
    for place in ("run", "tmp", "dev/shm"):
        (tmp_path / place).mkdir(parents=True)
    places = [each.name for each in judged(load(b"[hypervisor.remote]\n"), tmp_path)]
    assert {place.partition(":")[0] for place in places} == {f"{tmp_path}/run"}
