"""A pod's overhead, of what its programs and its containers use."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kata_py.shim.overhead import Overhead, Usage, of_programs

MIB = 1 << 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def figures(text: str) -> dict[str, float]:
    families = text_string_to_metric_families(text)
    return {family.name.removeprefix("kata_shim_pod_overhead_"): family.samples[0].value for family in families}


def test_processor_time_is_that_since_the_figures_were_told_before() -> None:
    clock = Clock()
    overhead = Overhead(clock)
    first = figures(overhead.text({"hypervisor": Usage(50.0, 300 * MIB)}, {"a": Usage(40.0, 100 * MIB)}))
    assert first == {"memory_in_bytes": 200 * MIB}
    clock.now += 10
    later = figures(overhead.text({"hypervisor": Usage(54.0, 300 * MIB)}, {"a": Usage(43.0, 100 * MIB)}))
    assert later == {"memory_in_bytes": 200 * MIB, "cpu": 10.0}


def test_who_asks_again_at_once_gets_the_processor_time_of_before() -> None:
    clock = Clock()
    overhead = Overhead(clock)
    overhead.text({"shim": Usage(1.0, 0)}, {})
    clock.now += 2
    assert figures(overhead.text({"shim": Usage(2.0, 0)}, {}))["cpu"] == 50
    clock.now += 0.5
    assert figures(overhead.text({"shim": Usage(2.5, 0)}, {}))["cpu"] == 50
    clock.now += 1.5
    assert figures(overhead.text({"shim": Usage(2.0, 0)}, {}))["cpu"] == 0


def test_who_came_or_went_meanwhile_does_not_count() -> None:
    clock = Clock()
    overhead = Overhead(clock)
    overhead.text({"shim": Usage(1.0, 0)}, {"ended": Usage(9.0, 0), "zeros": Usage(9.0, 0)})
    clock.now += 1
    assert figures(overhead.text({"shim": Usage(1.25, 0)}, {"new": Usage(7.0, 0), "zeros": Usage(0.0, 0)}))["cpu"] == 25


def test_it_is_never_less_than_nothing() -> None:
    clock = Clock()
    overhead = Overhead(clock)
    overhead.text({"shim": Usage(1.0, 5)}, {"a": Usage(1.0, 9)})
    clock.now += 1
    told = figures(overhead.text({"shim": Usage(1.0, 5)}, {"a": Usage(1.1, 9)}))
    assert told == {"memory_in_bytes": 0, "cpu": 0}


def test_the_guests_memory_is_counted_once_with_the_hypervisor(tmp_path: Path) -> None:
    for pid in ("7", "8"):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"{pid} (a) b) S " + " ".join(str(field) for field in range(4, 53)))
        (tmp_path / pid / "status").write_text(
            "VmRSS:\t 700 kB\nRssAnon:\t 100 kB\nRssFile:\t 20 kB\nRssShmem:\t 580 kB\nHugetlbPages:\t 2048 kB\n"
        )
    found = of_programs({"hypervisor": 7, "virtiofsd": 8, "shim": 9}, tmp_path)
    assert {name: usage.memory >> 10 for name, usage in found.items()} == {"hypervisor": 2748, "virtiofsd": 120}
    assert found["hypervisor"].processor == (14 + 15) / 100
