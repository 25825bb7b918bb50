"""The agent's service: its families of calls as one, with errors answered as statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kata_agent.rpc.boundary import answering, guarded, traced
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
    from kata_agent.cmdline import Parameters
    from kata_agent.container.reaper import Reaper
    from kata_agent.policy.guard import Guard
    from kata_agent.sandbox import Sandbox
    from kata_agent.trace import Tracer
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
    """grpc.AgentService, whole.

    Args:
        tracer: Keeps spans of the calls; None keeps none.

    Attributes:
        tracer: As the argument.
    """

    def __init__(
        self, sandbox: Sandbox, reaper: Reaper, guard: Guard, parameters: Parameters, tracer: Tracer | None = None
    ) -> None:
        super().__init__(sandbox, reaper, guard, parameters)
        self.tracer = tracer

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """As generated, behind the policy and the boundary."""
        return {
            name: (traced(answering(guarded(entry[0], self.guard)), self.tracer), *entry[1:])
            for name, entry in super().ttrpc_methods().items()
        }
