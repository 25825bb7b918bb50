"""The monitor's figures of itself."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from kata_py.monitor.figures import Figures

DURATION = "kata_monitor_scrape_durations_histogram_milliseconds"


def test_scrapes_are_counted_by_how_long_they_took() -> None:
    figures = Figures()
    for seconds in (0.0005, 0.001, 0.0015, 0.5, 3.0):
        figures.scraped(seconds)
    figures.failed()
    families = {family.name: family for family in text_string_to_metric_families(figures.text())}
    counts = {s.labels["le"]: s.value for s in families[DURATION].samples if s.name == f"{DURATION}_bucket"}
    assert counts == {
        "1": 2,
        "2": 3,
        **dict.fromkeys(["4", "8", "16", "32", "64", "128", "256"], 3),
        "512": 4,
        "+Inf": 5,
    }
    assert {sample.name: sample.value for sample in families[DURATION].samples if not sample.labels} == {
        f"{DURATION}_sum": 3503.0, f"{DURATION}_count": 5
    }  # fmt: skip
    assert [families[f"kata_monitor_{name}"].samples[0].value for name in ("scrape_count", "scrape_failed_count")] == [
        5,
        1,
    ]


def test_the_process_is_told_of_under_upstreams_names() -> None:
    text = Figures().text()
    for name in ("cpu_seconds_total", "open_fds", "resident_memory_bytes", "start_time_seconds"):
        assert f"\nkata_monitor_process_{name} " in text
