"""A collector of OpenTelemetry's traces for tests: OTLP over HTTP, read with the official messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True)
class Told:
    """A span as it came, with the service that it is of."""

    service: str
    resource: dict[str, str]
    span: Span

    @property
    def name(self) -> str:
        return str(self.span.name)

    def __str__(self) -> str:
        return f"{self.service}: {self.name}"

    @property
    def failed(self) -> bool:
        return self.span.status.code == Status.STATUS_CODE_ERROR


@dataclass
class Collector:
    """What was told so far."""

    url: str
    told: list[Told] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)

    def until(self, name: str, timeout: float = 20.0) -> list[Told]:
        """All that was told once a span of that name was; a thread's work."""
        with self.grown:
            assert self.grown.wait_for(lambda: any(each.name == name for each in self.told), timeout), self.told
            return list(self.told)

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        with self.grown:
            self.headers.append(headers)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = {each.key: each.value.string_value for each in group.resource.attributes}
                for scope in group.scope_spans:
                    self.told += [Told(resource["service.name"], resource, span) for span in scope.spans]
            self.grown.notify_all()


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    """A collector at a port of its own, which answers with that status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            if status == 200:
                collector.take(body, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def tree(told: list[Told]) -> dict[str, str]:
    """The parent of each span by the span, both as `service: name`; empty where it was not told."""
    names = {each.span.span_id: str(each) for each in told}
    return {str(each): names.get(each.span.parent_span_id, "") for each in told}
