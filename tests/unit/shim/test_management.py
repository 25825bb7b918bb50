"""The management API over a fake agent: forms, statuses, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from kata_protos import agent_pb2
from kata_py.monitor.exposition import Families
from kata_py.shim import management, overhead
from kata_py.shim.overhead import Usage
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle
from tests.drivers.memory import MemoryVm
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, make_configuration, serving

pytestmark = pytest.mark.root

BOUND = 10.0  # seconds, for what takes none


class Agent(FakeAgent):
    """The fake with what the API asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = {False: b"v4", True: b"v6"}
        self.policy = ""

    async def GetIPTables(
        self, request: agent_pb2.GetIPTablesRequest, context: Context
    ) -> agent_pb2.GetIPTablesResponse:
        return agent_pb2.GetIPTablesResponse(data=self.rules[request.is_ipv6])

    async def SetIPTables(
        self, request: agent_pb2.SetIPTablesRequest, context: Context
    ) -> agent_pb2.SetIPTablesResponse:
        self.rules[request.is_ipv6] = request.data
        return agent_pb2.SetIPTablesResponse()

    async def SetPolicy(self, request: agent_pb2.SetPolicyRequest, context: Context) -> Empty:
        self.policy = request.policy
        return Empty()

    async def GetMetrics(self, request: agent_pb2.GetMetricsRequest, context: Context) -> agent_pb2.Metrics:
        told = "# TYPE go_x gauge\ngo_x 1\nkata_shim_fds 9999\nprocess_open_fds 9999\nkata_shim_process_open_fds 9999\n"
        return agent_pb2.Metrics(metrics=told)


class Api:
    """A sandbox's API and its client."""

    def __init__(self, tasks: Tasks, agent: Agent) -> None:
        self.tasks = tasks
        self.agent = agent

    async def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """The answer's status and body."""
        path = self.tasks.paths.records / "c1" / management.SOCKET
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"{method} {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            async with asyncio.timeout(20):
                answer = await reader.read()
        finally:
            writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), content


@pytest.fixture
async def agent() -> FakeAgent:
    return Agent()


@pytest.fixture
async def api(top: Path, opener: MemoryOpener, agent: Agent) -> AsyncIterator[Api]:
    hypervisor = FakeHypervisor(agent)
    async with serving(top, lambda configuration: hypervisor, opener) as tasks:
        await tasks.run()
        yield Api(tasks, agent)


async def test_the_agents_address_is_told(api: Api) -> None:
    assert await api.request("GET", "/agent-url") == (200, f"unix://{api.tasks.top}/vm/c1/agent.sock".encode())


async def test_whether_the_agent_answers_is_told_within_a_bound(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await api.request("GET", "/agent-check") == (200, b"")
    monkeypatch.setattr(management, "CHECK_TIMEOUT", 0.1)
    api.agent.hangs.add("Check")
    status, said = await api.request("GET", "/agent-check")
    assert (status, b"agent" in said) == (500, True)
    api.agent.release()


async def test_rules_of_both_families_are_read_and_written(api: Api) -> None:
    assert await api.request("PUT", "/iptables", b"new") == (200, b"")
    assert await api.request("GET", "/iptables") == (200, b"new")
    assert await api.request("GET", "/ip6tables") == (200, b"v6")


async def test_a_policy_is_text(api: Api) -> None:
    assert await api.request("PUT", "/policy", b"package p") == (200, b"")
    assert api.agent.policy == "package p"
    assert (await api.request("PUT", "/policy", b"\xff"))[0] == 400
    assert (await api.request("PUT", "/policy"))[0] == 400
    assert api.agent.policy == "package p"


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "told"),
    [
        ("GET", "/", b"", 404, "/agent-url, /agent-check, /metrics"),
        ("GET", "/direct-volume", b"", 404, "no such path"),
        ("POST", "/agent-url", b"", 501, "/agent-url has GET alone, not POST"),
        ("DELETE", "/iptables", b"", 501, "/iptables has GET, PUT alone"),
        ("GET", "/policy", b"", 501, "/policy has PUT alone"),
        ("GET", "/direct-volume/resize", b"", 501, "has POST alone"),
        ("GET", "/direct-volume/stats", b"", 400, "parameter path is missing"),
        ("GET", "/direct-volume/stats?path=%2Fdev%2Fx", b"", 500, "c1 has no direct-assigned volume /dev/x"),
        ("GET", "/direct-volume/stats?path=%252Fdev%252Fx", b"", 500, "c1 has no direct-assigned volume /dev/x"),
        ("POST", "/direct-volume/resize", b"", 400, "expected"),
        ("POST", "/direct-volume/resize", b"[]", 400, "expected"),
        ("POST", "/direct-volume/resize", b'{"VolumePath": 1, "Size": 1}', 400, "expected"),
        ("POST", "/direct-volume/resize", b'{"VolumePath": "/x", "Size": true}', 400, "a number of bytes"),
        ("POST", "/direct-volume/resize", b'{"VolumePath": "/x", "Size": -1}', 400, "a number of bytes"),
        ("POST", "/direct-volume/resize", b"[" * 100000, 400, "expected"),
        ("POST", "/direct-volume/resize", b'{"VolumePath": "/x", "Size": 1}', 500, "no direct-assigned volume /x"),
    ],
)
async def test_what_cannot_be_done_has_upstreams_status(
    api: Api, method: str, target: str, body: bytes, status: int, told: str
) -> None:
    code, content = await api.request(method, target, body)
    assert code == status
    assert told in content.decode()


