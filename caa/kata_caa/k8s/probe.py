"""The kubelet's question whether the adaptor has started: a rolling update goes on to the next node then.

Source: cloud-api-adaptor `src/cloud-api-adaptor/pkg/probe`.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from lightkube.resources.core_v1 import Pod

from kata_caa.errors import SettingError, UnknownSandbox
from kata_caa.k8s import http
from kata_caa.k8s.api import EVERYWHERE, Api, ClusterError
from kata_caa.pods import Pods

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PORT = 8000


@dataclass(frozen=True, slots=True)
class Place:
    """What is asked about, and where.

    Attributes:
        socket: The socket that the runtime asks for machines.
        port: TCP port on the loopback; 0 has no probe.
        runtime_class: The class of peer pods.
    """

    socket: str = ""
    port: int = 0
    runtime_class: str = "kata-remote"

    @classmethod
    def of(cls, socket: str, environ: Mapping[str, str]) -> Place:
        """As `PROBE_PORT` and `RUNTIMECLASS_NAME` say.

        Raises:
            SettingError: The port is none.
        """
        text = environ.get("PROBE_PORT") or str(PORT)
        if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
            raise SettingError(f"PROBE_PORT: {text!r} is no TCP port")
        return cls(socket, int(text), environ.get("RUNTIMECLASS_NAME") or "kata-remote")


class Startup:
    """Whether the adaptor has started.

    It has when its socket accepts and every peer pod of the node is Ready. As upstream has it, a pod that was Ready
    before is to have become so again; but one that we have taken up has never ceased to be. This is asked until it
    was so once.

    Args:
        api: The API server.
        node: The node's name.
        place: What is asked about.
        pods: The node's peer pods, as we know them.
        now: When the adaptor started, in UTC.
    """

    def __init__(self, api: Api, node: str, place: Place, pods: Pods, now: datetime.datetime) -> None:
        self._api = api
        self._node = node
        self._place = place
        self._pods = pods
        self._begun = now.replace(microsecond=0)  # the API server's times are in whole seconds
        self._settled = False

    async def missing(self) -> str:
        """What is not yet as it should be; empty if all is."""
        try:
            _, writer = await asyncio.open_unix_connection(self._place.socket)
        except OSError as error:
            return f"{self._place.socket} does not accept: {error.strerror}"
        writer.close()
        try:
            pods, _ = await self._api.list(Pod, EVERYWHERE, fields={"spec.nodeName": self._node})
        except ClusterError as error:
            return str(error)
        for pod in pods:
            if pod.spec is None or pod.spec.runtimeClassName != self._place.runtime_class:
                continue
            if reason := await self._lacks(pod):
                return reason
        self._settled = True
        return ""

    async def _lacks(self, pod: Pod) -> str:
        assert pod.metadata is not None
        namespace, name = str(pod.metadata.namespace), str(pod.metadata.name)
        if pod.status is not None and pod.status.phase in ("Succeeded", "Failed"):
            return ""
        conditions = (pod.status.conditions or ()) if pod.status is not None else ()
        ready = next((each for each in conditions if each.type == "Ready" and each.status == "True"), None)
        if ready is None:
            return f"pod {namespace}/{name} is not Ready"
        since = ready.lastTransitionTime
        if self._settled or (since is not None and since >= self._begun) or await self._has(namespace, name):
            return ""
        return f"pod {namespace}/{name} has not become Ready since the adaptor started"

    async def _has(self, namespace: str, name: str) -> bool:
        try:
            return bool(await self._pods.instance_id(namespace, name, wait=False))
        except UnknownSandbox:
            return False


@asynccontextmanager
async def serving(api: Api, node: str, place: Place, pods: Pods) -> AsyncIterator[None]:
    """Answer the kubelet as long as the context lasts: `/startup`, and `/healthz`, which says that we are there.

    An adaptor that takes over listens at the same port.

    Raises:
        ServeError: The port cannot be listened at.
    """
    if not place.port:
        yield
        return
    startup = Startup(api, node, place, pods, datetime.datetime.now(datetime.UTC))

    async def answer(request: web.Request) -> web.Response:
        if reason := await startup.missing():
            logger.debug("not started yet: %s", reason)
            return web.Response(status=500, text=f"{reason}\n")
        return web.Response(text="started\n")

    application = web.Application()
    application.router.add_get("/startup", answer)
    application.router.add_get("/healthz", http.healthy)
    async with http.serving(application, ADDRESS, place.port, shared=True):
        yield
