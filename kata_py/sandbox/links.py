"""A pod's links on the host and their likes in the guest: told to the agent at the start, and whenever one appears.

Docker connects a container after it was created; others add interfaces to a pod that runs. Source of the order of
calls and of what is tried again: kata `virtcontainers/kata_agent.go`.
"""

from __future__ import annotations

import asyncio
import logging

from kata_protos import agent_types_pb2
from kata_py.hypervisor.api import HypervisorError, Vm
from kata_py.network.errors import NetworkError
from kata_py.network.network import Connection, Network
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError

logger = logging.getLogger(__name__)

TRIES = 20  # of an update whose link the guest does not have yet
PAUSE = 0.02  # seconds between them
SETTLE = 0.05  # seconds after a change in which others most likely follow
_NOT_YET = "Link not found"  # in the words of every agent


class Links:
    """The links of one pod.

    Args:
        network: The pod's network on the host.
        vm: Its machine.
        agent: The agent in it.
    """

    def __init__(self, network: Network, vm: Vm, agent: Agent) -> None:
        self._network = network
        self._vm = vm
        self._agent = agent
        self._places: dict[str, str] = {}  # of interfaces that were plugged in

    async def tell(self) -> None:
        """Tell the agent of all links, with their addresses, routes and neighbours; it keeps what it knows already.

        Raises:
            SandboxError: It cannot do as it is told.
        """
        for interface in self._network.interfaces(self._places):
            await self._update(interface)
        if routes := self._network.routes():
            await self._agent.update_routes(routes)
        if neighbours := self._network.neighbours():
            await self._agent.add_neighbours(neighbours)

    async def follow(self) -> None:
        """Plug in and tell what appears in the pod's namespace from now on, until it or the agent is gone."""
        try:
            async with self._network.news() as changed:
                while not self._agent.gone:
                    changed.clear()
                    for connection in await self._network.rescan():
                        await self._add(connection)
                    await changed.wait()
                    await asyncio.sleep(SETTLE)
        except NetworkError as error:
            logger.info("the pod's network is not followed any more: %s", error)

    async def _add(self, connection: Connection) -> None:
        try:
            device = await self._vm.attach(connection.nic)
            self._places[connection.nic.id] = device.address
            await self.tell()
        except (HypervisorError, SandboxError) as error:
            logger.error("link %s is not given to the guest: %s", connection.endpoint.name, error)
        else:
            logger.info("link %s was given to the guest", connection.endpoint.name)

    async def _update(self, interface: agent_types_pb2.Interface) -> None:
        for _ in range(TRIES - 1):
            try:
                await self._agent.update_interface(interface)
            except SandboxError as error:
                if _NOT_YET not in str(error):
                    raise
                await asyncio.sleep(PAUSE)
            else:
                return
        await self._agent.update_interface(interface)
