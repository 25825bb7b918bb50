"""Calls for processors, memory and swap that the host gives or takes."""

from __future__ import annotations

import asyncio

from google.protobuf.empty_pb2 import Empty

from kata_agent import hotplug, linux
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context


class MemoryCalls(Calls):
    """Hot-plugged processors and memory, swap; the mem-agent, which this agent has not."""

    async def OnlineCPUMem(self, request: agent_pb2.OnlineCPUMemRequest, context: Context) -> Empty:
        """Put hot-plugged processors, and memory unless told not to, online."""
        if request.nb_cpus:
            await hotplug.online_cpus(request.nb_cpus)
            await self.sandbox.processors_came()
        if not request.cpu_only:
            await asyncio.to_thread(hotplug.online_memory)
        return Empty()

    async def MemHotplugByProbe(self, request: agent_pb2.MemHotplugByProbeRequest, context: Context) -> Empty:
        """Tell the kernel of memory that it does not notice by itself."""
        await asyncio.to_thread(hotplug.probe_memory, request.memHotplugProbeAddr)
        return Empty()

    async def AddSwap(self, request: agent_pb2.AddSwapRequest, context: Context) -> Empty:
        """Swap to a disk, once it is there."""
        slots = request.PCIPath
        if not slots or not all(slot < 32 for slot in slots):
            raise InvalidArgument(f"not a PCI path: {list(slots)}")
        device = await self.sandbox.finder.virtio_block("/".join(f"{slot:02x}" for slot in slots))
        await asyncio.to_thread(linux.swap_on, device)
        return Empty()

    async def AddSwapPath(self, request: agent_pb2.AddSwapPathRequest, context: Context) -> Empty:
        """Swap to what is at a path."""
        await asyncio.to_thread(linux.swap_on, request.path)
        return Empty()

    async def MemAgentMemcgSet(self, request: agent_pb2.MemAgentMemcgConfig, context: Context) -> Empty:
        """Refuse, as an agent whose mem-agent is not enabled does."""
        raise AgentError("mem-agent is disabled")

    async def MemAgentCompactSet(self, request: agent_pb2.MemAgentCompactConfig, context: Context) -> Empty:
        """Refuse, as an agent whose mem-agent is not enabled does."""
        raise AgentError("mem-agent is disabled")
