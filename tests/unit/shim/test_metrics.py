from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from kata_py.shim import metrics
from tests.proc import elsewhere


def test_figures_of_a_program_are_those_of_the_kernels_files(tmp_path: Path) -> None:
    place = tmp_path / "7"
    (place / "fd").mkdir(parents=True)
    for number in range(3):
        (place / "fd" / str(number)).touch()
    (place / "status").write_text("Name:\tx y\nVmRSS:\t  1234 kB\nThreads:\t5\nvoluntary_ctxt_switches:\t9\n")
    (place / "stat").write_text("7 (a) b) S " + " ".join(str(field) for field in range(4, 53)))
    (place / "io").write_text("rchar: 10\nread_bytes: 20\ncancelled_write_bytes: 30\n")
    text = metrics.of_programs({"hypervisor": 7, "virtiofsd": 8}, tmp_path)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {
        f"kata_hypervisor_{name}" for name in ("threads", "fds", "proc_status", "proc_stat", "io_stat")
    }
    found = {
        (name, sample.labels.get("item", "")): sample.value
        for name, family in families.items()
        for sample in family.samples
    }
    assert found["kata_hypervisor_threads", ""] == 5
    assert found["kata_hypervisor_fds", ""] == 3
    assert found["kata_hypervisor_proc_status", "vmrss"] == 1234
    assert found["kata_hypervisor_proc_status", "voluntary_ctxt_switches"] == 9
    assert [found["kata_hypervisor_proc_stat", item] for item in ("utime", "stime", "cutime", "cstime")] == [
        14, 15, 16, 17,
    ]  # fmt: skip
    assert found["kata_hypervisor_io_stat", "readbytes"] == 20
    assert found["kata_hypervisor_io_stat", "cancelledwritebytes"] == 30


_ITEMS = {
    "proc_status": "vmpeak vmsize vmlck vmpin vmhwm vmrss rssanon rssfile rssshmem vmdata vmstk vmexe vmlib vmpte "
    "vmpmd vmswap hugetlbpages voluntary_ctxt_switches nonvoluntary_ctxt_switches",
    "proc_stat": "utime stime cutime cstime",
    "io_stat": "rchar wchar syscr syscw readbytes writebytes cancelledwritebytes",
    "netdev": "recv_bytes recv_packets recv_errs recv_drop recv_fifo recv_frame recv_compressed recv_multicast "
    "sent_bytes sent_packets sent_errs sent_drop sent_fifo sent_colls sent_carrier sent_compressed",
}


_PROCESS = (
    *("cpu_seconds", "open_fds", "max_fds", "virtual_memory_bytes", "virtual_memory_max_bytes"),
    *("resident_memory_bytes", "start_time_seconds"),
)


@pytest.mark.parametrize("program", ["shim", "hypervisor", "virtiofsd"])
def test_families_labels_and_items_are_upstreams(program: str, tmp_path: Path) -> None:
    found: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.of_programs({program: 7}, elsewhere(tmp_path))):
        name = family.name.removeprefix(f"kata_{program}_")
        found[name] = {sample.labels.get("item", "") for sample in family.samples}
        labels[name] = {label for sample in family.samples for label in sample.labels}
    items = {name: set(text.split()) for name, text in _ITEMS.items() if name != "netdev" or program == "hypervisor"}
    single = {"threads", "fds", *(f"process_{name}" for name in _PROCESS if program == "shim")}
    assert found == {**{name: {""} for name in single}, **items}
    expected = {**{name: set[str]() for name in single}, "netdev": {"interface", "item"}}
    assert labels == {name: expected.get(name, {"item"}) for name in found}


def test_an_interfaces_name_and_number_cannot_break_the_text(tmp_path: Path) -> None:
    place = tmp_path / "7"
    for folder in (place / "fd", place / "net", place / "ns", tmp_path / "self" / "ns"):
        folder.mkdir(parents=True)
    (place / "ns" / "net").touch()
    (tmp_path / "self" / "ns" / "net").touch()
    (place / "status").touch()
    (place / "io").touch()
    (place / "stat").write_text("7 (x) S " + " ".join(["0"] * 40))
    numbers = " ".join(map(str, range(1, 17)))
    lines = [f'  a"\\b: {numbers}', *(f"eth{number}:{numbers}" for number in range(40))]
    (place / "net" / "dev").write_text("\n".join(["Inter-|", " face |", *lines, ""]))
    families = {
        family.name: family
        for family in text_string_to_metric_families(metrics.of_programs({"hypervisor": 7}, tmp_path))
    }
    samples = families["kata_hypervisor_netdev"].samples
    assert len(samples) == 16 * 16
    assert samples[0].labels == {"interface": 'a"\\b', "item": "recv_bytes"}
    assert [sample.value for sample in samples[:16]] == list(range(1, 17))


def test_interfaces_of_the_shims_own_namespace_are_not_told_as_the_pods() -> None:
    text = metrics.of_programs({"hypervisor": os.getpid()})
    assert "kata_hypervisor_fds" in text
    assert "kata_hypervisor_netdev" not in text


def test_this_process_has_figures() -> None:
    families = list(text_string_to_metric_families(metrics.of_programs({"shim": os.getpid()})))
    assert {family.name for family in families if family.type != "gauge"} == {"process_cpu_seconds"}
    assert families[0].samples[0].value >= 1


def test_a_shim_tells_of_its_process_as_prometheus_client_libraries_do(tmp_path: Path) -> None:
    place = elsewhere(tmp_path)
    text = metrics.of_programs({"shim": 7}, place)
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    for family in ProcessCollector(registry=None).collect():
        for sample in family.samples:
            assert found[sample.name] == pytest.approx(sample.value, rel=0.2), sample.name
    assert f"\nprocess_max_fds {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}\n" in text


@pytest.mark.parametrize(("limit", "told"), [("unlimited", 2**64 - 1), ("4096", 4096)])
def test_memory_without_a_limit_is_told_as_go_does(limit: str, told: int, tmp_path: Path) -> None:
    place = elsewhere(tmp_path)
    (place / "7" / "limits").unlink()
    kinds = f"Max open files  9  10  files\nMax address space  {limit}  {limit}  bytes\n"
    (place / "7" / "limits").write_text(f"Limit  Soft Limit  Hard Limit  Units\n{kinds}")
    text = metrics.of_programs({"shim": 7}, place)
    assert f"\nprocess_virtual_memory_max_bytes {told}\n" in text
    assert "\nprocess_max_fds 9\n" in text


@pytest.mark.parametrize(
    ("told", "passed_on"),
    [
        ("# HELP kata_guest_load Load.", "# HELP kata_guest_load Load."),
        ("# TYPE go_threads gauge", "# TYPE kata_agent_go_threads gauge"),
        ("process_max_fds 4", "kata_agent_process_max_fds 4"),
        ('kata_agent_io_stat{item="rchar"} 12', 'kata_agent_io_stat{item="rchar"} 12'),
        ("kata_shim_threads 100000", ""),
        ("kata_hypervisor_fds 1", ""),
        ("# a comment", ""),
        ("kata_guest_load\x1b[2J 1", ""),
    ],
)
def test_the_agent_speaks_for_the_guest_alone(told: str, passed_on: str) -> None:
    assert metrics.of_agent(f"{told}\n") == (passed_on and f"{passed_on}\n")


def test_an_agents_text_has_its_bounds() -> None:
    text = "".join(f"kata_guest_x{number} 1\n" for number in range(metrics.MOST_LINES + 5))
    passed = metrics.of_agent("\n" * 1000 + text)
    assert passed.count("\n") == metrics.MOST_LINES
