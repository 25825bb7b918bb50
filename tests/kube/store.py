"""Objects as the API server keeps them: versions, finalizers, owners, and what watchers are told."""

from __future__ import annotations

import asyncio
import copy
import datetime
import uuid
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class Refused(Exception):
    """A request that the API server does not grant."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Kind:
    """A resource."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool
    model: str
    status: bool = True  # whether its status is a sub-resource

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


KINDS = (
    Kind("", "v1", "nodes", "Node", False, "V1Node"),
    Kind("", "v1", "pods", "Pod", True, "V1Pod"),
    Kind("", "v1", "secrets", "Secret", True, "V1Secret", status=False),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", True, "V1ServiceAccount", status=False),
    Kind("", "v1", "events", "Event", True, "CoreV1Event", status=False),
    Kind("confidentialcontainers.org", "v1alpha1", "peerpods", "PeerPod", True, "PeerPod"),
)


@dataclass(frozen=True)
class Change:
    """What watchers are told."""

    version: int
    type: str
    kind: Kind
    thing: Json


class Store:
    """All objects, by kind, namespace and name."""

    def __init__(self) -> None:
        self.version = 1000
        self.compacted = 0  # watches from versions before this one are too late
        self.changes: list[Change] = []
        self.news = asyncio.Condition()
        self._things: dict[tuple[Kind, str, str], Json] = {}
        self._clock = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def time(self) -> str:
        """A time later than all before it; the API server's are in whole seconds."""
        self._clock += datetime.timedelta(seconds=1)
        return self._clock.strftime("%Y-%m-%dT%H:%M:%SZ")

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        try:
            return copy.deepcopy(self._things[kind, namespace, name])
        except KeyError:
            raise Refused(404, "NotFound", f'{kind.qualified} "{name}" not found') from None

    def list(self, kind: Kind, namespace: str = "") -> list[Json]:
        return [
            copy.deepcopy(thing)
            for (of, where, _), thing in sorted(self._things.items(), key=lambda item: item[0][1:])
            if of is kind and (not namespace or where == namespace)
        ]

    async def create(self, kind: Kind, namespace: str, thing: Json) -> Json:
        thing = copy.deepcopy(thing)
        metadata = thing.setdefault("metadata", {})
        name = metadata.get("name", "")
        if not name:
            raise Refused(422, "Invalid", f"{kind.name} is invalid: metadata.name: Required value")
        if metadata.get("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the provided object does not match the request's")
        if "resourceVersion" in metadata:
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if (kind, namespace, name) in self._things:
            raise Refused(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists')
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.time(), "generation": 1}
        if kind.namespaced:
            metadata["namespace"] = namespace
        await self._put("ADDED", kind, namespace, name, thing)
        return self.get(kind, namespace, name)

    async def update(self, kind: Kind, namespace: str, name: str, thing: Json) -> Json:
        """Put an object in the place of another one of the same name; its version, if it has one, must be the last."""
        before = self.get(kind, namespace, name)
        wanted = thing["metadata"].get("resourceVersion", before["metadata"]["resourceVersion"])
        if wanted != before["metadata"]["resourceVersion"]:
            raise Refused(
                409, "Conflict",
                f'Operation cannot be fulfilled on {kind.qualified} "{name}": the object has been modified; please '
                "apply your changes to the latest version and try again",
            )  # fmt: skip
        for key in ("uid", "name", "namespace", "creationTimestamp", "deletionTimestamp"):
            if thing["metadata"].get(key) != before["metadata"].get(key):
                raise Refused(422, "Invalid", f"metadata.{key}: Invalid value: field is immutable")
        if thing == before:
            return before
        doomed = "deletionTimestamp" in before["metadata"]
        if doomed and set(thing["metadata"].get("finalizers") or ()) - set(before["metadata"].get("finalizers") or ()):
            raise Refused(422, "Invalid", "metadata.finalizers: Forbidden: no new finalizers can be added")
        if doomed and not thing["metadata"].get("finalizers"):
            await self._drop(kind, namespace, name)
            return thing
        await self._put("MODIFIED", kind, namespace, name, thing)
        return self.get(kind, namespace, name)

    async def delete(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """Delete an object; None if it has gone at once, else the object that waits for its finalizers."""
        thing = self.get(kind, namespace, name)
        if not thing["metadata"].get("finalizers"):
            await self._drop(kind, namespace, name)
            return None
        if "deletionTimestamp" not in thing["metadata"]:
            thing["metadata"] |= {"deletionTimestamp": self.time(), "deletionGracePeriodSeconds": 0}
            await self._put("MODIFIED", kind, namespace, name, thing)
        return self.get(kind, namespace, name)

    async def compact(self) -> None:
        """Forget what was before; watches that are behind are ended."""
        async with self.news:
            self.compacted = self.version
            self.news.notify_all()

    async def _put(self, how: str, kind: Kind, namespace: str, name: str, thing: Json) -> None:
        async with self.news:
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self._things[kind, namespace, name] = thing
            self.changes.append(Change(self.version, how, kind, copy.deepcopy(thing)))
            self.news.notify_all()

    async def _drop(self, kind: Kind, namespace: str, name: str) -> None:
        async with self.news:
            thing = self._things.pop((kind, namespace, name))
            self.version += 1
            last = copy.deepcopy(thing)
            last["metadata"]["resourceVersion"] = str(self.version)
            self.changes.append(Change(self.version, "DELETED", kind, last))
            self.news.notify_all()
        for (of, where, other), each in list(self._things.items()):  # as the garbage collector does
            owners = [owner["uid"] for owner in each["metadata"].get("ownerReferences", ())]
            if thing["metadata"]["uid"] in owners:
                await self.delete(of, where, other)
