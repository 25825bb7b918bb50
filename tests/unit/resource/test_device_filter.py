"""Which devices a cgroup of v2 may use, by the running kernel's own judgement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from kata_py.resource import mount
from kata_py.resource.device_filter import DeviceFilter

# Joins a cgroup, opens devices in ways of its own, makes a node; tells of each whether it could.
ATTEMPTS = """
import json, os, sys
cgroup, scratch = sys.argv[1:]
open(f"{cgroup}/cgroup.procs", "w").write("0")

def can(attempt, *arguments):
    try:
        attempt(*arguments)
    except PermissionError:
        return False
    return True

print(json.dumps({
    "read null": can(os.open, "/dev/null", os.O_RDONLY),
    "write null": can(os.open, "/dev/null", os.O_WRONLY),
    "update null": can(os.open, "/dev/null", os.O_RDWR),
    "read zero": can(os.open, "/dev/zero", os.O_RDONLY),
    "make c 1:3": can(os.mknod, f"{scratch}/c", 0o20600, os.makedev(1, 3)),
    "make b 1:3": can(os.mknod, f"{scratch}/b", 0o60600, os.makedev(1, 3)),
}))
"""
ALL = {"read null", "write null", "update null", "read zero", "make c 1:3", "make b 1:3"}
NULL = {"read null", "write null", "update null", "make c 1:3"}


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup of v2, wherever this host has them."""
    top = tmp_path / "cgroup"
    top.mkdir()
    mount.mount("cgroup2", str(top), "cgroup2")
    path = top / f"kata-py-test-{os.getpid()}-filter"
    path.mkdir()
    yield path
    for child in (*path.glob("*/"), path):
        child.rmdir()
    mount.unmount(str(top))


def possible(cgroup: Path, scratch: Path) -> set[str]:
    """What a process in the cgroup can do."""
    told = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, cgroup, scratch], check=True, capture_output=True, timeout=30
    ).stdout  # fmt: skip
    return {name for name, could in json.loads(told).items() if could}


@pytest.mark.root
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], set()),
        (["a *:* rwm"], ALL),
        (["c 1:3 r", "a *:* rwm", "c 1:5 r"], ALL),
        (["c 1:3 rwm"], NULL),
        (["c 1:3 r"], {"read null"}),
        (["c 1:3 w"], {"write null"}),
        (["c 1:3 rw"], NULL - {"make c 1:3"}),
        (["c 1:3 r", "c 1:3 w"], {"read null", "write null"}),  # as v1: both at once is in neither rule
        (["c *:* m"], {"make c 1:3"}),
        (["b *:* rwm"], {"make b 1:3"}),
        (["a 1:3 rwm"], NULL | {"make b 1:3"}),
        (["c 1:* r"], {"read null", "read zero"}),
        (["c *:5 r"], {"read zero"}),
        (["b 8:0 r", "c 136:* rw", "c 1:5 r"], {"read zero"}),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, list) else "",
)
def test_a_cgroup_has_the_devices_it_is_given_and_no_others(
    cgroup: Path, tmp_path: Path, rules: Sequence[str], expected: set[str]
) -> None:
    with closing(DeviceFilter(cgroup)) as devices:
        devices.allow(rules)
    assert possible(cgroup, tmp_path) == expected


@pytest.mark.root
def test_and_those_below_it_never_have_more(cgroup: Path, tmp_path: Path) -> None:
    below = cgroup / "below"
    below.mkdir()
    with closing(DeviceFilter(cgroup)) as above, closing(DeviceFilter(below)) as devices:
        above.allow(["c 1:3 rwm"])
        devices.allow(["c 1:3 r", "c 1:5 rwm"])
    assert possible(below, tmp_path) == {"read null"}


@pytest.mark.root
def test_what_is_allowed_last_counts(cgroup: Path, tmp_path: Path) -> None:
    with closing(DeviceFilter(cgroup)) as devices:
        for rules, expected in ((["c 1:3 r"], {"read null"}), (["c 1:5 r"], {"read zero"}), ([], set())):
            devices.allow(rules)
            assert possible(cgroup, tmp_path) == expected


@pytest.mark.root
def test_without_a_filter_all_can_be_used(cgroup: Path, tmp_path: Path) -> None:
    assert possible(cgroup, tmp_path) == ALL


@pytest.mark.root
@pytest.mark.parametrize("rule", ["", "nonsense", "c 1:3", "c 1:3 x", "c 1:3 rwmr", "d 1:3 r", "c -1:3 r", "c 1:3 r\n"])
def test_what_is_no_rule_is_told_and_the_others_count(cgroup: Path, tmp_path: Path, rule: str) -> None:
    with closing(DeviceFilter(cgroup)) as devices, pytest.raises(OSError, match="no rule for a device") as raised:
        devices.allow(["c 1:3 r", rule, "c 1:5 r"])
    assert raised.value.filename == rule
    assert possible(cgroup, tmp_path) == {"read null", "read zero"}


@pytest.mark.root
def test_what_is_no_cgroup_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)):
        DeviceFilter(tmp_path).allow([])
