"""Spans to a collector: OTLP over HTTP by OpenTelemetry's own library, the extra `otel`.

Nothing of the shim imports this before there is something to tell. It blocks, in a thread of its own.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from kata_py.sandbox.spans import TraceSpan

TIMEOUT = 10.0  # seconds for all attempts at one export
PATH = "/v1/traces"
SERVICE = "kata"  # as upstream calls it
GUEST_SERVICE = "kata-agent"

_KINDS = {"client": SpanKind.CLIENT, "server": SpanKind.SERVER, None: SpanKind.INTERNAL}


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans are sent.

    Attributes:
        endpoint: Its URL; without a path OTLP's own is meant. Empty leaves it to OpenTelemetry's environment variables.
        user: The name that it asks for; empty for none.
        password: Likewise.
    """

    endpoint: str = ""
    user: str = ""
    password: str = ""

    @property
    def url(self) -> str | None:
        """The whole URL; None where the environment says it."""
        if self.endpoint and urlsplit(self.endpoint).path in ("", "/"):
            return self.endpoint.rstrip("/") + PATH
        return self.endpoint or None

    @property
    def headers(self) -> dict[str, str]:
        """What a request says of who sends it."""
        if not self.user:
            return {}
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"authorization": f"Basic {token}"}


def send(collector: Collector, trace: bytes, spans: Sequence[TraceSpan], attributes: Mapping[str, str]) -> bool:
    """Send the spans of a trace; returns whether the collector has taken them.

    Args:
        collector: Where to.
        trace: The trace's id.
        spans: What is told.
        attributes: Of the programs that tell it: the sandbox, the pod.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it tells of each attempt; our caller, of the result
    shim, guest = (Resource.create({"service.name": name, **attributes}) for name in (SERVICE, GUEST_SERVICE))
    exporter = OTLPSpanExporter(endpoint=collector.url, headers=collector.headers, timeout=TIMEOUT)
    try:
        return exporter.export([_readable(trace, span, guest if span.is_guests else shim) for span in spans]) is (
            SpanExportResult.SUCCESS
        )
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]


def _readable(trace: bytes, span: TraceSpan, resource: Resource) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=_context(trace, span.id),
        parent=_context(trace, span.parent) if span.parent else None,
        resource=resource,
        attributes=span.attributes,
        kind=_KINDS[span.side],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.began,
        end_time=span.ended,
        instrumentation_scope=InstrumentationScope("kata-py"),
    )


def _context(trace: bytes, span: bytes) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace), int.from_bytes(span), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
