"""Calls for the sandbox as a whole."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from kata_agent import modules
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context


class SandboxCalls(Calls):
    """Beginning and end of the sandbox."""

    async def CreateSandbox(self, request: agent_pb2.CreateSandboxRequest, context: Context) -> Empty:
        """Make what the containers share: namespaces, storages, resolv.conf, hooks."""
        for module in request.kernel_modules:
            await modules.load(self.reaper, module.name, module.parameters)
        await self.sandbox.create(
            request.hostname,
            request.dns,
            request.storages,
            hook_path=request.guest_hook_path,
        )
        return Empty()

    async def DestroySandbox(self, request: agent_pb2.DestroySandboxRequest, context: Context) -> Empty:
        """Remove all containers; the agent then ends, and with it the machine."""
        await self.sandbox.destroy()
        return Empty()
