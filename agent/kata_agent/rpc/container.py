"""Calls for a container's life."""

from __future__ import annotations

import asyncio
import logging

from google.protobuf.empty_pb2 import Empty

from kata_agent.cgroup import stats
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.oci import wire
from kata_py.ttrpc.context import Context

_LOG = logging.getLogger(__name__)


class ContainerCalls(Calls):
    """Create, start, pause, update, remove; statistics, events and what is left to read."""

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
            shared_mounts=request.shared_mounts,
            deadline=context.deadline,
        )
        return Empty()

    async def StartContainer(self, request: agent_pb2.StartContainerRequest, context: Context) -> Empty:
        """Let the program begin."""
        await self.sandbox.start_container(self.existing_container(request.container_id))
        return Empty()

    async def PauseContainer(self, request: agent_pb2.PauseContainerRequest, context: Context) -> Empty:
        """Stop all processes where they are."""
        await self.container(request.container_id).pause()
        return Empty()

    async def ResumeContainer(self, request: agent_pb2.ResumeContainerRequest, context: Context) -> Empty:
        """Let them continue."""
        await self.container(request.container_id).resume()
        return Empty()

    async def UpdateContainer(self, request: agent_pb2.UpdateContainerRequest, context: Context) -> Empty:
        """Give it other resources; none in the request is no change."""
        container = self.container(request.container_id)
        if request.HasField("resources"):
            await container.update(wire.resources_from_agent(request.resources))
        return Empty()

    async def RemoveContainer(self, request: agent_pb2.RemoveContainerRequest, context: Context) -> Empty:
        """Kill and remove; what takes longer than the timeout goes on by itself."""
        container = self.existing_container(request.container_id)
        removal = asyncio.ensure_future(self.sandbox.remove_container(container))
        done, _ = await asyncio.wait({removal}, timeout=request.timeout or None)
        if not done:
            removal.add_done_callback(_log_failure)
            raise AgentError(f"ETIME: container {container.id} is not gone after {request.timeout} s")
        await removal
        return Empty()

    async def StatsContainer(
        self, request: agent_pb2.StatsContainerRequest, context: Context
    ) -> agent_pb2.StatsContainerResponse:
        """The cgroup's figures, read in a thread: a file that blocks must stop no other call."""
        cgroup = self.container(request.container_id).cgroup
        figures, networks = await asyncio.to_thread(lambda: (stats.read(cgroup), stats.networks()))
        return agent_pb2.StatsContainerResponse(cgroup_stats=figures, network_stats=networks)

    async def GetOOMEvent(self, request: agent_pb2.GetOOMEventRequest, context: Context) -> agent_pb2.OOMEvent:
        """Wait for a container in which the kernel has killed for want of memory."""
        context.cancel_if_abandoned()
        return agent_pb2.OOMEvent(container_id=await self.sandbox.oom_events.get())

    async def GetDiagnosticData(
        self, request: agent_pb2.GetDiagnosticDataRequest, context: Context
    ) -> agent_pb2.GetDiagnosticDataResponse:
        """A container's termination message."""
        from kata_agent.container import diagnostics

        if request.log_type != "termination_log":
            raise InvalidArgument(f"unknown log type {request.log_type!r}: known is termination_log")
        spec = self.existing_container(request.container_id).spec
        message = await asyncio.to_thread(diagnostics.termination_message, spec)
        return agent_pb2.GetDiagnosticDataResponse(data=message)


def _log_failure(removal: asyncio.Future[None]) -> None:
    if not removal.cancelled() and (error := removal.exception()) is not None:
        _LOG.warning("a removal that took too long has failed: %s", error)
