"""The agent's service: its families of calls as one, with errors answered as statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kata_agent.rpc.boundary import answering, guarded
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

if TYPE_CHECKING:
    from kata_py.ttrpc.service import Entry


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
):
    """grpc.AgentService, whole."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """As generated, behind the policy and the boundary."""
        return {
            name: (answering(guarded(entry[0], self.guard)), *entry[1:])
            for name, entry in super().ttrpc_methods().items()
        }
