"""What the agent tells of its own doing."""

from __future__ import annotations

import pytest

from kata_protos import agent_pb2
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError
from tests.drivers.pod import TIMEOUT, Pod
from tests.tasks import until

pytestmark = pytest.mark.root


async def refused_start(pod: Pod, id: str) -> None:
    """Have it log a line of level info."""
    with pytest.raises(SandboxError):
        await Agent(pod.client).start_container(id)


async def test_the_log_can_be_made_to_say_more_or_less_at_any_time(pod: Pod) -> None:
    agent = Agent(pod.client)
    await agent.set_log_level("error")
    await refused_start(pod, "unheard")
    await agent.set_log_level("debug")
    await refused_start(pod, "heard")
    await until(lambda: any("heard" in line for line in pod.vm.console_tail()), TIMEOUT)
    said = [line for line in pod.vm.console_tail() if "StartContainer" in line]
    assert len(said) == 1, said


async def test_a_level_that_there_is_not_is_refused(pod: Pod) -> None:
    with pytest.raises(SandboxError, match="the level is one of debug, info, warning, error, not 'loud'"):
        await Agent(pod.client).set_log_level("loud")


async def test_an_agent_that_was_not_asked_to_trace_has_no_spans(pod: Pod) -> None:
    assert list(await Agent(pod.client).take_spans([b"whatever"], TIMEOUT)) == []


async def test_a_policy_that_does_not_know_these_calls_denies_them(pod: Pod) -> None:
    policy = "package agent_policy\ndefault SetPolicyRequest := true"
    await pod.calls.SetPolicy(agent_pb2.SetPolicyRequest(policy=policy), timeout=TIMEOUT)
    for call in (Agent(pod.client).set_log_level("debug"), Agent(pod.client).take_spans([], TIMEOUT)):
        with pytest.raises(SandboxError, match="Request: internal error"):
            await call
