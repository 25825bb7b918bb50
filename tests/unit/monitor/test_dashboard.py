"""The dashboard and the rules that operators are given ask for what there is, and no more."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from kata_py.diagnosis.overview import Sandbox
from kata_py.monitor.figures import Figures
from kata_py.sandbox.boots import Turns
from kata_py.sandbox.durations import of_tasks
from kata_py.sandbox.timeline import Span
from kata_py.shim import metrics
from kata_py.shim.overhead import Overhead
from tests.proc import elsewhere

_ROOT = Path(__file__).parents[3]
_PLACE = _ROOT / "configs" / "monitoring"
_NAME = re.compile(r"(?<![:\w])kata_\w+")


def _dashboard() -> list[tuple[str, str]]:
    panels = json.loads((_PLACE / "grafana-dashboard.json").read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]


def _rules() -> list[tuple[str, str]]:
    groups = yaml.safe_load((_PLACE / "prometheus-rules.yaml").read_text())["groups"]
    return [(rule.get("record") or rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    programs = dict.fromkeys(("shim", "hypervisor", "virtiofsd"), 7)
    figures, overhead, tasks = Figures(), Overhead(itertools.count(0, 2).__next__), of_tasks()
    figures.node.note([Sandbox("a", timeline=(Span("plan", 1, 2),))], Turns(0, 0))
    overhead.text({}, {})
    with tasks.measured("create"):
        text = metrics.of_programs(programs, elsewhere(tmp_path_factory.mktemp("proc"))) + figures.text()
    text += overhead.text({}, {}) + tasks.text()
    samples = {re.split(r"[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")}
    guest = (_ROOT / "agent" / "kata_agent" / "metrics" / "guest.py").read_text()
    return samples | set(re.findall(r'Family\(\s*"(kata_guest_\w+)"', guest))


@pytest.mark.parametrize(("title", "expression"), [*_dashboard(), *_rules()])
def test_a_query_names_figures_that_are_emitted(title: str, expression: str, emitted: set[str]) -> None:
    names = set(_NAME.findall(expression))
    assert names, title
    assert names <= emitted, title


def test_the_guides_panels_come_first() -> None:
    assert [title for title, _ in _dashboard()][:3] == [
        "Number of running VMs", "CPU Usage (per VM)", "Memory Usage (per VM)",
    ]  # fmt: skip


def test_the_series_of_the_guide_is_recorded() -> None:
    assert dict(_rules())["cluster:kata_monitor_running_shim_count:sum"] == "sum(kata_monitor_running_shim_count)"
