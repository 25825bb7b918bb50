"""The policy that a pod brings, and the agent that is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_caa.errors import ForwarderError
from kata_caa.forwarder.policy import enforce
from kata_protos.agent_pb2 import SetPolicyRequest
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code

TEXT = "package agent_policy\n"


class Agent:
    """An agent that takes a policy, once, as one that denies SetPolicyRequest does."""

    def __init__(self, address: UnixAddress) -> None:
        self.address = address
        self.told: list[str] = []
        self.refusal: StatusError | None = None

    async def set_policy(self, payload: bytes, context: Context) -> bytes:
        self.told.append(SetPolicyRequest.FromString(payload).policy)
        if self.refusal is not None:
            raise self.refusal
        self.refusal = StatusError(Code.PERMISSION_DENIED, "SetPolicyRequest is blocked by policy")
        return b""


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(UnixAddress(str(tmp_path / "agent.sock")))
    server = Server()
    server.add_raw("grpc.AgentService", "SetPolicy", made.set_policy)
    await server.listen(made.address)
    yield made
    server.close()
    await server.wait_closed(5.0)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.rego"
    path.write_text(TEXT)
    return path


async def test_the_agent_is_told_once_whoever_is_started_anew(agent: Agent, policy: Path):
    for _ in range(2):
        await enforce(agent.address, policy)
    assert agent.told == [TEXT]


async def test_without_a_policy_nobody_is_told(agent: Agent, tmp_path: Path):
    await enforce(agent.address, tmp_path / "none")
    assert agent.told == []


@pytest.mark.parametrize(
    ("code", "said"), [(Code.INVALID_ARGUMENT, "line 3: no rule"), (Code.UNIMPLEMENTED, "no evaluator")]
)
async def test_a_policy_that_the_agent_does_not_take_ends_it(agent: Agent, policy: Path, code: Code, said: str):
    agent.refusal = StatusError(code, said)
    for _ in range(2):
        with pytest.raises(ForwarderError, match=f"not in force, and without it nothing is served: .*{said}"):
            await enforce(agent.address, policy)
    assert len(agent.told) == 2


async def test_an_agent_that_does_not_come_ends_it(policy: Path, tmp_path: Path):
    with pytest.raises(ForwarderError, match="not in force"):
        await enforce(UnixAddress(str(tmp_path / "nobody.sock")), policy, agent_timeout=0.2)


async def test_what_is_no_text_ends_it(agent: Agent, policy: Path):
    policy.write_bytes(b"\xff")
    with pytest.raises(ForwarderError, match="cannot be read"):
        await enforce(agent.address, policy)
