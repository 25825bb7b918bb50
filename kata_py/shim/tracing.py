"""Traces of what a shim does for its manager: one per pod's start, in which its containers' have their place.

A piece of work begins with Create and ends with Start's answer, or with a failure. It is told afterwards, by a thread
of its own: whatever the collector does, no pod waits for it, and none fails. docs/tracing.md has the picture.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from kata_py.config.model import Configuration, RuntimeConfig
from kata_py.sandbox.errors import StageFailed
from kata_py.sandbox.failure import CAUSE_LENGTH, pod_of
from kata_py.sandbox.sandbox import Sandbox
from kata_py.sandbox.spans import TraceSpan, spans_of
from kata_py.sandbox.timeline import Span
from kata_py.sandbox.trace import Work, working
from kata_py.ttrpc.trace_context import TraceContext

logger = logging.getLogger(__name__)

POD, CONTAINER = "pod start", "container start"  # the kinds of work
GUEST_TIMEOUT = 5.0  # seconds for the guest to hand over its spans
WAITING = 8  # pieces of work that wait to be told; what comes beyond them is dropped
OPEN = 32  # containers that were created and neither started nor deleted, of which something is kept


class Tracing:
    """The traces of one shim."""

    def __init__(self) -> None:
        self._pod: TraceContext | None = None
        self._runtime = RuntimeConfig()
        self._guest_is_traced = False
        self._attributes: dict[str, str] = {}
        self._open: dict[str, Work] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, "tracing")  # which begins with the first trace
        self._has_failed = False

    @contextmanager
    def creating_pod(
        self,
        configuration: Configuration,
        id: str,
        annotations: Mapping[str, str],
        began: int,
        caller: TraceContext | None,
    ) -> Iterator[None]:
        """Trace the creation of a pod's sandbox, if the configuration wants it and the manager does not forbid it.

        Args:
            configuration: The pod's.
            id: The sandbox's, and so its first container's.
            annotations: Of the container, for what people call the pod.
            began: When it began, in monotonic nanoseconds.
            caller: The manager's span; None if it told none.
        """
        self._pod = None
        if not configuration.runtime.enable_tracing or (caller is not None and not caller.sampled):
            yield
            return
        pod = pod_of(annotations)
        named = {"k8s.namespace.name": pod.namespace, "k8s.pod.name": pod.name, "k8s.pod.uid": pod.uid}
        self._runtime = configuration.runtime
        self._attributes = {"sandbox_id": id} | {key: value for key, value in named.items() if value}
        self._guest_is_traced = configuration.agent.enable_tracing
        self._pod = caller.child() if caller else TraceContext.root()
        with self._creating(self._work(POD, self._pod, caller, id, began), id, None):
            yield

    @contextmanager
    def creating(self, id: str, began: int, caller: TraceContext | None, sandbox: Sandbox) -> Iterator[None]:
        """Trace the creation of a further container, if the pod's was traced; as `creating_pod`."""
        if self._pod is None or (caller is not None and not caller.sampled):
            yield
            return
        parent = caller or self._pod
        with self._creating(self._work(CONTAINER, parent.child(), parent, id, began), id, sandbox):
            yield

    @contextmanager
    def starting(self, id: str, sandbox: Sandbox) -> Iterator[None]:
        """Trace the start of a container whose creation was traced; with it the work has ended."""
        work = self._open.pop(id, None)
        if work is None:
            yield
            return
        failure: BaseException | None = None
        try:
            with working(work):
                yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(work, id, failure, sandbox)

    def deleted(self, id: str, sandbox: Sandbox) -> None:
        """A container is deleted; one that never was started is told nevertheless."""
        if id in self._open:
            self._end(self._open.pop(id), id, None, sandbox)

    async def drained(self, timeout: float) -> None:
        """Wait, for some seconds at most, until what has ended is told. What is left is dropped."""
        if self._telling:
            _, late = await asyncio.wait(self._telling, timeout=timeout)
            for task in late:
                task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work(self, name: str, context: TraceContext, parent: TraceContext | None, id: str, began: int) -> Work:
        return Work(name, context, parent, began, {"container.id": id}, self._guest_is_traced)

    @contextmanager
    def _creating(self, work: Work, id: str, sandbox: Sandbox | None) -> Iterator[None]:
        try:
            with working(work):
                yield
        except BaseException as error:
            self._end(work, id, error, sandbox)
            raise
        if len(self._open) < OPEN:
            self._open[id] = work

    def _end(self, work: Work, id: str, error: BaseException | None, sandbox: Sandbox | None) -> None:
        work.ended = time.monotonic_ns()
        if error is not None:
            work.error = _words(error)
        if len(self._telling) >= WAITING:
            logger.warning("the trace of %s is dropped: the collector is behind", id)
            return
        telling = asyncio.create_task(self._tell(work, id, sandbox), name=f"trace {id}")
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, work: Work, id: str, sandbox: Sandbox | None) -> None:
        try:
            if sandbox is not None:
                work.stages = sandbox.timeline
                await sandbox.take_spans(work, GUEST_TIMEOUT)
            spans = spans_of(work, _stages(work, id), time.time_ns() - time.monotonic_ns())
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._send, work.context.trace, spans)
        except Exception:
            logger.exception("the trace of %s cannot be told", id)

    def _send(self, trace: bytes, spans: list[TraceSpan]) -> None:
        """In the thread; a warning is told once."""
        runtime = self._runtime
        try:
            from kata_py.shim import otlp
        except ImportError as error:
            self._failed(
                f"enable_tracing is set, but the extra otel is not installed (pip install kata-py[otel]): {error}"
            )
            return
        collector = otlp.Collector(runtime.jaeger_endpoint, runtime.jaeger_user, runtime.jaeger_password)
        if not otlp.send(collector, trace, spans, self._attributes):
            place = collector.url or "OTEL_EXPORTER_OTLP_ENDPOINT or localhost:4318"
            self._failed(f"the collector at {place} does not take them by OTLP over HTTP")

    def _failed(self, cause: str) -> None:
        logger.log(logging.DEBUG if self._has_failed else logging.WARNING, "traces are lost: %s", cause)
        self._has_failed = True


def _words(error: BaseException) -> str:
    """How work failed; without the console's lines, which may tell secrets and are for the node's root alone."""
    match error:
        case asyncio.CancelledError():
            return "given up"
        case StageFailed():
            return f"{error.stage} failed: {error.cause}"[:CAUSE_LENGTH]
        case _:
            return (str(error) or type(error).__name__)[:CAUSE_LENGTH]


def _stages(work: Work, id: str) -> list[Span]:
    """The stages that belong to the work: those of a container that came later have its id in their name."""
    stages = [span for span in work.stages if span.began >= work.began]
    if work.name == POD:
        return [span for span in stages if " " not in span.name]
    return [span for span in stages if span.name.partition(" ")[2] and id.startswith(span.name.partition(" ")[2])]
