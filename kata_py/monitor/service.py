"""The monitor's pages. Paths and forms are those of kata `src/runtime/pkg/kata-monitor/monitor.go`."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from urllib.parse import quote, urlencode

from kata_py.http import server
from kata_py.http.debug import Debug
from kata_py.http.server import Answer, HttpError, Request
from kata_py.monitor import exposition, page
from kata_py.monitor.errors import MonitorError, UnknownSandbox
from kata_py.monitor.exposition import Families
from kata_py.monitor.figures import Figures
from kata_py.monitor.scrape import Scraper
from kata_py.resource.blocking import off_loop

_BYTES = "application/octet-stream"
_COMPRESSION = 1  # of 1 to 9: it is a fifteenth already, and a scrape is not to take long

_PAGES = {
    "/": "this list; for a browser a page of the sandboxes, their memory and their starts",
    "/metrics": "figures of all sandboxes, and of the monitor; ?sandbox=ID of one, ?filter_family=A,B of some families",
    "/sandboxes": "the ids of the sandboxes on this node",
    "/agent-url": "where a sandbox's agent listens; ?sandbox=ID",
    "/debug/vars": "variables of the monitor; ?sandbox=ID of a shim that has enable_pprof",
    "/debug/pprof/": "stacks and profiles of the same",
}

Page = Callable[[Request], Awaitable[Answer]]


class Service:
    """Answers requests.

    Args:
        scraper: Asks the shims.
        figures: What the monitor counts.
        host: The address that is listened at, as it was given; empty is all.
    """

    def __init__(self, scraper: Scraper, figures: Figures, host: str) -> None:
        self._scraper = scraper
        self._figures = figures
        self._host = host
        self._debug = Debug()
        self._pages: Mapping[str, Page] = {
            "/": self._index,
            "/metrics": self._metrics,
            "/sandboxes": self._sandboxes,
            "/agent-url": self._agent_url,
        }

    async def answer(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            HttpError: It cannot be answered.
        """
        self._check_host(request)
        debug = request.path == "/debug" or request.path.startswith("/debug/")
        answer = self._told_of_itself if debug else self._pages.get(request.path)
        if answer is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path; there are: {', '.join(self._pages)}")
        if request.method != "GET":
            cause = f"{request.path} has GET alone, not {request.method[:20]}\n"
            return Answer(cause.encode(), status=HTTPStatus.METHOD_NOT_ALLOWED, fields={"Allow": "GET"})
        try:
            return await answer(request)
        except UnknownSandbox as error:
            raise HttpError(HTTPStatus.NOT_FOUND, str(error)) from error
        except MonitorError as error:
            raise HttpError(HTTPStatus.BAD_GATEWAY, str(error)) from error

    def _check_host(self, request: Request) -> None:
        """Refuse what a web page has a browser ask of this node, after its name was made to mean the loopback."""
        host = _without_port(request.fields.get("host", ""))
        if not host:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the field Host is missing")
        if _local(self._host) and not (_local(host) or _is_address(host)):
            cause = f"{host[:100]!r} is no name of this monitor, which listens at {self._host}"
            raise HttpError(HTTPStatus.MISDIRECTED_REQUEST, cause)

    async def _index(self, request: Request) -> Answer:
        if takes_html(request.fields.get("accept", "")):
            sandboxes = await self._scraper.overview()
            text = page.page(sandboxes, os.uname().nodename, now=time.monotonic_ns(), clock=time.time())
            return Answer(text.encode(errors="backslashreplace"), page.CONTENT_TYPE, fields=page.FIELDS)
        width = max(map(len, _PAGES)) + 2
        return Answer("".join(f"{path:{width}}{what}\n" for path, what in _PAGES.items()).encode())

    async def _metrics(self, request: Request) -> Answer:
        wanted = frozenset(filter(None, request.query.get("filter_family", "").split(",")))
        sandbox = request.query.get("sandbox", "")
        began = asyncio.get_running_loop().time()
        families = await (self._scraper.one(sandbox) if sandbox else self._scraper.all())
        self._figures.scraped(asyncio.get_running_loop().time() - began)
        figures = None if sandbox else self._figures
        packed = _takes_gzip(request.fields.get("accept-encoding", ""))
        body = await off_loop(_written, families, figures, wanted, packed=packed)
        fields = {"Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if packed else {})
        return Answer(body, exposition.CONTENT_TYPE, fields=fields)

    async def _sandboxes(self, request: Request) -> Answer:
        return Answer("".join(f"{id}\n" for id in sorted(await self._scraper.sandboxes())).encode())

    async def _told_of_itself(self, request: Request) -> Answer:
        """What a shim tells of itself, or this process. A shim in Go has profiles that are no text."""
        sandbox = request.query.get("sandbox", "")
        if not sandbox:
            return await self._debug.answer(request)
        asked = {name: value for name, value in request.query.items() if name != "sandbox"}
        reply = await self._scraper.debug(sandbox, f"{quote(request.path)}?{urlencode(asked)}")
        kind = server.JSON if request.path == "/debug/vars" else server.TEXT if _is_text(reply.body) else _BYTES
        return Answer(reply.body, kind, HTTPStatus(reply.status))

    async def _agent_url(self, request: Request) -> Answer:
        sandbox = request.query.get("sandbox", "")
        if not sandbox:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the parameter sandbox is missing: a sandbox's id")
        return Answer(f"{await self._scraper.agent_url(sandbox)}\n".encode())


def _written(families: Families, figures: Figures | None, wanted: frozenset[str], *, packed: bool) -> bytes:
    text = families.text(wanted)
    if figures is not None:
        own = Families(named=str)
        own.add(figures.text(), {})
        text = own.text(wanted) + text
    body = text.encode()
    return gzip.compress(body, _COMPRESSION, mtime=0) if packed else body


def takes_html(field: str) -> bool:
    """Whether a field Accept names HTML: a browser's does, curl's does not, nor does Prometheus'."""
    return "text/html" in (each.partition(";")[0].strip() for each in field.lower().split(","))


def _takes_gzip(field: str) -> bool:
    """Whether a field Accept-Encoding has gzip. Source: RFC 9110, 12.5.3."""
    for each in field.lower().split(","):
        coding, _, weight = each.replace(" ", "").partition(";")
        if coding == "gzip":
            return weight.removeprefix("q=").strip("0.") != "" if weight else True
    return False


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _local(host: str) -> bool:
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
