"""Calls for the processes of a container."""

from __future__ import annotations

import signal

from google.protobuf.empty_pb2 import Empty

from kata_agent.container import bundle
from kata_agent.errors import AgentError
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.oci import wire
from kata_py.ttrpc.context import Context


class ProcessCalls(Calls):
    """Exec, signal, wait."""

    async def ExecProcess(self, request: agent_pb2.ExecProcessRequest, context: Context) -> Empty:
        """Start one more process."""
        if not request.HasField("process"):
            raise AgentError(f"no process in the request for exec {request.exec_id}")
        container = self.existing_container(request.container_id)
        document = bundle.process(wire.process_from_agent(request.process))
        await container.exec(request.exec_id, self.sandbox.translated(container.id, document))
        return Empty()

    async def SignalProcess(self, request: agent_pb2.SignalProcessRequest, context: Context) -> Empty:
        """Signal one process, or kill all of the container: SIGKILL without an exec id."""
        if not request.exec_id and request.signal == signal.SIGKILL:
            await self.existing_container(request.container_id).kill()
            return Empty()
        container = self.container(request.container_id)
        await container.signal(container.processes.find(request.exec_id), request.signal)
        return Empty()

    async def WaitProcess(
        self, request: agent_pb2.WaitProcessRequest, context: Context
    ) -> agent_pb2.WaitProcessResponse:
        """Wait for a process's end; any number of waiters, also after it."""
        process = self.process(request.container_id, request.exec_id)
        context.cancel_if_abandoned()
        return agent_pb2.WaitProcessResponse(status=await process.wait())
