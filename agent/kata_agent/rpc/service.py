"""The agent's service: its families of calls as one, with errors answered as statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from kata_agent.errors import Unimplemented
from kata_agent.rpc.boundary import Calls, answering, guarded
from kata_agent.rpc.container import ContainerCalls
from kata_agent.rpc.file import FileCalls
from kata_agent.rpc.guest import GuestCalls
from kata_agent.rpc.memory import MemoryCalls
from kata_agent.rpc.metrics import MetricsCalls
from kata_agent.rpc.network import NetworkCalls
from kata_agent.rpc.policy import PolicyCalls
from kata_agent.rpc.process import ProcessCalls
from kata_agent.rpc.sandbox import SandboxCalls
from kata_agent.rpc.stream import StreamCalls
from kata_agent.rpc.volume import VolumeCalls
from kata_py.ttrpc.context import Context

if TYPE_CHECKING:
    from kata_py.ttrpc.service import Entry


async def _unimplemented(self: Calls, request: object, context: Context) -> NoReturn:
    raise Unimplemented(f"{context.method} is not supported by this agent")


class OtherCalls(Calls):
    """Calls of the protocol that this agent does not have."""

    UpdateContainer = PauseContainer = ResumeContainer = _unimplemented
    GetDiagnosticData = _unimplemented
    GetOOMEvent = _unimplemented


class Agent(
    SandboxCalls,
    ContainerCalls,
    ProcessCalls,
    StreamCalls,
    GuestCalls,
    NetworkCalls,
    MemoryCalls,
    FileCalls,
    VolumeCalls,
    MetricsCalls,
    PolicyCalls,
    OtherCalls,
):
    """grpc.AgentService, whole."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """As generated, behind the policy and the boundary."""
        return {
            name: (answering(guarded(entry[0], self.guard)), *entry[1:])
            for name, entry in super().ttrpc_methods().items()
        }
