"""The edge where errors become statuses, and what all families of calls share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kata_agent import errors
from kata_agent.cmdline import Parameters
from kata_agent.container.container import Container
from kata_agent.container.process import Process
from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.policy.guard import Guard
from kata_agent.sandbox import Sandbox
from kata_agent.subject import concern
from kata_agent.trace import Tracer
from kata_protos.agent_pb2 import ReadStreamRequest
from kata_protos.agent_ttrpc import AgentService
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.trace_context import TraceContext

_LOG = logging.getLogger(__name__)

_CODES: dict[type[Exception], Code] = {
    errors.InvalidArgument: Code.INVALID_ARGUMENT,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.FailedPrecondition: Code.FAILED_PRECONDITION,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.Unimplemented: Code.UNIMPLEMENTED,
}

Request = TypeVar("Request")
Response = TypeVar("Response")
Handler = Callable[[Request, Context], Awaitable[Response]]


class Calls(AgentService):
    """What a family of calls is built on."""

    def __init__(self, sandbox: Sandbox, reaper: Reaper, guard: Guard, parameters: Parameters) -> None:
        self.sandbox = sandbox
        self.reaper = reaper
        self.guard = guard
        self.parameters = parameters

    def container(self, container_id: str) -> Container:
        """The container.

        Raises:
            InvalidArgument: There is none.
        """
        container = self.sandbox.container(container_id)
        if container is None:
            raise InvalidArgument(f"invalid container id {container_id!r}")
        return container

    def existing_container(self, container_id: str) -> Container:
        """The container, for those calls whose hosts expect an internal error.

        Raises:
            AgentError: There is none.
        """
        container = self.sandbox.container(container_id)
        if container is None:
            raise AgentError(f"Invalid container id {container_id!r}")
        return container

    def process(self, container_id: str, exec_id: str) -> Process:
        """The process; an empty exec id is the container's first.

        Raises:
            InvalidArgument: There is no such container.
            NotFound: There is no such process in it.
        """
        return self.container(container_id).processes.find(exec_id)


def guarded(handler: Handler[Any, Any], guard: Guard) -> Handler[Any, Any]:
    """The handler behind the policy, which sees each request first.

    A read is decided on when it is done. Denied, its data is dropped and the next is read in its place, so that
    what writes is never stopped by a host that may not read; the stream's end is all that such a host learns.
    """

    async def decide(request: Any, context: Context) -> Any:
        if not isinstance(request, ReadStreamRequest):
            await guard.check(request)
            return await handler(request, context)
        while True:
            response = await handler(request, context)
            try:
                await guard.check(request)
            except AgentError as error:
                _LOG.debug("%s: %s", context.method, error)
                if response.data:
                    continue
            return response

    return decide


def answering(handler: Handler[Request, Response]) -> Handler[Request, Response]:
    """The handler with its errors turned into statuses."""

    async def answer(request: Request, context: Context) -> Response:
        concern(getattr(request, "container_id", ""), getattr(request, "exec_id", ""))
        try:
            return await handler(request, context)
        except AgentError as error:
            code = _CODES.get(type(error), Code.INTERNAL)
            _LOG.info("%s: %s: %s", context.method, code.name, error)
            raise StatusError(code, str(error)) from error
        except OSError as error:
            _LOG.warning("%s: %s", context.method, error)
            raise StatusError(Code.INTERNAL, f"{context.method}: {error}") from error
        except StatusError:
            raise
        except Exception as error:  # hosts know INTERNAL as the code of whatever has none of its own
            _LOG.exception("%s failed", context.method)
            raise StatusError(Code.INTERNAL, f"{context.method}: {type(error).__name__}: {error}") from error

    return answer


def traced(handler: Handler[Any, Any], tracer: Tracer | None) -> Handler[Any, Any]:
    """The handler with a span for each call whose caller traces."""
    if tracer is None:
        return handler

    async def trace(request: Any, context: Context) -> Any:
        container_id = getattr(request, "container_id", "")
        subject = {"container.id": container_id} if container_id else {}
        with tracer.call(str(context), TraceContext.of(context.metadata), **subject):
            return await handler(request, context)

    return trace
