"""An API server in this process: what Kubernetes' does with the requests that we make, and nothing that it does not.

Every body that comes or goes is checked by `tests.kube.schema`. A request that Kubernetes knows and this one does not
is answered 501, so that no test passes by it. `tests/functional/caa/test_kube.py` holds it against the official client.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.kube import schema
from tests.kube.patch import Malformed, Unfit, json_patch, merge_patch
from tests.kube.rbac import Asked, Rule
from tests.kube.store import KINDS, Change, Json, Kind, Refused, Store

TOKEN = "a-token-of-a-service-account"
USER = "system:serviceaccount:confidential-containers-system:cloud-api-adaptor"
_PARAMETERS = {
    "get": set(),
    "list": {"labelSelector", "fieldSelector", "limit", "continue", "resourceVersion"},
    "watch": {"watch", "resourceVersion", "timeoutSeconds", "allowWatchBookmarks", "labelSelector", "fieldSelector"},
    "create": {"fieldManager", "fieldValidation"},
    "patch": {"fieldManager", "fieldValidation"},
    "delete": {"propagationPolicy", "gracePeriodSeconds"},
}
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
_PAGE = 2  # objects that a list gives at once, if it is asked to be short


@dataclass
class Hook:
    """What happens once, before a request is looked at: another writer, a failure (raise `Refused`), silence."""

    verb: str
    resource: str
    act: Callable[[], Awaitable[object]]


@dataclass
class Request:
    """A request, as its path says."""

    asked: Asked
    kind: Kind
    namespace: str
    name: str
    sub: str
    raw: web.Request = field(repr=False)


class KubeServer:
    """The API server.

    Attributes:
        store: The objects.
        asked: All that was asked for.
        rules: Who may do what; None is everything.
        hooks: What happens before requests, each once.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.asked: list[Asked] = []
        self.rules: Sequence[Rule] | None = None
        self.hooks: list[Hook] = []
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._watches: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen, at the same port as before."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be gone: connections are refused."""
        if self._runner is not None:
            await self.drop_watches()
            await self._runner.cleanup()
            self._runner = None

    async def drop_watches(self) -> None:
        """End all watches as a connection that breaks does."""
        for task in list(self._watches):
            task.cancel()
        if self._watches:
            await asyncio.wait(list(self._watches))

    @property
    def watches(self) -> int:
        """How many watch."""
        return len(self._watches)

    def kubeconfig(self, path: Path, *, token: str = TOKEN) -> Path:
        """Write what a client needs."""
        path.write_text(
            yaml.safe_dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            })
        )  # fmt: skip
        return path

    async def seed(self, thing: Json) -> Json:
        """Put an object there, status and all."""
        kind = next(each for each in KINDS if (each.api_version, each.name) == (thing["apiVersion"], thing["kind"]))
        schema.check(thing, kind.model)
        return await self.store.create(kind, thing["metadata"].get("namespace", ""), thing)

    def things(self, plural: str, namespace: str = "") -> list[Json]:
        """The objects of a kind."""
        return self.store.list(kind_of(plural), namespace)

    def requests(self, verb: str, resource: str) -> list[Asked]:
        """What of a kind was asked for."""
        return [each for each in self.asked if (each.verb, each.resource) == (verb, resource)]

    async def _answer(self, raw: web.Request) -> web.StreamResponse:
        try:
            if raw.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            request = _read(raw)
            self.asked.append(request.asked)
            await self._act_before(request.asked)
            self._allow(request.asked)
            _known(raw, _PARAMETERS.get(request.asked.verb))
            return await getattr(self, f"_{request.asked.verb}")(request)
        except Refused as error:
            return _status(error.code, error.reason, error.message)
        except Unfit as error:
            return _status(422, "Invalid", f"the server rejected our request due to an error in our request: {error}")
        except (schema.Invalid, Malformed, ValueError) as error:
            return _status(400, "BadRequest", f"strict decoding error: {error}")

    async def _act_before(self, asked: Asked) -> None:
        for hook in self.hooks:
            if (hook.verb, hook.resource) == (asked.verb, asked.resource):
                self.hooks.remove(hook)
                await hook.act()
                return

    def _allow(self, asked: Asked) -> None:
        if self.rules is None or any(rule.allows(asked) for rule in self.rules):
            return
        where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        subject = f'{asked.resource.partition("/")[0]} "{asked.name}"' if asked.name else asked.resource
        raise Refused(
            403, "Forbidden",
            f'{subject} is forbidden: User "{USER}" cannot {asked.verb} resource "{asked.resource}" in API group '
            f'"{asked.group}" {where}',
        )  # fmt: skip

    async def _get(self, request: Request) -> web.Response:
        return _answer_of(request.kind, self.store.get(request.kind, request.namespace, request.name))

    async def _list(self, request: Request) -> web.Response:
        query = request.raw.query
        found = [each for each in self.store.list(request.kind, request.namespace) if _selected(each, query)]
        begin = int(query.get("continue") or 0)
        end = begin + min(int(query["limit"]), _PAGE) if "limit" in query else len(found)
        metadata = {"resourceVersion": str(self.store.version)}
        if end < len(found):
            metadata["continue"] = str(end)
        kind = request.kind
        items = found[begin:end]
        for each in items:
            schema.check(each, kind.model)
            each.pop("kind", None), each.pop("apiVersion", None)  # lists of built-in kinds do not repeat them
            if kind.group:
                each |= {"kind": kind.name, "apiVersion": kind.api_version}
        return _json({"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items})

    async def _create(self, request: Request) -> web.Response:
        thing = await request.raw.json()
        kind = request.kind
        if (thing.get("apiVersion"), thing.get("kind")) != (kind.api_version, kind.name):
            raise Refused(400, "BadRequest", "the API version or kind in the data does not match the expected one")
        schema.check(thing, kind.model)
        if kind.name == "Event" and thing["involvedObject"].get("namespace") != request.namespace:
            raise Refused(422, "Invalid", "Event is invalid: involvedObject.namespace: does not match event.namespace")
        if kind.status:
            thing.pop("status", None)
        return _answer_of(kind, await self.store.create(kind, request.namespace, thing), status=201)

    async def _patch(self, request: Request) -> web.Response:
        kind = request.kind
        before = self.store.get(kind, request.namespace, request.name)
        change = await request.raw.json()
        match request.raw.content_type:
            case "application/json-patch+json":
                after = json_patch(before, change)
            case "application/merge-patch+json":
                after = merge_patch(before, change)
            case other:
                raise Refused(501, "NotImplemented", f"{other} is not known here")
        schema.check(after, kind.model)
        if request.sub == "status":
            after["spec"] = before.get("spec", {})
        elif kind.status:
            after.pop("status", None)
            if "status" in before:
                after["status"] = before["status"]
        return _answer_of(kind, await self.store.update(kind, request.namespace, request.name, after))

    async def _delete(self, request: Request) -> web.Response:
        if request.raw.can_read_body:
            schema.check(await request.raw.json(), "V1DeleteOptions")
        left = await self.store.delete(request.kind, request.namespace, request.name)
        if left is not None:
            return _answer_of(request.kind, left)
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    async def _watch(self, request: Request) -> web.StreamResponse:
        query = request.raw.query
        if query.keys() & {"labelSelector", "fieldSelector"}:
            raise Refused(501, "NotImplemented", "watches of a selection are not known here")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request.raw)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        async with self.store.news:
            self.store.news.notify_all()
        try:
            async with asyncio.timeout(float(query.get("timeoutSeconds") or 1800)):
                await self._tell(request, answer)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._watches.discard(task)
        return answer

    async def _tell(self, request: Request, answer: web.StreamResponse) -> None:
        kind, query = request.kind, request.raw.query
        seen = int(query.get("resourceVersion") or 0)
        if not seen:
            seen = self.store.version
            for each in self.store.list(kind, request.namespace):
                await _write(answer, "ADDED", each)
        while True:
            async with self.store.news:
                while not (self.store.version > seen or seen < self.store.compacted):
                    await self.store.news.wait()
                too_old = seen < self.store.compacted
                news = [each for each in self.store.changes if each.version > seen]
                seen = max(seen, self.store.version)
            if too_old:
                await _write(answer, "ERROR", _failure(410, "Expired", "too old resource version"))
                return
            for change in filter(lambda each: _concerns(each, request), news):
                schema.check(change.thing, kind.model)
                await _write(answer, change.type, change.thing)
            if query.get("allowWatchBookmarks") in ("true", "True", "1"):
                bookmark = {
                    "kind": kind.name,
                    "apiVersion": kind.api_version,
                    "metadata": {"resourceVersion": str(seen)},
                }
                await _write(answer, "BOOKMARK", bookmark)


@asynccontextmanager
async def kube_server() -> AsyncIterator[KubeServer]:
    """An API server as long as the context lasts."""
    server = KubeServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def kind_of(plural: str) -> Kind:
    """The kind of that name."""
    return next(each for each in KINDS if each.plural == plural)


def _read(raw: web.Request) -> Request:
    parts = raw.path.strip("/").split("/")
    match parts:
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, sub = (*rest, "", "")[:3] if len(rest) <= 3 else ("", "", "")
    kind = next((each for each in KINDS if (each.group, each.version, each.plural) == (group, version, plural)), None)
    if kind is None or (sub and not (sub == "status" and kind.status)):
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    verb = _VERBS[raw.method]
    if verb == "get" and not name:
        verb = "watch" if raw.query.get("watch") in ("true", "True", "1") else "list"
    if verb == "update" or (verb == "create" and name) or (verb in ("delete", "patch") and not name):
        raise Refused(501, "NotImplemented", f"{raw.method} {raw.path} is not known here")
    if kind.namespaced != bool(namespace) and verb not in ("list", "watch"):
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    asked = Asked(verb, group, f"{plural}/{sub}" if sub else plural, namespace, name)
    return Request(asked, kind, namespace, name, sub, raw)


def _known(raw: web.Request, parameters: set[str] | None) -> None:
    if parameters is None or (unknown := set(raw.query) - parameters):
        raise Refused(501, "NotImplemented", f"{raw.method} with {sorted(unknown or raw.query)} is not known here")


def _selected(thing: Json, query: Any) -> bool:
    labels = thing["metadata"].get("labels") or {}
    for clause in filter(None, query.get("labelSelector", "").split(",")):
        key, equals, value = clause.partition("=")
        if not equals or "!" in key or len(value) > 63:
            raise Refused(400, "BadRequest", f"unable to parse requirement: {clause}")
        if labels.get(key) != value.removeprefix("="):
            return False
    for clause in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = clause.partition("=")
        if key not in ("metadata.name", "metadata.namespace", "spec.nodeName"):
            raise Refused(400, "BadRequest", f"field label not supported: {key}")
        head, _, tail = key.partition(".")
        if thing.get(head, {}).get(tail, "") != value.removeprefix("="):
            return False
    return True


def _concerns(change: Change, request: Request) -> bool:
    where = change.thing["metadata"].get("namespace", "")
    return change.kind is request.kind and request.namespace in ("", where)


async def _write(answer: web.StreamResponse, how: str, thing: Json) -> None:
    await answer.write(json.dumps({"type": how, "object": thing}).encode() + b"\n")


def _json(content: Json, status: int = 200) -> web.Response:
    """Of exactly Kubernetes' content type: aiohttp's own names a charset, which clients do not take for it."""
    return web.Response(body=json.dumps(content).encode(), status=status, content_type="application/json")


def _answer_of(kind: Kind, thing: Json, status: int = 200) -> web.Response:
    schema.check(thing, kind.model)
    return _json(thing, status=status)


def _failure(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip


def _status(code: int, reason: str, message: str) -> web.Response:
    failure = _failure(code, reason, message)
    schema.check(failure, "V1Status")
    return _json(failure, status=code)
