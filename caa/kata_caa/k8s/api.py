"""The API server: lightkube's client, with errors that say what was asked for, and what to do.

lightkube and the HTTP library below it are known here alone, but for the kinds of objects.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx2
from lightkube import ALL_NS, ApiError, AsyncClient, KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError
from lightkube.core.resource import Resource, api_info
from lightkube.types import PatchType

from kata_caa.errors import AdaptorError

EVERYWHERE = ALL_NS
CALL_TIMEOUT = 10.0  # seconds that a call may take
WATCH_TIMEOUT = 240  # seconds after which the API server ends a watch, so that none goes on with nobody at its end
_WATCH_GRACE = 30.0  # seconds that it may take to do so

R = TypeVar("R", bound=Resource)


class ClusterError(AdaptorError):
    """The API server did not do what it was asked for.

    Attributes:
        code: HTTP's status; 0 if there was no answer.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code

    @property
    def missing(self) -> bool:
        """Whether there is no such object."""
        return self.code == 404

    @property
    def conflicting(self) -> bool:
        """Whether the object is there already, or another one by now."""
        return self.code == 409

    @property
    def unfit(self) -> bool:
        """Whether the object is not as the request wants it: a patch's test, a field's value."""
        return self.code == 422


class Api:
    """The API server. Every call takes `CALL_TIMEOUT` at most, and raises `ClusterError`.

    Args:
        client: lightkube's.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client: Any = client  # its overloads tell kinds with a namespace from those without; here both pass

    async def get(self, kind: type[R], name: str, namespace: str | None = None) -> R:
        """One object."""
        async with _asking("get", kind, namespace, name):
            found: R = await self._client.get(kind, name, namespace=namespace)
            return found

    async def list(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> tuple[Sequence[R], str]:
        """Objects, and the version from which to watch on.

        Args:
            kind: Of what kind.
            namespace: Where; `EVERYWHERE` is all of them.
            labels: What they bear.
            fields: What their fields are.
        """
        async with _asking("list", kind, namespace):
            found = self._client.list(kind, namespace=namespace, labels=labels, fields=fields)
            items: list[R] = [each async for each in found]
            return items, str(found.resourceVersion)

    async def create(self, thing: R, namespace: str | None = None) -> R:
        """Make an object."""
        async with _asking("create", type(thing), namespace):
            made: R = await self._client.create(thing, namespace=namespace)
            return made

    async def merge(self, kind: type[R], name: str, change: Mapping[str, Any], namespace: str | None = None) -> R:
        """Change an object by a merge patch (RFC 7386)."""
        return await self._patch(kind, name, dict(change), namespace, PatchType.MERGE)

    async def patch(
        self, kind: type[R], name: str, operations: Sequence[Mapping[str, Any]], namespace: str | None = None
    ) -> R:
        """Change an object by a JSON patch (RFC 6902)."""
        return await self._patch(kind, name, list(operations), namespace, PatchType.JSON)

    async def delete(self, kind: type[R], name: str, namespace: str | None = None) -> None:
        """Delete an object."""
        async with _asking("delete", kind, namespace, name):
            await self._client.delete(kind, name, namespace=namespace)

    async def watch(self, kind: type[R], version: str, namespace: str | None = None) -> AsyncIterator[tuple[str, R]]:
        """What becomes of objects after a version: `ADDED`, `MODIFIED` or `DELETED`, and the object. Goes on for ever.

        Raises:
            ClusterError: It was ended; code 410 means that the version is too old, and that they are listed again.
        """
        news = aiter(
            self._client.watch(kind, namespace=namespace, resource_version=version, server_timeout=WATCH_TIMEOUT)
        )
        try:
            while True:
                async with _asking("watch", kind, namespace, bound=WATCH_TIMEOUT + _WATCH_GRACE):
                    event: tuple[str, R] = await anext(news)
                yield event
        finally:
            await news.aclose()

    async def _patch(self, kind: type[R], name: str, change: object, namespace: str | None, how: PatchType) -> R:
        async with _asking("patch", kind, namespace, name):
            changed: R = await self._client.patch(kind, name, change, namespace=namespace, patch_type=how)
            return changed


@asynccontextmanager
async def connected() -> AsyncIterator[Api]:
    """The API server of `KUBECONFIG`, if it is set; else of the cluster that we are in, or of `~/.kube/config`.

    Raises:
        ClusterError: Neither is there, or it cannot be used.
    """
    try:
        client = AsyncClient(await asyncio.to_thread(_config))
    except (ConfigError, OSError, KeyError, ValueError) as error:
        raise ClusterError(
            f"the API server is not known: {error}; give the pod a service account, or set KUBECONFIG"
        ) from error
    try:
        yield Api(client)
    finally:
        await client.aclose()


def _config() -> SingleConfig | None:
    """lightkube would take the cluster that we are in before what is said expressly."""
    path = os.environ.get("KUBECONFIG")
    return (KubeConfig.from_file(path) if path else KubeConfig.from_env()).get()


@asynccontextmanager
async def _asking(
    verb: str, kind: type[Resource], namespace: str | None, name: str = "", *, bound: float = CALL_TIMEOUT
) -> AsyncIterator[None]:
    with _told(verb, kind, namespace, name, bound):
        async with asyncio.timeout(bound):
            yield


@contextmanager
def _told(verb: str, kind: type[Resource], namespace: str | None, name: str, bound: float) -> Iterator[None]:
    info = api_info(kind)
    group = (info.parent or info.resource).group
    resource = f"{info.plural}/{info.action}" if info.action else info.plural
    where = "/".join(filter(None, (namespace if namespace != EVERYWHERE else "", name)))
    stage = " ".join(filter(None, (f"{verb} {resource}", where)))
    try:
        yield
    except httpx2.HTTPStatusError as error:
        if isinstance(error, ApiError):
            code, said = int(error.status.code or 0), error.status.message or error.status.reason
        else:  # of a proxy on the way
            code, said = error.response.status_code, None
        text = f"{stage}: the API server refuses: {said or f'status {code}'}"
        if code in (401, 403):
            text += f"; a role must allow verb {verb!r} on resource {resource!r} of API group {group!r}"
        raise ClusterError(text, code) from error
    except httpx2.HTTPError as error:
        raise ClusterError(
            f"{stage}: the API server cannot be reached: {str(error) or type(error).__name__}"
        ) from error
    except TimeoutError as error:
        raise ClusterError(f"{stage}: the API server has not answered in {bound:.0f} s") from error
    except (ConfigError, ValueError) as error:  # a token that has gone; an answer that is none
        raise ClusterError(f"{stage}: {error}") from error
