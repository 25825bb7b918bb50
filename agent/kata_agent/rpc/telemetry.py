"""What the host asks about the agent's own doing; see `telemetry.proto`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kata_agent.errors import InvalidArgument
from kata_agent.rpc.boundary import answering, guarded
from kata_protos import telemetry_pb2
from kata_protos.telemetry_ttrpc import TelemetryService

if TYPE_CHECKING:
    from kata_agent.policy.guard import Guard
    from kata_agent.trace import Tracer
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry

_LOG = logging.getLogger(__name__)

_LEVELS = ("debug", "info", "warning", "error")


class Telemetry(TelemetryService):
    """katapy.agent.v1.Telemetry.

    Args:
        guard: The policy decides on these calls too; one that does not know them denies them.
        tracer: Keeps the spans; None when nothing is traced.
    """

    def __init__(self, guard: Guard, tracer: Tracer | None) -> None:
        self._guard = guard
        self._tracer = tracer

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """As generated, behind the policy and the boundary."""
        return {
            name: (answering(guarded(entry[0], self._guard)), *entry[1:])
            for name, entry in super().ttrpc_methods().items()
        }

    async def SetLogLevel(
        self, request: telemetry_pb2.SetLogLevelRequest, context: Context
    ) -> telemetry_pb2.SetLogLevelResponse:
        """Log from another level on."""
        if request.level not in _LEVELS:
            raise InvalidArgument(f"the level is one of {', '.join(_LEVELS)}, not {request.level[:20]!r}")
        logging.getLogger().setLevel(request.level.upper())
        _LOG.info("from now on lines of level %s and above are logged", request.level)
        return telemetry_pb2.SetLogLevelResponse()

    async def TakeSpans(
        self, request: telemetry_pb2.TakeSpansRequest, context: Context
    ) -> telemetry_pb2.TakeSpansResponse:
        """Hand over what was kept."""
        spans = self._tracer.take(request.callers) if self._tracer else ()
        return telemetry_pb2.TakeSpansResponse(spans=[telemetry_pb2.Span(**span._asdict()) for span in spans])
