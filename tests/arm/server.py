"""The fake ARM as an HTTPS server: routes, authorisation, paging, operations, and verification of all that passes."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from azure.core.credentials import AccessToken
from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from tests.arm import surroundings
from tests.arm.cloud import GROUP, REGION, SUBSCRIPTION, Cloud, Operation, Refusal, Tree
from tests.arm.faults import Harm, Schedule
from tests.arm.images import DEFINITION, Images
from tests.arm.schema import Violation, verify

TOKEN = "a token of the tests"
_MODELS: dict[str, type] = {
    "virtualMachines": compute.VirtualMachine,
    "networkInterfaces": network.NetworkInterface,
    "disks": compute.Disk,
    "publicIPAddresses": network.PublicIPAddress,
}
_PAGE = 2
_TIMEOUT = 10.0  # seconds
_KINDS = "|".join(_MODELS)
_HERE = f"/subscriptions/{SUBSCRIPTION}"
_OWN = re.compile(rf"{_HERE}/resourceGroups/{GROUP}/providers/Microsoft\.(?:Compute|Network)/({_KINDS})(?:/([^/]+))?")
_GROUP = rf"{_HERE}/resourceGroups/{GROUP}/providers/Microsoft\.Compute"
_DISK = re.compile(rf"{_GROUP}/disks/([^/]+)")
_ACCESS = re.compile(rf"{_GROUP}/disks/([^/]+)/(beginGetAccess|endGetAccess)")
_IMAGES = re.compile(rf"{_GROUP}/images(?:/([^/]+))?")
_VERSIONS = re.compile(rf"{re.escape(DEFINITION)}/versions(?:/([^/]+))?")
_PAGES = re.compile(r"/pages/([^/]+)")
_PERMISSIONS = re.compile(rf"({_HERE}/resourceGroups/.+)/providers/Microsoft\.Authorization/permissions")
_OPERATION = re.compile(rf"{_HERE}/providers/Microsoft\.\w+/locations/{REGION}/(operations|results)/(\d+)")


class Broken(Exception):
    """The connection of a call ends."""


class Credential:
    """A credential whose token the fake takes."""

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """The token."""
        assert scopes[0].endswith("/.default")
        return AccessToken(TOKEN, 2**33)

    async def close(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> Credential:
        return self

    async def __aexit__(self, *reason: object) -> None:
        return None


class Server:
    """The fake.

    Attributes:
        cloud: What it holds.
        images: What it holds of images.
        schedule: What harm is done to calls.
        calls: Method and path of each call that came.
        violations: What did not fit the models, of either side; a test fails if there is one.
        url: Where it is served.
        by_location: Whether Location alone tells where an operation is followed, as Azure's OpenAPI has it; else
            Azure-AsyncOperation stands beside it for machines and images, and the library takes that one.
        throttled: How many further calls are answered 429.
        forbidden: Paths with this in them are answered AuthorizationFailed; empty forbids nothing.
        before: What a test does before each call, of which it is told; it may raise `Broken`.
        after: The same, before the call is answered.
    """

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.images = Images(self.cloud)
        self.schedule = Schedule()
        self.calls: list[tuple[str, str]] = []
        self.violations: list[str] = []
        self.url = ""
        self.by_location = False
        self.throttled = 0
        self.forbidden = ""
        self._models: dict[str, type] = {}  # of operations' results
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None

    def harm(self, harm: Harm, at: int) -> Schedule:
        """Do harm to the n-th call from now."""
        self.schedule = Schedule(harm, at)
        return self.schedule

    def heal(self) -> None:
        """Let whoever hangs go, and do no more harm."""
        self.schedule.released.set()
        self.schedule = Schedule()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A call, with the harm that is done to it."""
        self.calls.append((request.method, request.path))
        schedule = self.schedule
        match schedule.harm_to(request.method, request.path):
            case Harm.REFUSED:
                return self._answer(Refusal(403, "AuthorizationFailed"))
            case Harm.FAILED:
                return self._answer(Refusal(500, "InternalServerError"))
            case Harm.CUT_BEFORE | Harm.LOST:
                return _cut(request)
            case Harm.HUNG_BEFORE:
                await schedule.released.wait()
                return _cut(request)
            case Harm.CUT_AFTER:
                await self._do(request)
                return _cut(request)
            case Harm.HUNG_AFTER:
                await self._do(request)
                await schedule.released.wait()
                return _cut(request)
            case None:
                return await self._watched(request)

    async def _watched(self, request: web.Request) -> web.Response:
        call = f"{request.method} {request.path}"
        try:
            self.before(call)
            answer = await self._do(request)
            self.after(call)
        except Broken:
            return _cut(request)
        return answer

    async def _do(self, request: web.Request) -> web.Response:
        if found := _PAGES.fullmatch(request.path):
            data = await request.read()
            status = self.images.write(found[1], request.rel_url.raw_query_string, dict(request.headers), data)
            return web.Response(status=status)
        try:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refusal(401, "InvalidAuthenticationToken")
            version = request.query.get("api-version", "")
            if not re.fullmatch(r"\d{4}-\d\d-\d\d(-preview)?", version):
                raise Refusal(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
            if self.forbidden and self.forbidden in request.path:
                raise Refusal(403, "AuthorizationFailed", "does not have authorization to perform action")
            if self.throttled:
                self.throttled -= 1
                raise Refusal(429, "TooManyRequests", headers={"Retry-After": "1"})
            if (answer := await self._of_images(request)) is not None:
                return answer
            if found := _OWN.fullmatch(request.path):
                return await self._own(request, found[1], found[2])
            if found := _OPERATION.fullmatch(request.path):
                return self._operation(found[1], found[2])
            return self._surroundings(request)
        except Refusal as refusal:
            return self._answer(refusal)
        except Violation as violation:
            self.violations.append(f"{request.method} {request.path}: {violation}")
            return self._answer(Refusal(400, "InvalidRequestContent", str(violation)))
        except Exception as defect:
            self.violations.append(f"{request.method} {request.path}: the fake itself: {defect!r}")
            raise

    async def _own(self, request: web.Request, kind: str, name: str | None) -> web.Response:
        model = _MODELS[kind]
        match request.method, kind:
            case "GET", _ if name is None:
                return self._page(request, model, list(self.cloud.resources[kind].values()))
            case "GET", _:
                return self._give(model, self.cloud.get(kind, name or ""))
            case "PUT", "virtualMachines":
                body = await self._body(request, compute.VirtualMachine)
                only_new = request.headers.get("If-None-Match") == "*"
                machine, number = self.cloud.put_machine(name or "", body, only_new=only_new)
                return self._give(model, machine, 201, self._links(number, model, both=True))
            case "PATCH", "disks":
                body = await self._body(request, compute.DiskUpdate)
                return self._give(model, self.cloud.tag_disk(name or "", body["tags"]))
            case "DELETE", _:
                number = self.cloud.delete(kind, name or "") or ""
                if not number:
                    return web.Response(status=204)
                return web.Response(status=202, headers=self._links(number, both=kind == "virtualMachines"))
        raise Refusal(405, "MethodNotAllowed")

    async def _of_images(self, request: web.Request) -> web.Response | None:
        """What is done to images, and to disks that they are made of; None if it is none of that."""
        images, method = self.images, request.method
        if found := _ACCESS.fullmatch(request.path):
            if found[2] == "beginGetAccess":
                body = await self._body(request, compute.GrantAccessData)
                return self._begun(images.grant(found[1], body, self.url), compute.AccessUri)
            return self._begun(images.revoke(found[1]))
        if (found := _DISK.fullmatch(request.path)) and method == "PUT":
            tree, operation = images.put_disk(found[1], await self._body(request, compute.Disk))
            return self._give(compute.Disk, tree, 202, self._links(self.cloud.begin(operation), compute.Disk))
        if found := _IMAGES.fullmatch(request.path):
            kind, known, name, model = "image", images.images, (found[1] or "").lower(), compute.Image
        elif found := _VERSIONS.fullmatch(request.path):
            kind, known, name, model = "version", images.versions, found[1] or "", compute.GalleryImageVersion
        else:
            return None
        if not name:
            return self._page(request, model, list(known.values()))
        if method == "PUT":
            body = await self._body(request, model)
            tree, operation = (images.put_image if kind == "image" else images.put_version)(found[1], body)
            return self._give(model, tree, 201, self._links(self.cloud.begin(operation), model, both=True))
        if name not in known:
            return web.Response(status=204) if method == "DELETE" else None  # it may be one of the surroundings
        if method == "DELETE":
            return self._begun(Operation(1, lambda: known.pop(name, None) and None))
        return self._give(model, known[name])

    def _begun(self, operation: Operation, model: type | None = None) -> web.Response:
        return web.Response(status=202, headers=self._links(self.cloud.begin(operation), model))

    def _links(self, number: str, model: type | None = None, *, both: bool = False) -> dict[str, str]:
        """The headers that tell where an operation is followed.

        Args:
            number: The operation.
            model: Of what is answered at its end; None if nothing is.
            both: Whether Azure-AsyncOperation may stand beside Location.
        """
        if model is not None:
            self._models[number] = model
        links = {"Location": self._link("results", number)}
        if both and not self.by_location:
            links["Azure-AsyncOperation"] = self._link("operations", number)
        return links

    async def _body(self, request: web.Request, model: type) -> Tree:
        tree: Tree = json.loads(await request.read())
        verify(model, tree, sent=True)
        return tree

    def _operation(self, how: str, number: str) -> web.Response:
        operation: Operation = self.cloud.operations[number]
        operation.look()
        if how == "results":
            return self._result(operation, number)
        tree: Tree = {"name": number, "status": operation.status, "startTime": "2026-01-01T00:00:00+00:00"}
        if operation.failure is not None and operation.status == "Failed":
            tree["error"] = operation.failure.error()
            verify(compute.CloudError, {"error": tree["error"]}, sent=False)
        return web.json_response(tree)

    def _result(self, operation: Operation, number: str) -> web.Response:
        """What is at an operation's Location: 202 until it ends, then what it gives, or why it failed."""
        if operation.status == "InProgress":
            return web.Response(status=202, headers={"Location": self._link("results", number)})
        if operation.failure is not None:
            return self._answer(operation.failure)
        if operation.result is None:
            return web.Response(status=200)
        return self._give(self._models[number], operation.result)

    def _surroundings(self, request: web.Request) -> web.Response:
        if request.method != "GET":
            raise Refusal(405, "MethodNotAllowed")
        if asked := _PERMISSIONS.fullmatch(request.path):
            return self._permissions(request, asked[1])
        model, found = surroundings.find(self.cloud, request.path.removeprefix(_HERE))
        if isinstance(found, list):
            return self._page(request, model, found)
        return self._give(model, found)

    def _permissions(self, request: web.Request, scope: str) -> web.Response:
        """What the caller may do, in the form of Azure's document, as no library that we have has a model of it."""
        if request.query["api-version"] != "2022-04-01":
            raise Refusal(400, "InvalidApiVersionParameter")
        known = self.cloud.grants
        roles = next((known[end] for end in known if end and scope.endswith(end)), known[""])
        return self._part(request, [
            {"actions": actions, "notActions": taken, "dataActions": [], "notDataActions": []}
            for actions, taken in roles
        ])  # fmt: skip

    def _page(self, request: web.Request, model: type, trees: list[Tree]) -> web.Response:
        for tree in trees:
            verify(model, tree, sent=False)
        return self._part(request, trees)

    def _part(self, request: web.Request, trees: list[Tree]) -> web.Response:
        start = int(request.query.get("$skiptoken", "0"))
        answer: Tree = {"value": trees[start : start + _PAGE]}
        if start + _PAGE < len(trees):
            query = f"api-version={request.query['api-version']}&$skiptoken={start + _PAGE}"
            answer["nextLink"] = f"{self.url}{request.path}?{query}"
        return web.json_response(answer)

    def _give(self, model: type, tree: Tree, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
        verify(model, tree, sent=False)
        return web.json_response(tree, status=status, headers=headers)

    def _answer(self, refusal: Refusal) -> web.Response:
        tree = {"error": refusal.error()}
        verify(compute.CloudError, tree, sent=False)
        return web.json_response(tree, status=refusal.status, headers=refusal.headers)

    def _link(self, how: str, number: str) -> str:
        place = f"{_HERE}/providers/Microsoft.Compute/locations/{REGION}/{how}/{number}"
        return f"{self.url}{place}?p=1&api-version=2026-04-01"


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def serve(context: ssl.SSLContext) -> AsyncIterator[Server]:
    """Serve on a free port of 127.0.0.1 until left; violations fail whoever leaves."""
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"https://{host}:{port}"
        yield server
    finally:
        server.heal()
        await runner.cleanup()
    assert server.violations == []


@contextmanager
def serve_aside(context: ssl.SSLContext) -> Iterator[Server]:
    """Serve in a thread with a loop of its own, for tests that have a loop each."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="arm")
    thread.start()
    serving = serve(context)
    try:
        yield asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(_TIMEOUT)
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(_TIMEOUT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_TIMEOUT)
        loop.close()