async def test_an_error_of_the_agents_is_passed_on_in_its_words(api: Api) -> None:
    api.agent.fails["GetIPTables"] = StatusError(Code.INTERNAL, "no iptables-save here")
    assert await api.request("GET", "/iptables") == (500, b"agent: no iptables-save here\n")


async def test_an_agent_whose_level_cannot_be_set_is_told_of_and_the_shims_is_set(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    status, told = await api.request("PUT", "/log-level", b"warning")
    assert status == 200
    assert told.startswith(b"the agent in the guest logs as before: this guest's agent has no such call: ")
    assert await api.request("GET", "/log-level") == (200, b"warning\n")


async def test_figures_are_the_programs_and_what_the_agent_may_tell(api: Api) -> None:
    status, text = await api.request("GET", "/metrics")
    assert status == 200
    lines = text.decode().splitlines()
    assert {"kata_agent_go_x 1", "# TYPE kata_shim_threads gauge", "# TYPE kata_hypervisor_io_stat gauge"} <= set(lines)
    assert "kata_shim_fds 9999" not in lines


_ACTIONS = {
    *("create", "start", "delete", "exec", "resize_pty", "state", "pause", "resume", "kill", "pids", "close_io"),
    *("checkpoint", "connect", "shutdown", "stats", "update", "wait"),
}


async def test_each_call_of_the_manager_has_upstreams_label(api: Api) -> None:
    for name, (_, request, *_) in api.tasks.service.ttrpc_methods().items():
        with suppress(StatusError):  # nobody is called so, and the call is counted all the same
            await getattr(api.tasks.client, name)(request(id="nobody"), timeout=BOUND)
    _, text = await api.request("GET", "/metrics")
    counted = re.findall(r'^kata_shim_rpc_durations_histogram_milliseconds_count{action="(\w+)"}', text.decode(), re.M)
    assert set(counted) == _ACTIONS
    assert len(_ACTIONS) == 17


async def test_a_monitor_tells_the_shims_process_from_the_agents(api: Api) -> None:
    _, text = await api.request("GET", "/metrics")
    families = Families()
    families.add(text.decode(), {})
    samples = [line for line in families.text().splitlines() if re.match(r"\w*process_open_fds ", line)]
    agents, shims = samples
    assert agents == "kata_agent_process_open_fds 9999"
    assert re.fullmatch(r"kata_shim_process_open_fds [1-9][0-9]{0,2}", shims)


async def test_a_machine_elsewhere_has_no_hypervisor_here(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryVm, "pid", property(lambda vm: os.getpid()))  # as `RemoteVm`'s
    _, text = await api.request("GET", "/metrics")
    families = {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE ")}
    assert {"kata_shim_fds", "kata_shim_proc_status", "kata_agent_go_x"} <= families
    assert not [name for name in families if name.startswith(("kata_hypervisor_", "kata_shim_pod_overhead"))]


async def test_the_pods_overhead_is_told_without_what_its_containers_use(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"shim": Usage(1.0, 5 << 20), "hypervisor": Usage(9.0, 200 << 20)}
    monkeypatch.setattr(overhead, "of_programs", lambda programs: usage)
    api.agent.stats.cgroup_stats.memory_stats.usage.usage = 50 << 20
    _, text = await api.request("GET", "/metrics")
    assert f"\nkata_shim_pod_overhead_memory_in_bytes {155 << 20}\n" in text.decode()


@pytest.mark.parametrize(
    ("code", "told"), [(Code.NOT_FOUND, "kata_shim_pod_overhead_memory_in_bytes"), (Code.INTERNAL, "kata_shim_fds")]
)
async def test_an_ended_container_uses_nothing_and_an_unknown_use_is_not_made_up(
    api: Api, code: Code, told: str
) -> None:
    api.agent.fails["StatsContainer"] = StatusError(code, "no")
    _, text = await api.request("GET", "/metrics")
    assert told in text.decode()
    assert ("kata_shim_pod_overhead" in text.decode()) is (code is Code.NOT_FOUND)


async def test_an_agent_that_hangs_costs_its_own_figures_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "METRICS_TIMEOUT", 0.1)
    api.agent.hangs.add("GetMetrics")
    status, text = await api.request("GET", "/metrics")
    assert (status, b"kata_agent" in text, b"kata_shim_fds" in text) == (200, False, True)
    api.agent.release()


async def test_however_many_requests_hang_no_task_waits_for_them(api: Api) -> None:
    api.agent.hangs.add("GetIPTables")
    stuck = [asyncio.create_task(api.request("GET", "/iptables")) for _ in range(20)]
    async with asyncio.timeout(2):
        await api.tasks.state()
        await api.tasks.kill(0)
    api.agent.release()
    assert {(await each)[0] for each in stuck} == {200, 503}


async def test_an_agent_without_figures_is_asked_once(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    api.agent.fails["GetMetrics"] = StatusError(Code.NOT_FOUND, "/grpc.AgentService/GetMetrics is not supported")
    for _ in range(2):
        assert (await api.request("GET", "/metrics"))[0] == 200
    assert api.agent.calls.count("GetMetrics") == 1
    assert caplog.messages == ["the agent has no metrics: agent: /grpc.AgentService/GetMetrics is not supported"]


async def test_the_socket_is_noted_in_the_bundle_and_on_record_and_goes_with_the_sandbox(api: Api) -> None:
    noted = api.tasks.top / "bundles" / "c1" / "monitor_address"
    path = api.tasks.paths.records / "c1" / management.SOCKET
    assert noted.read_text() == f"unix://{path}"
    assert {str(noted), str(path)} <= {getattr(entry, "path", "") for entry in api.tasks.record().undo}
    await api.tasks.kill(9)
    await api.tasks.wait()
    await api.tasks.delete()
    assert not noted.exists()
    assert not path.exists()


async def test_a_sandbox_runs_without_its_api_where_the_socket_cannot_be(
    top: Path, opener: MemoryOpener, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    hypervisor = FakeHypervisor(agent)
    id = "x" * 76
    deep = top / ("d" * 20)
    deep.mkdir()
    async with serving(deep, lambda configuration: hypervisor, opener) as tasks:
        tasks.service._paths = tasks.paths.__class__(deep / "sbs", top / "m", top / "s", top / "b")
        await tasks.create(id, spec=bundle.spec(id, "rootfs", bundle.process(["true"])))
        await tasks.start(id)
        assert f"no management API for sandbox {id}" in caplog.text


async def test_a_policy_of_the_pod_comes_before_all_else_and_is_kept_from_the_guest(
    top: Path, opener: MemoryOpener, agent: Agent
) -> None:
    hypervisor = FakeHypervisor(agent)
    spec = bundle.spec("c1", "rootfs", bundle.process(["true"]))
    spec["annotations"] = {"io.katacontainers.config.agent.policy": "cGFja2FnZSBw", "mine": "stays"}
    async with serving(top, lambda configuration: hypervisor, opener) as tasks:
        await tasks.create("c1", spec=spec)
        assert agent.calls[0] == "SetPolicy"
        assert agent.policy == "package p"
        assert dict(agent.containers["c1"].OCI.Annotations) == {"mine": "stays"}
        assert "policy" in [span.name for span in tasks.record().timeline]


async def test_a_policy_that_the_agent_refuses_fails_the_start(top: Path, opener: MemoryOpener, agent: Agent) -> None:
    hypervisor = FakeHypervisor(agent)
    agent.fails["SetPolicy"] = StatusError(Code.PERMISSION_DENIED, "SetPolicyRequest is blocked by policy")
    spec = bundle.spec("c1", "rootfs", bundle.process(["true"]))
    spec["annotations"] = {"io.katacontainers.config.agent.policy": "cGFja2FnZSBw"}
    async with serving(top, lambda configuration: hypervisor, opener) as tasks:
        with pytest.raises(StatusError, match=r"policy failed after .*SetPolicyRequest is blocked by policy"):
            await tasks.create("c1", spec=spec)
        assert "CreateSandbox" not in agent.calls
        assert tasks.leftovers() == []


async def test_it_does_not_tell_of_itself_unless_it_may(api: Api) -> None:
    status, told = await api.request("GET", "/debug/pprof/goroutine")
    assert (status, b"needs enable_pprof in [runtime]" in told) == (404, True)


async def test_a_shim_that_may_tells_what_it_does(top: Path, opener: MemoryOpener, agent: Agent) -> None:
    hypervisor = FakeHypervisor(agent)
    runtime = replace(make_configuration().runtime, enable_pprof=True)
    configuration = replace(make_configuration(), runtime=runtime)
    async with serving(top, lambda configuration: hypervisor, opener, configuration=configuration) as tasks:
        await tasks.run()
        api = Api(tasks, agent)
        status, told = await api.request("GET", "/debug/pprof/goroutine")
        assert (status, b"task oom of c1\n" in told) == (200, True)
        assert (await api.request("POST", "/debug/vars"))[0] == 501
        assert (await api.request("GET", "/debug/pprof/heap"))[0] == 404
