"""A policy between the host and the agent."""

from __future__ import annotations

import pytest

from kata_protos import agent_pb2 as agent
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import TIMEOUT, Pod

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
