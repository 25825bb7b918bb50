"""Calls for a container's life."""

from __future__ import annotations

import asyncio

from google.protobuf.empty_pb2 import Empty

from kata_agent.cgroup import stats
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.oci import wire
from kata_py.ttrpc.context import Context


class ContainerCalls(Calls):
    """Create, start, remove; statistics."""

    async def CreateContainer(self, request: agent_pb2.CreateContainerRequest, context: Context) -> Empty:
        """Everything up to the start of the program."""
        if not request.HasField("OCI"):
            raise InvalidArgument(f"EINVAL: no OCI spec for container {request.container_id}")
        spec = wire.from_agent(request.OCI)
        await self.sandbox.create_container(
            request.container_id,
            spec,
            request.storages,
            share_pids=request.sandbox_pidns,
            devices=request.devices,
        )
        return Empty()

    async def StartContainer(self, request: agent_pb2.StartContainerRequest, context: Context) -> Empty:
        """Let the program begin."""
        await self.existing_container(request.container_id).start()
        return Empty()

    async def RemoveContainer(self, request: agent_pb2.RemoveContainerRequest, context: Context) -> Empty:
        """Kill and remove; what takes longer than the timeout goes on by itself."""
        container = self.existing_container(request.container_id)
        removal = asyncio.ensure_future(self.sandbox.remove_container(container))
        done, _ = await asyncio.wait({removal}, timeout=request.timeout or None)
        if not done:
            raise AgentError(f"ETIME: container {container.id} is not gone after {request.timeout} s")
        await removal
        return Empty()

    async def StatsContainer(
        self, request: agent_pb2.StatsContainerRequest, context: Context
    ) -> agent_pb2.StatsContainerResponse:
        """The cgroup's figures, read in a thread: a file that blocks must stop no other call."""
        cgroup = self.container(request.container_id).cgroup
        return agent_pb2.StatsContainerResponse(cgroup_stats=await asyncio.to_thread(stats.read, cgroup))
