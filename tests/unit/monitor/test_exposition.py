"""Texts of many sandboxes as one, read back by prometheus-client's own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kata_py.monitor import exposition
from kata_py.monitor.exposition import Families

A, B = {"sandbox_id": "a"}, {"sandbox_id": "b"}

HISTOGRAM = """\
# HELP kata_shim_rpc_durations_histogram_milliseconds RPC latency distributions.
# TYPE kata_shim_rpc_durations_histogram_milliseconds histogram
kata_shim_rpc_durations_histogram_milliseconds_bucket{action="create",le="1"} 0
kata_shim_rpc_durations_histogram_milliseconds_bucket{action="create",le="+Inf"} 1
kata_shim_rpc_durations_histogram_milliseconds_sum{action="create"} 1.5e+06
kata_shim_rpc_durations_histogram_milliseconds_count{action="create"} 1
"""


def taken(text: str) -> list[str]:
    """The samples that are taken of a text."""
    families = Families()
    families.add(text, {})
    return [line for line in families.text().splitlines() if not line.startswith("#")]


def test_a_family_of_two_sandboxes_has_its_help_and_type_once() -> None:
    families = Families()
    text = '# HELP kata_guest_load Load.\n# TYPE kata_guest_load gauge\nkata_guest_load{item="load1"} 0.5\n'
    assert families.add(text + "# TYPE kata_shim_fds gauge\nkata_shim_fds 7\n", A) == (2, 0)
    assert families.add(text, B) == (1, 0)
    assert families.text() == (
        "# HELP kata_guest_load Load.\n"
        "# TYPE kata_guest_load gauge\n"
        'kata_guest_load{item="load1",sandbox_id="a"} 0.5\n'
        'kata_guest_load{item="load1",sandbox_id="b"} 0.5\n'
        "# TYPE kata_shim_fds gauge\n"
        'kata_shim_fds{sandbox_id="a"} 7\n'
    )


def test_a_histograms_samples_are_of_its_family() -> None:
    families = Families()
    families.add(HISTOGRAM, A)
    families.add(HISTOGRAM, B)
    (family,) = text_string_to_metric_families(families.text())
    assert (family.type, family.documentation) == ("histogram", "RPC latency distributions.")
    assert len(family.samples) == 8
    assert {sample.labels["sandbox_id"] for sample in family.samples} == {"a", "b"}
    assert "kata_shim_rpc_durations_histogram_milliseconds_count 1" not in families.text()


def test_what_a_pods_name_holds_is_escaped() -> None:
    families = Families()
    families.add("kata_shim_fds 1\n", {"sandbox_id": "a", "cri_name": 'a"b\\c\nd', "cri_namespace": "default"})
    (family,) = text_string_to_metric_families(families.text())
    assert family.samples[0].labels == {"sandbox_id": "a", "cri_name": 'a"b\\c\nd', "cri_namespace": "default"}


def test_escapes_that_a_sandbox_wrote_stay_as_they_are() -> None:
    line = r'kata_guest_x{item="a\"b\\c\nd,}e"} 1'
    families = Families()
    families.add(f"# HELP kata_guest_x of \\\\ and \\n\n{line}\n", A)
    assert families.text() == f'# HELP kata_guest_x of \\\\ and \\n\n{line[:-3]},sandbox_id="a"}} 1\n'


def test_families_of_gos_client_are_called_after_the_shim_as_upstream_does() -> None:
    text = "# TYPE go_goroutines gauge\ngo_goroutines 9\nprocess_open_fds 3\n"
    assert taken(text) == ["kata_shim_go_goroutines 9", "kata_shim_process_open_fds 3"]


@pytest.mark.parametrize(
    "line",
    [
        "kata_guest_x",
        "kata_guest_x{ 1",
        "kata_guest_x one",
        "kata_guest_x 1 2 3",
        "kata_guest_x 1\r",
        "kata_guest_x ١",
        'kata_guest_x{item="a} 1',
        'kata_guest_x{item="\\x"} 1',
        'kata_guest_x{item="\x00"} 1',
        'kata_guest_x{item="a",item="b"} 1',
        'kata_guest_x{sandbox_id="another"} 1',
        'kata_guest_x{item="a",cri_name="another"} 1',
        'kata_guest_x{__name__="kata_shim_fds"} 1',
        'kata_guest_x{item="ok"} 2',
        "kata_monitor_scrape_count 1000",
        "node_load1 1",
    ],
)
def test_a_line_that_would_spoil_the_answer_or_speak_for_others_is_left_out(line: str) -> None:
    families = Families()
    assert families.add(f'kata_guest_x{{item="ok"}} 1\n{line}\n', A) == (1, 1)
    assert families.text() == 'kata_guest_x{item="ok",sandbox_id="a"} 1\n'


@pytest.mark.parametrize("value", ["1", "-1", "+1", "1.", ".5", "1.5e-3", "1E9", "+Inf", "-Inf", "NaN"])
def test_numbers_are_taken_in_each_form(value: str) -> None:
    assert taken(f"kata_guest_x {value}\n") == [f"kata_guest_x {value}"]


def test_a_time_that_a_sandbox_gives_is_not_told() -> None:
    assert taken("kata_guest_x 1 1395066363000\n") == ["kata_guest_x 1"]


def test_labels_may_end_in_a_comma_or_be_none() -> None:
    families = Families()
    families.add('kata_guest_x{item="a",} 1\nkata_guest_y{} 2\n', A)
    assert families.text() == 'kata_guest_x{item="a",sandbox_id="a"} 1\nkata_guest_y{sandbox_id="a"} 2\n'


def test_a_family_has_the_type_that_most_sandboxes_say() -> None:
    families = Families()
    for sandbox, type in (("liar", "histogram"), ("a", "gauge"), ("b", "gauge")):
        families.add(f"# TYPE kata_guest_x {type}\nkata_guest_x 1\n", {"sandbox_id": sandbox})
    assert families.text().startswith("# TYPE kata_guest_x gauge\n")
    assert families.text().count("# TYPE") == 1


def test_only_the_families_that_are_asked_for_are_written() -> None:
    families = Families()
    families.add("kata_guest_x 1\nkata_guest_y 1\n", {})
    assert families.text(["kata_guest_y", "kata_guest_z"]) == "kata_guest_y 1\n"


_words = st.sampled_from(
    [
        "# TYPE ",
        "# HELP ",
        "kata_guest_x",
        "kata_guest_x_sum",
        "{",
        "}",
        'item="',
        '"',
        "\\",
        ",",
        " ",
        "1",
        "histogram",
        "gauge",
    ]
)


def test_a_guest_cannot_tell_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "LINES_MAX", 3)
    families = Families()
    assert families.add("".join(f"kata_guest_x{number} 1\n" for number in range(5)), A) == (3, 1)
    long = "x" * exposition.LINE_MAX
    assert families.add(f'kata_guest_x{{item="{long}"}} 1\n# HELP kata_shim_fds {long}\nkata_shim_fds 1\n', B) == (1, 2)
    assert len(families.text()) < 1000


@given(st.lists(st.lists(_words, max_size=12).map("".join) | st.text(), max_size=8).map("\n".join))
def test_whatever_a_guest_writes_the_answer_can_be_read(text: str) -> None:
    families = Families()
    families.add(text, A)
    families.add(HISTOGRAM, B)
    samples = [sample for family in text_string_to_metric_families(families.text()) for sample in family.samples]
    assert sum(sample.labels == {"sandbox_id": "b"} | sample.labels for sample in samples) == 4
    assert {sample.labels["sandbox_id"] for sample in samples} <= {"a", "b"}
