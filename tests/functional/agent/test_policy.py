"""A policy between the host and the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kata_protos import agent_pb2 as agent
from kata_protos.agent_ttrpc import AgentClient
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError, TtrpcError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import TIMEOUT, Pod, machine, sandbox_request

pytestmark = pytest.mark.root

ALL = ("CreateContainer", "StartContainer", "RemoveContainer", "WaitProcess", "SignalProcess", "SetPolicy")


async def _set(pod: Pod, *rules: str) -> None:
    text = "\n".join(["package agent_policy", *(f"default {name}Request := true" for name in ALL), *rules])
    await pod.calls.SetPolicy(agent.SetPolicyRequest(policy=text), timeout=TIMEOUT)


async def test_what_the_policy_denies_is_not_done(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await _set(pod, "ExecProcessRequest := false")

    with pytest.raises(StatusError, match="ExecProcessRequest is blocked by policy") as refusal:
        await pod.exec("ctr", "exec", "true")
    assert refusal.value.code is Code.PERMISSION_DENIED
    with pytest.raises(StatusError, match="StatsContainerRequest: internal error") as refusal:
        await pod.stats("ctr")
    assert refusal.value.code is Code.INTERNAL


async def test_output_that_may_not_be_read_is_empty_and_stops_nobody(pod: Pod) -> None:
    await _set(pod, "ReadStreamRequest := false")
    await pod.run("ctr", "sh", "-c", "echo secret; exit 3")

    assert await pod.read("ctr") == b""
    assert await pod.wait("ctr") == 3


async def test_output_that_may_not_be_read_is_taken_however_much_it_is(pod: Pod) -> None:
    await _set(pod, "ReadStreamRequest := false")
    await pod.run("ctr", "sh", "-c", "yes secret | head -c 1000000; exit 3")

    assert await pod.read("ctr") == b""
    assert await pod.wait("ctr") == 3


async def test_a_bad_policy_is_refused_and_the_one_before_stays(pod: Pod) -> None:
    await _set(pod, "StatsContainerRequest := false")

    with pytest.raises(StatusError, match="not a policy") as refusal:
        await pod.calls.SetPolicy(agent.SetPolicyRequest(policy="package agent_policy\nX {"), timeout=TIMEOUT)
    assert refusal.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(StatusError, match="StatsContainerRequest is blocked by policy"):
        await pod.stats("ctr")


async def test_a_policy_may_be_the_last(pod: Pod) -> None:
    await pod.calls.SetPolicy(agent.SetPolicyRequest(policy="package agent_policy\nSetPolicyRequest := false"))

    with pytest.raises(StatusError, match="SetPolicyRequest is blocked by policy") as refusal:
        await _set(pod)
    assert refusal.value.code is Code.PERMISSION_DENIED


async def test_a_policy_of_the_guests_own_is_there_before_the_first_call(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top / "policy.rego").write_text("package agent_policy\ndefault CreateSandboxRequest := false")
    monkeypatch.setenv("KATA_AGENT_POLICY_FILE", str(top / "policy.rego"))
    async with machine(top) as (vm, _), connect(vm.agent, timeout=TIMEOUT) as client:
        with pytest.raises(StatusError, match="CreateSandboxRequest is blocked by policy"):
            await AgentClient(client).CreateSandbox(sandbox_request(), timeout=TIMEOUT)


async def test_an_agent_that_lacks_its_policy_serves_nobody_and_ends(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KATA_AGENT_POLICY_FILE", str(top / "none.rego"))
    async with machine(top) as (vm, _), connect(vm.agent, timeout=TIMEOUT) as client:
        with pytest.raises((StatusError, TtrpcError)):
            await AgentClient(client).CreateSandbox(sandbox_request(), timeout=TIMEOUT)
        async with asyncio.timeout(TIMEOUT):
            await vm.wait()
        assert any("no policy, no service" in line for line in vm.console_tail())
