"""Calls for the machine under the sandbox."""

from __future__ import annotations

import asyncio
import os
import time

from google.protobuf.empty_pb2 import Empty

from kata_agent import __version__, features, hotplug, linux
from kata_agent.device import handlers as device_handlers
from kata_agent.errors import InvalidArgument
from kata_agent.rpc.boundary import Calls
from kata_agent.storage.handlers import HANDLERS
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context


class GuestCalls(Calls):
    """Details, clock, randomness."""

    async def GetGuestDetails(
        self, request: agent_pb2.GuestDetailsRequest, context: Context
    ) -> agent_pb2.GuestDetailsResponse:
        """What this guest is and can do."""
        return agent_pb2.GuestDetailsResponse(
            mem_block_size_bytes=hotplug.memory_block_size() if request.mem_block_size else 0,
            support_mem_hotplug_probe=request.mem_hotplug_probe and (hotplug.MEMORY / "probe").exists(),
            agent_details=agent_pb2.AgentDetails(
                version=__version__,
                init_daemon=os.getpid() == 1,
                device_handlers=sorted(device_handlers.HANDLERS),
                storage_handlers=sorted(HANDLERS),
                supports_seccomp=True,
                extra_features=features.extra(),
            ),
        )

    async def SetGuestDateTime(self, request: agent_pb2.SetGuestDateTimeRequest, context: Context) -> Empty:
        """Set the clock."""
        if request.Sec < 0 or not 0 <= request.Usec < 10**6:
            raise InvalidArgument(f"not a time: {request.Sec} s and {request.Usec} µs")
        time.clock_settime_ns(time.CLOCK_REALTIME, request.Sec * 10**9 + request.Usec * 1000)
        return Empty()

    async def ReseedRandomDev(self, request: agent_pb2.ReseedRandomDevRequest, context: Context) -> Empty:
        """Feed the random number generator, which a restored machine shares with its template."""
        if not request.data:
            raise InvalidArgument("no data to reseed the random number generator with")
        await asyncio.to_thread(linux.reseed, request.data)
        return Empty()
