"""A pod's failure as an event of Kubernetes, which `kubectl describe pod` shows. What is repeated is counted.

Source: Kubernetes API reference, Event v1 core; `pkg/apis/core/validation/events.go` for its bounds.
"""

from __future__ import annotations

import datetime
import hashlib

from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event, Pod

from kata_caa.k8s.api import Api, ClusterError
from kata_caa.peer import Failure

COMPONENT = "cloud-api-adaptor"
FAILED = "PeerPodFailed"

_MESSAGE_MAX = 1024  # bytes
_NAME_MAX = 253
_TRIES = 5


async def warn(api: Api, node: str, pod: Pod, failure: Failure, now: datetime.datetime) -> None:
    """Tell a pod's user what went wrong.

    The same words about the same pod are one event, whichever try they are of: its name is made of them, so that this
    holds after a restart of the adaptor too.

    Args:
        api: The API server.
        node: The node's name.
        pod: The pod, as the API server knows it.
        failure: What went wrong.
        now: The time, in UTC.

    Raises:
        ClusterError: The event cannot be written.
    """
    assert pod.metadata is not None
    name, message = _name(pod, _general(failure)), _cut(failure.message)
    now = now.replace(microsecond=0)
    for _ in range(_TRIES):
        try:
            await api.create(_event(name, node, pod, message, now), failure.namespace)
            return
        except ClusterError as error:
            if not error.conflicting:
                raise
        try:
            known = await api.get(Event, name, failure.namespace)
            assert known.metadata is not None
            change = {
                "metadata": {"resourceVersion": known.metadata.resourceVersion},
                "count": (known.count or 1) + 1,
                "message": message,
                "lastTimestamp": now.isoformat().replace("+00:00", "Z"),
            }
            await api.merge(Event, name, change, failure.namespace)
            return
        except ClusterError as lost:
            if not (lost.conflicting or lost.missing):  # another adaptor counts, or it has expired
                raise
    raise ClusterError(f"event {failure.namespace}/{name} was changed by others {_TRIES} times in a row", 409)


def _event(name: str, node: str, pod: Pod, message: str, now: datetime.datetime) -> Event:
    assert pod.metadata is not None
    return Event(
        metadata=ObjectMeta(name=name, namespace=pod.metadata.namespace),
        involvedObject=ObjectReference(
            apiVersion="v1",
            kind="Pod",
            name=pod.metadata.name,
            namespace=pod.metadata.namespace,
            uid=pod.metadata.uid,
            resourceVersion=pod.metadata.resourceVersion,
        ),
        type="Warning",
        reason=FAILED,
        message=message,
        firstTimestamp=now,
        lastTimestamp=now,
        count=1,
        source=EventSource(component=COMPONENT, host=node),
        reportingComponent=COMPONENT,
        reportingInstance=node,
    )


def _name(pod: Pod, message: str) -> str:
    assert pod.metadata is not None
    digest = hashlib.sha256(f"{pod.metadata.uid}\0{FAILED}\0{message}".encode()).hexdigest()[:16]
    return f"{str(pod.metadata.name)[: _NAME_MAX - 17].rstrip('-.')}.{digest}"


def _general(failure: Failure) -> str:
    """A message without what is another one at the next try."""
    message = failure.message
    for part in failure.particulars:
        message = message.replace(part, "*")
    return message


def _cut(message: str) -> str:
    encoded = message.encode()
    return message if len(encoded) <= _MESSAGE_MAX else encoded[: _MESSAGE_MAX - 3].decode(errors="ignore") + "…"
