"""The doctor, on nodes with known ills."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from kata_py.diagnosis.doctor import examine
from kata_py.http import server
from kata_py.http.server import Answer, HttpError, Request
from kata_py.node.eligibility import Finding, Verdict
from kata_py.resource.undo import RemoveFile
from kata_py.sandbox import failure
from kata_py.sandbox.failure import Failure, Pod
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record, Shim
from kata_py.sandbox.sockets import SOCKET

FAILURE = Failure("ff" * 32, "ff" * 32, "k8s.io", Pod("shop", "web"), 0.0, "create", "kernel", 9.0, 45.0, "no answer")


@pytest.fixture
def paths(short_tmp: Path, request: pytest.FixtureRequest) -> HostPaths:
    top = short_tmp / f"{abs(hash(request.node.name)) % 10**6}"
    paths = HostPaths(
        records=top / "sbs", machines=top / "vm", shares=top / "shares", boots=top / "boots", failures=top / "failures"
    )
    for each in (paths.records, paths.machines, paths.shares):
        each.mkdir(parents=True)
    return paths


async def found(paths: HostPaths, part: str) -> list[Finding]:
    root = paths.records.parent
    config = root / "c.toml"
    config.write_text("[hypervisor.remote]\n")
    parts = await examine(config, paths, root=root, roots=(paths.records,))
    return [finding for each in parts if each.name == part for finding in each.findings]


def dead(record: Record) -> Record:
    """The same, of a shim that is gone."""
    record.shim = Shim(1, 0)
    record.move(record.state)
    return record


async def test_a_node_without_sandboxes_has_none_that_ail(paths: HostPaths) -> None:
    for part in ("sandboxes", "leftovers", "failures"):
        assert await found(paths, part) == []


async def test_a_sandbox_whose_shim_died_is_told_by_who_has_to_act(paths: HostPaths, tmp_path: Path) -> None:
    dead(Record.create("aa", namespace="k8s.io", bundle=tmp_path, root=paths.records))
    gone = Record.create("bb", namespace="k8s.io", bundle="/no/bundle", root=paths.records)
    gone.intend(RemoveFile("/no/file"))
    dead(gone)
    (paths.records / "cc").mkdir()
    (paths.records / "cc/record.json").write_text("{")
    sandboxes = {each.name: each for each in await found(paths, "sandboxes")}
    assert set(sandboxes) == {"sandbox aa", "sandbox cc"}
    assert "crictl rmp -f aa" in sandboxes["sandbox aa"].fix
    assert "cannot be read" in sandboxes["sandbox cc"].evidence
    [left] = await found(paths, "leftovers")
    assert (left.name, left.verdict, left.fix) == ("sandbox bb", Verdict.WARN, "kata-ctl gc")
    assert "/no/file" in left.evidence


async def test_a_directory_that_no_record_names_is_told(paths: HostPaths) -> None:
    (paths.machines / "dd").mkdir()
    Record.create("ee", namespace="k8s.io", bundle="/b", root=paths.records)
    (paths.shares / "ee").mkdir()
    assert [each.name for each in await found(paths, "leftovers")] == [str(paths.machines / "dd")]


async def test_agents_are_asked_and_one_that_is_silent_is_a_failure(paths: HostPaths) -> None:
    async def answer(request: Request) -> Answer:
        assert request.path == "/agent-check"
        return Answer()

    async def silent(request: Request) -> Answer:
        raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "the agent does not answer within 3 s")

    async def foreign(request: Request) -> Answer:
        raise HttpError(HTTPStatus.NOT_FOUND, "no such path")

    for name in ("aa", "bb", "cc", "dd"):
        (paths.records / name).mkdir()
    (paths.records / "dd" / SOCKET).touch()  # nobody listens there
    async with (
        server.serving(str(paths.records / "aa" / SOCKET), answer),
        server.serving(str(paths.records / "bb" / SOCKET), silent),
        server.serving(str(paths.records / "cc" / SOCKET), foreign),
    ):
        by_name = {each.name: each for each in await found(paths, "sandboxes")}
    assert {name: each.verdict for name, each in by_name.items()} == {
        "sandbox aa": Verdict.OK, "sandbox bb": Verdict.FAIL, "sandbox cc": Verdict.OK
    }  # fmt: skip
    assert "does not answer within 3 s" in by_name["sandbox bb"].evidence
    assert "not asked" in by_name["sandbox cc"].evidence


async def test_failures_are_told_newest_first_and_bounded(paths: HostPaths) -> None:
    now = time.time()
    for number in range(12):
        ids = dict.fromkeys(("sandbox", "container"), f"{number:02}" * 32)
        await asyncio.to_thread(failure.keep, replace(FAILURE, **ids, at=now - 60 * number - 1), paths.failures)
    *newest, older = await found(paths, "failures")
    assert [each.name for each in newest] == [f"sandbox {f'{number:02}' * 6}" for number in range(10)]
    assert newest[1].evidence.startswith("shop/web: its start, 1 min 1 s ago, in stage kernel: KATA-")
    assert older.evidence.startswith("2 older ones")
