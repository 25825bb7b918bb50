"""What is told of a stage that failed, and what is kept besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError, StageFailed, Unimplemented
from kata_py.sandbox.record import Record
from kata_py.sandbox.stage import Stages
from kata_py.ttrpc.testing import channel
from tests.drivers.memory import Healthy
from tests.unit.sandbox.test_dial import BootingVm


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return Stages(Record.create("one", namespace="k8s.io", bundle=tmp_path, root=tmp_path / "sbs"))


class TalkingVm(BootingVm):
    def console_tail(self) -> tuple[str, ...]:
        return ("console",)


async def failed(stages: Stages, error: Exception, budget: float | None = None) -> StageFailed:
    with pytest.raises(StageFailed) as caught:
        async with stages.stage("create", budget):
            raise error
    return caught.value


async def test_an_agent_that_does_not_know_a_call_is_asked_for_its_version(stages: Stages, tmp_path: Path) -> None:
    stages.vm = BootingVm(tmp_path)
    async with channel(Healthy()) as client:
        stages.agent = Agent(client)
        with pytest.raises(StageFailed, match="the agent is of version 'memory'"):
            async with stages.stage("create"):
                await stages.agent.remove_container("one")
        ours = await failed(stages, Unimplemented("no such thing here"))
    assert ours.cause == "no such thing here"


async def test_an_agent_that_does_not_even_tell_its_version_is_told_so(stages: Stages, tmp_path: Path) -> None:
    stages.vm = BootingVm(tmp_path)
    async with channel() as client:
        stages.agent = Agent(client)
        with pytest.raises(StageFailed, match="the agent does not tell its version: "):
            async with stages.stage("create"):
                await stages.agent.remove_container("one")


async def test_what_the_agent_tells_itself_is_kept_with_the_last_lines(stages: Stages, tmp_path: Path) -> None:
    stages.vm, stages.log = TalkingVm(tmp_path), ["agent: log"]
    error = await failed(stages, SandboxError("agent: no"))
    assert (error.evidence, error.context) == ((), ("console", "agent: log"))


async def test_a_hypervisor_that_was_too_slow_tells_its_own_budget(stages: Stages) -> None:
    error = await failed(stages, HypervisorError("qemu", "no greeting", budget=10.0), 60.0)
    assert (error.stage, error.budget) == ("qemu", 10.0)
