"""Calls for the network of the guest, which is the pod's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from google.protobuf.empty_pb2 import Empty

from kata_agent import modules
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context

if TYPE_CHECKING:
    from kata_agent.cmdline import Parameters
    from kata_agent.container.reaper import Reaper
    from kata_agent.policy.guard import Guard
    from kata_agent.sandbox import Sandbox
    from kata_protos.agent_types_pb2 import Interface

    Arguments = ParamSpec("Arguments")
    Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)

_DRIVERS = Path("/sys/bus/virtio/drivers")
_DRIVER = "virtio_net"


class NetworkCalls(Calls):
    """Interfaces, routes, neighbours, packet filter rules.

    What they need is loaded when the first of them comes: not every guest has a network.
    """

    def __init__(self, sandbox: Sandbox, reaper: Reaper, guard: Guard, parameters: Parameters) -> None:
        super().__init__(sandbox, reaper, guard, parameters)
        self._changing = asyncio.Lock()  # a change looks for names and then uses them

    async def UpdateInterface(self, request: agent_pb2.UpdateInterfaceRequest, context: Context) -> Interface:
        """Configure an interface; waits for its device where the host names one."""
        if not request.HasField("interface"):
            raise InvalidArgument("empty update interface request")
        from kata_agent.network import device, interface

        wanted = request.interface
        async with self._changing:
            try:
                await self._load_driver()
                name = None
                if wanted.devicePath:
                    name = await device.wait_for_interface(wanted.devicePath, self.parameters.hotplug_timeout)
                await _to_its_end(interface.update, wanted, name)
            except (AgentError, OSError) as error:
                raise AgentError(f"update interface: {error}") from error
        return wanted

    async def ListInterfaces(self, request: agent_pb2.ListInterfacesRequest, context: Context) -> agent_pb2.Interfaces:
        """All interfaces with their addresses."""
        from kata_agent.network import interface

        try:
            return agent_pb2.Interfaces(Interfaces=await asyncio.to_thread(interface.interfaces))
        except (AgentError, OSError) as error:
            raise AgentError(f"Failed to list interfaces: {error}") from error

    async def UpdateRoutes(self, request: agent_pb2.UpdateRoutesRequest, context: Context) -> agent_pb2.Routes:
        """Add or replace routes; gives all that there are then."""
        if not request.HasField("routes"):
            raise InvalidArgument("empty update routes request")
        from kata_agent.network import route

        async with self._changing:
            try:
                await _to_its_end(route.update, request.routes.Routes)
            except (AgentError, OSError) as error:
                raise AgentError(f"Failed to update routes: {error}") from error
            try:
                return agent_pb2.Routes(Routes=await asyncio.to_thread(route.routes))
            except (AgentError, OSError) as error:
                raise AgentError(f"Failed to list routes after update: {error}") from error

    async def ListRoutes(self, request: agent_pb2.ListRoutesRequest, context: Context) -> agent_pb2.Routes:
        """The main routing table."""
        from kata_agent.network import route

        try:
            return agent_pb2.Routes(Routes=await asyncio.to_thread(route.routes))
        except (AgentError, OSError) as error:
            raise AgentError(f"list routes: {error}") from error

    async def AddARPNeighbors(self, request: agent_pb2.AddARPNeighborsRequest, context: Context) -> Empty:
        """Make neighbours known."""
        if not request.HasField("neighbors"):
            raise InvalidArgument("empty add arp neighbours request")
        from kata_agent.network import neighbour

        async with self._changing:
            try:
                await _to_its_end(neighbour.add, request.neighbors.ARPNeighbors)
            except (AgentError, OSError) as error:
                raise AgentError(f"Failed to add ARP neighbours: {error}") from error
        return Empty()

    async def GetIPTables(
        self, request: agent_pb2.GetIPTablesRequest, context: Context
    ) -> agent_pb2.GetIPTablesResponse:
        """All packet filter rules, as iptables-save writes them."""
        from kata_agent.network import iptables

        return agent_pb2.GetIPTablesResponse(data=await iptables.save(self.reaper, ipv6=request.is_ipv6))

    async def SetIPTables(
        self, request: agent_pb2.SetIPTablesRequest, context: Context
    ) -> agent_pb2.SetIPTablesResponse:
        """Replace packet filter rules by those of iptables-save's form."""
        from kata_agent.network import iptables

        data = await iptables.restore(self.reaper, request.data, ipv6=request.is_ipv6)
        return agent_pb2.SetIPTablesResponse(data=data)

    async def _load_driver(self) -> None:
        """Load the driver of the host's network devices: nobody else in this guest does when one is plugged in."""
        if not _driver_is_missing():
            return
        try:
            await modules.load(self.reaper, _DRIVER, ())
        except AgentError as error:
            _LOG.warning("%s", error)  # the interface may be one of another driver's


def _driver_is_missing() -> bool:
    return _DRIVERS.exists() and not (_DRIVERS / _DRIVER).exists()


async def _to_its_end(
    change: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Run in a thread what must not go on unseen when the caller gives up; the kernel answers soon."""
    work = asyncio.create_task(asyncio.to_thread(change, *arguments, **keywords), name="network change")
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
