"""Traces over a fake agent, as far as they must not be seen: what is imported, what is told, who waits."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_py.shim import otlp, tracing
from kata_py.shim.otlp import Collector
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.collector import collecting, tree
from tests.conftest import REPOSITORY
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import CALL_TIMEOUT, Tasks, make_configuration, serving, until

LOST = "traces are lost: "
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # the manager's


@pytest.fixture
async def traced(top: Path, hypervisor: FakeHypervisor, opener: MemoryOpener) -> AsyncIterator[Tasks]:
    """A Task service whose pods are traced, as the environment says."""
    plain = make_configuration()
    configuration = replace(
        plain,
        runtime=replace(plain.runtime, enable_tracing=True),
        agent=replace(plain.agent, enable_tracing=True),
    )
    async with serving(top, lambda _: hypervisor, opener, configuration=configuration) as tasks:
        yield tasks
        await tasks.service.drained(5.0)


def test_a_shim_that_serves_has_loaded_nothing_of_opentelemetry() -> None:
    code = "import sys, kata_py.shim.service; print(*(n for n in sys.modules if 'opentelemetry' in n or 'otlp' in n))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", None),
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://collector/otlp/v1/traces", "https://collector/otlp/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_is_that_of_otlp(endpoint: str, url: str | None) -> None:
    assert Collector(endpoint).url == url


def test_a_name_and_a_password_are_given_as_http_has_it() -> None:
    assert Collector().headers == {}
    assert Collector(user="Aladdin", password="open sesame").headers == {
        "authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617's example
    }


@pytest.mark.root
async def test_an_agent_without_spans_leaves_the_shims_and_the_environment_says_where_to(
    traced: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        await traced.create_pod()
        await traced.start("p1")
        told = await asyncio.to_thread(collector.until, "pod start")
    assert {each.service for each in told} == {"kata"}
    assert tree(told)["kata: grpc.AgentService/CreateContainer"] == "kata: create"


@pytest.mark.root
async def test_a_trace_goes_on_where_the_managers_was_and_is_none_if_nobody_keeps_that(
    traced: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        for id, flags in (("unkept", "00"), ("kept", "01")):
            metadata = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
            await traced.client.Create(traced.request(id), timeout=CALL_TIMEOUT, metadata=metadata)
            await traced.start(id)
            await traced.kill(signal.SIGKILL, id)
            await traced.wait(id)
            await traced.delete(id)
        told = await asyncio.to_thread(collector.until, "pod start")
    assert {each.resource["sandbox_id"] for each in told} == {"kept"}
    assert {each.span.trace_id.hex() for each in told} == {TRACE}
    assert [each.span.parent_span_id.hex() for each in told if each.name == "pod start"] == [SPAN]


@pytest.mark.root
async def test_a_creation_that_is_given_up_is_told_with_its_stages(
    traced: Tasks, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.hangs.add("CreateContainer")
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        creating = asyncio.create_task(traced.create_pod())
        await until(lambda: "CreateContainer" in agent.calls)
        await traced.delete("p1")
        with pytest.raises(StatusError) as given_up:
            await creating
        told = await asyncio.to_thread(collector.until, "pod start")
    assert given_up.value.code is Code.DEADLINE_EXCEEDED
    assert {each.name for each in told if each.failed} >= {"pod start", "request", "create"}
    assert "kata: machine" in tree(told)
    assert [each.span.status.message for each in told if each.name == "pod start"] == ["given up"]


@pytest.mark.root
async def test_what_the_console_said_last_is_kept_from_the_collector(
    traced: Tasks, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor.error = HypervisorError("qemu", "it ended", evidence=("a secret",))
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with pytest.raises(StatusError, match="a secret"):
            await traced.create_pod()
        told = await asyncio.to_thread(collector.until, "pod start")
    assert [each.span.status.message for each in told if each.name == "pod start"] == ["qemu failed: it ended"]
    assert "secret" not in str(told)


@pytest.mark.root
async def test_without_the_extra_pods_run_and_that_is_told_once(
    traced: Tasks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "kata_py.shim.otlp")
    monkeypatch.delattr(sys.modules["kata_py.shim"], "otlp")
    await traced.create_pod()
    await traced.start("p1")
    await traced.create_in_pod("c2")
    await traced.start("c2")
    await traced.service.drained(5.0)
    [told] = [each for each in caplog.messages if each.startswith(LOST)]
    assert "the extra otel is not installed (pip install kata-py[otel])" in told


@pytest.mark.root
async def test_a_collector_that_refuses_is_told_of(
    traced: Tasks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting(status=401) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        await traced.create_pod()
        await traced.start("p1")
        await traced.service.drained(5.0)
    assert [each for each in caplog.messages if each.startswith(LOST)] == [
        f"{LOST}the collector at OTEL_EXPORTER_OTLP_ENDPOINT or localhost:4318 does not take them by OTLP over HTTP"
    ]


@pytest.mark.root
async def test_whoever_ends_waits_for_a_slow_collector_no_longer_than_it_likes(
    traced: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, never = threading.Event(), threading.Event()

    def send(*args: object) -> bool:
        sending.set()
        return never.wait(5.0)

    monkeypatch.setattr(otlp, "send", send)
    await traced.create_pod()
    await traced.start("p1")
    await asyncio.to_thread(sending.wait, 5.0)
    began = asyncio.get_running_loop().time()
    await traced.service.drained(0.1)
    assert asyncio.get_running_loop().time() - began < 2.0
    never.set()
    await traced.service.drained(5.0)


@pytest.mark.root
async def test_what_a_collector_cannot_keep_up_with_is_dropped(
    traced: Tasks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    never = threading.Event()
    monkeypatch.setattr(otlp, "send", lambda *args: never.wait(10.0))
    await traced.create_pod()
    await traced.start("p1")
    for number in range(tracing.WAITING):
        await traced.create_in_pod(f"c{number}")
        await traced.start(f"c{number}")
    assert [each for each in caplog.messages if "is dropped: the collector is behind" in each] == [
        f"the trace of c{tracing.WAITING - 1} is dropped: the collector is behind"
    ]
    never.set()
    await traced.service.drained(5.0)
