"""The call that sets a policy."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context


class PolicyCalls(Calls):
    """What the agent answers from now on."""

    async def SetPolicy(self, request: agent_pb2.SetPolicyRequest, context: Context) -> Empty:
        """Replace the policy, if the one in force lets it."""
        await self.guard.replace(request.policy)
        return Empty()
