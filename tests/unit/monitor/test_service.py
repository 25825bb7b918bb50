"""The monitor's pages over HTTP, with shims behind real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import sys
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kata_py.http.server import Answer
from kata_py.monitor import scrape
from kata_py.monitor.errors import MonitorError
from kata_py.sandbox import sockets
from tests.monitor import Monitor, monitoring
from tests.tasks import until
from tests.unit.monitor.conftest import Shims, failing, hanging

LOAD = '# HELP kata_guest_load Load.\n# TYPE kata_guest_load gauge\nkata_guest_load{item="load1"} %s\n'
RUNNING, FAILED = "kata_monitor_running_shim_count", "kata_monitor_scrape_failed_count"


async def test_the_figures_of_all_sandboxes_are_told_with_the_monitors_own(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", LOAD % 1)
    await shims.add("bb", LOAD % 2)
    reply = await monitor.get("/metrics")
    assert (reply.status, reply.fields["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    assert all(name.startswith("kata_") for name in families)
    load = {sample.labels["sandbox_id"]: sample.value for sample in families["kata_guest_load"].samples}
    assert load == {"aa": 1, "bb": 2}
    assert families["kata_monitor_scrape_durations_histogram_milliseconds"].type == "histogram"
    assert {"kata_monitor_process_open_fds", "kata_monitor_process_cpu_seconds"} <= set(families)
    assert reply.value(RUNNING) == 2
    assert reply.value("kata_monitor_scrape_count") == 1
    assert reply.value('kata_monitor_scrape_durations_histogram_milliseconds_bucket{le="+Inf"}') == 1
    assert reply.value(FAILED) == 0
    assert (await monitor.get("/metrics")).value("kata_monitor_scrape_count") == 2


async def test_nothing_is_asked_of_a_shim_before_somebody_asks_the_monitor(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", LOAD % 1)
    assert (await monitor.get("/sandboxes")).text == "aa\n"
    assert shims.asked == []


async def test_an_answer_is_compressed_for_those_who_take_it(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", LOAD % 1)
    plain = await monitor.get("/metrics?filter_family=kata_guest_load", Accept_Encoding="br, gzip;q=0")
    assert "Content-Encoding" not in plain.fields
    packed = await monitor.get("/metrics?filter_family=kata_guest_load", Accept_Encoding="deflate, GZIP;q=0.5")
    assert (packed.fields["Content-Encoding"], packed.fields["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(packed.body) == plain.body


async def test_one_sandbox_can_be_asked_for_and_some_families(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", f"{LOAD % 1}kata_shim_fds 3\n")
    await shims.add("bb", LOAD % 2)
    one = (await monitor.get("/metrics?sandbox=aa")).text
    assert one == LOAD.replace("%s", "1").replace("}", ',sandbox_id="aa"}') + 'kata_shim_fds{sandbox_id="aa"} 3\n'
    assert shims.asked == [("aa", "/metrics")]
    some = (await monitor.get("/metrics?filter_family=kata_shim_fds,kata_monitor_running_shim_count")).text
    assert [line for line in some.splitlines() if not line.startswith("#")] == [
        "kata_monitor_running_shim_count 2", 'kata_shim_fds{sandbox_id="aa"} 3'
    ]  # fmt: skip


async def test_a_sandboxs_agent_is_told(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", "vsock://3:1024")
    assert (await monitor.get("/agent-url?sandbox=aa")).text == "vsock://3:1024\n"
    assert shims.asked == [("aa", "/agent-url")]


@pytest.mark.parametrize("page", ["/metrics", "/agent-url", "/debug/vars"])
async def test_an_unknown_sandbox_is_not_found(monitor: Monitor, page: str) -> None:
    reply = await monitor.get(f"{page}?sandbox=..%2Fzz")
    assert (reply.status, reply.text) == (
        404, "there is no sandbox '../zz' on this node; /sandboxes lists those there are\n"
    )  # fmt: skip


async def test_a_shim_that_fails_is_told_to_whoever_asks_for_its_sandbox(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", failing)
    for page in ("/metrics", "/agent-url"):
        reply = await monitor.get(f"{page}?sandbox=aa")
        assert (reply.status, reply.text) == (502, "the shim of sandbox aa: it answered 500: the agent is gone\n")


async def test_a_node_without_sandboxes_has_none(tmp_path: Path) -> None:
    async with monitoring(tmp_path / "absent") as monitor:
        assert (await monitor.get("/sandboxes")).body == b""
        assert (await monitor.get("/metrics")).value(RUNNING) == 0


async def test_sandboxes_of_both_runtimes_are_found(shims: Shims) -> None:
    await shims.add("go/aa", LOAD % 1)
    await shims.add("rs/bb", LOAD % 2)
    async with monitoring(shims.root / "go", shims.root / "rs") as monitor:
        assert (await monitor.get("/sandboxes")).text == "aa\nbb\n"


async def test_a_shim_that_hangs_costs_its_bound_and_is_counted_and_told_of_once(
    shims: Shims, monitor: Monitor, bound: float, caplog: pytest.LogCaptureFixture
) -> None:
    hung = [f"hung{number}" for number in range(5)]
    for sandbox in hung:
        await shims.add(sandbox, hanging)
    await shims.add("well", LOAD % 1)
    reply = await monitor.get("/metrics")
    assert reply.value('kata_guest_load{item="load1",sandbox_id="well"}') == 1
    assert (reply.value(RUNNING), reply.value(FAILED)) == (6, 5)
    assert (await monitor.get("/metrics")).value(FAILED) == 10
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sorted(told) == [f"the shim of sandbox {sandbox}: no answer within {bound:g} s" for sandbox in hung]


async def test_all_shims_are_asked_at_once(shims: Shims, monitor: Monitor) -> None:
    there = asyncio.Barrier(30)

    async def together() -> Answer:
        await there.wait()
        return Answer(b"kata_shim_fds 1\n")

    for number in range(30):
        await shims.add(f"s{number}", together)
    reply = await monitor.get("/metrics")
    assert (reply.value(RUNNING), reply.value(FAILED)) == (30, 0)
    assert reply.text.count("kata_shim_fds{") == 30


async def test_a_shim_that_ended_since_it_was_found_is_no_failure(
    shims: Shims, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shims.add("well", LOAD % 1)
    async with await asyncio.start_unix_server(lambda reader, writer: None, shims.path("killed")):
        pass
    found = {**sockets.serving((shims.root,)), "removed": shims.root / "removed" / "socket"}
    assert set(found) == {"killed", "removed", "well"}
    monkeypatch.setattr(sockets, "serving", lambda roots: found)
    reply = await monitor.get("/metrics")
    assert (reply.value(RUNNING), reply.value(FAILED)) == (1, 0)
    assert 'sandbox_id="well"' in reply.text
    gone = await monitor.get("/metrics?sandbox=killed")
    assert (gone.status, gone.text) == (404, "sandbox killed has gone: nobody listens at its socket\n")


async def test_an_endless_answer_is_bounded_and_harms_no_other_sandbox(
    shims: Shims, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "ANSWER_MAX", 1 << 16)
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"kata_guest_x 1\n" * 1000)
                sent += 15000
                await writer.drain()
        except OSError:
            writer.close()

    async with await asyncio.start_unix_server(flood, shims.path("flood")):
        await shims.add("large", "kata_guest_x 1\n" * 10000)
        await shims.add("well", LOAD % 1)
        reply = await monitor.get("/metrics")
        await until(lambda: sent)
    assert reply.value('kata_guest_load{item="load1",sandbox_id="well"}') == 1
    assert (reply.value(RUNNING), reply.value(FAILED)) == (3, 2)
    assert "kata_guest_x" not in reply.text
    assert sent < 1 << 20


async def test_a_guest_can_neither_spoil_the_answer_nor_speak_for_another(shims: Shims, monitor: Monitor) -> None:
    lies = (
        'kata_guest_load{item="load1",sandbox_id="well"} 99\nkata_monitor_running_shim_count 0\nkata_guest_x{ \n\xff\n'
    )
    await shims.add("liar", lies)
    await shims.add("well", LOAD % 1)
    reply = await monitor.get("/metrics")
    assert list(text_string_to_metric_families(reply.text))
    assert reply.value('kata_guest_load{item="load1",sandbox_id="well"}') == 1
    assert "liar" not in reply.text


async def test_an_answer_that_is_no_text_is_read_as_far_as_it_is(shims: Shims, monitor: Monitor) -> None:
    async def binary() -> Answer:
        return Answer(b"\xff\xfe\x00\nkata_shim_fds 1\n")

    await shims.add("aa", binary)
    assert (await monitor.get("/metrics?sandbox=aa")).text == 'kata_shim_fds{sandbox_id="aa"} 1\n'


async def test_the_first_page_lists_the_others(monitor: Monitor) -> None:
    text = (await monitor.get("/")).text
    paths = ["/", "/metrics", "/sandboxes", "/agent-url", "/debug/vars", "/debug/pprof/"]
    assert [line.split()[0] for line in text.splitlines()] == paths


async def test_it_tells_of_itself(monitor: Monitor) -> None:
    reply = await monitor.get("/debug/vars")
    assert (reply.status, reply.fields["Content-Type"]) == (200, "application/json")
    assert json.loads(reply.text)["cmdline"] == sys.orig_argv
    assert "request at 127.0.0.1:0" in (await monitor.get("/debug/pprof/goroutine")).text
    heap = await monitor.get("/debug/pprof/heap")
    assert (heap.status, heap.text.partition(";")[0]) == (404, "this is Python, and has not all that Go has")


@pytest.mark.parametrize(
    ("target", "asked", "body", "status", "kind"),
    [
        ("/debug/vars?sandbox=aa", "/debug/vars", b"{}", 200, "application/json"),
        (
            "/debug/pprof/profile?sandbox=aa&seconds=1",
            "/debug/pprof/profile",
            b"\x1f\x8b",
            200,
            "application/octet-stream",
        ),
        ("/debug/pprof/a%20b?sandbox=aa", "/debug/pprof/a b", b"none", 404, "text/plain; charset=utf-8"),
    ],
)
async def test_a_shim_tells_of_itself_through_it(
    shims: Shims, monitor: Monitor, target: str, asked: str, body: bytes, status: int, kind: str
) -> None:
    async def answer() -> Answer:
        return Answer(body, status=HTTPStatus(status))

    await shims.add("aa", answer)
    reply = await monitor.get(target)
    assert (reply.status, reply.body, reply.fields["Content-Type"]) == (status, body, kind)
    assert shims.asked == [("aa", asked)]


@pytest.mark.parametrize(
    ("target", "method", "host", "status", "words"),
    [
        ("/nothing", "GET", "localhost", 404, "no such path; there are: /, /metrics"),
        ("/agent-url", "GET", "localhost", 400, "the parameter sandbox is missing"),
        ("/metrics", "POST", "localhost", 405, "/metrics has GET alone, not POST"),
        ("/metrics", "GET", "", 400, "the field Host is missing"),
        ("/metrics", "GET", "attacker.example:8090", 421, "'attacker.example' is no name of this monitor"),
    ],
)
async def test_what_cannot_be_answered_is_told_why(
    monitor: Monitor, target: str, method: str, host: str, status: int, words: str
) -> None:
    reply = await monitor.get(target, method=method, host=host)
    assert reply.status == status
    assert words in reply.text
    assert ("Allow" in reply.fields) == (status == 405)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8090", "127.0.0.1:8090", "[::1]:8090", "10.0.0.1"])
async def test_a_monitor_of_the_loopback_is_asked_by_these_names(monitor: Monitor, host: str) -> None:
    assert (await monitor.get("/sandboxes", host=host)).status == 200


async def test_a_monitor_that_is_open_to_others_is_asked_by_any_name(shims: Shims) -> None:
    async with monitoring(shims.root, host="0.0.0.0") as monitor:
        assert (await monitor.get("/sandboxes", host="node1.example")).status == 200


async def test_an_address_that_cannot_be_listened_at_is_told() -> None:
    with pytest.raises(MonitorError, match=r"192\.0\.2\.1:0 cannot be listened at"):
        async with monitoring(host="192.0.2.1"):
            raise AssertionError("it was served")


async def test_a_browser_gets_the_page_and_others_the_list(shims: Shims, monitor: Monitor) -> None:
    await shims.add("aa", "")
    plain = await monitor.get("/", Accept="*/*")
    assert plain.text.startswith("/ ")
    reply = await monitor.get("/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert reply.fields["Content-Type"] == "text/html; charset=utf-8"
    assert reply.fields["Content-Security-Policy"].startswith("default-src 'none'")
    assert "another runtime&#x27;s" in reply.text
    assert shims.asked == []
