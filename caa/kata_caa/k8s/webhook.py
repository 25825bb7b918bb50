"""The admission webhook that makes pods peer pods, over HTTPS.

What it does to a pod is `kata_caa.k8s.mutation`'s. Source: cloud-api-adaptor `src/webhook/main.go`; Kubernetes'
documents on dynamic admission control.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from kata_caa.errors import MalformedConfig, SettingError
from kata_caa.forwarder.tls import Material, server_context
from kata_caa.k8s import http
from kata_caa.k8s.mutation import Rules, review
from kata_caa.settings import setting
from kata_py.resource.inotify import watching

logger = logging.getLogger(__name__)

PATH = "/mutate-v1-pod"
BODY_MAX = 7 << 20  # bytes: a pod is 3 MiB at most, and of an update there are two
READ_TIMEOUT = 10.0  # seconds until a request must be there: the API server waits no longer for an answer


@dataclass(frozen=True)
class WebhookConfig:
    """The webhook's settings."""

    host: str = setting("", "host", "WEBHOOK_HOST", "the address listened at; empty is all; ours")
    port: int = setting(9443, "port", "WEBHOOK_PORT", "TCP port; ours")
    health_port: int = setting(8081, "health-port", "HEALTH_PORT", "TCP port of /healthz and /readyz; 0 is none; ours")
    cert_dir: str = setting(
        "/tmp/k8s-webhook-server/serving-certs", "cert-dir", "CERT_DIR", "where tls.crt and tls.key are; ours"
    )
    tls_min_version: str = setting("", "tls-min-version", "TLS_MIN_VERSION", "VersionTLS12 or VersionTLS13")
    tls_cipher_suites: str = setting(
        "", "tls-cipher-suites", "TLS_CIPHER_SUITES", "IANA's names of suites for TLS 1.2, comma-separated"
    )


@asynccontextmanager
async def serving(config: WebhookConfig, rules: Rules) -> AsyncIterator[int]:
    """Serve as long as the context lasts; yields the port.

    Raises:
        SettingError: Settings of TLS contradict each other, or there is no certificate that can be used.
        ServeError: A port cannot be listened at.
    """
    application = web.Application(client_max_size=BODY_MAX)
    application.router.add_post(PATH, _Reviews(rules).answer)
    health = web.Application()
    health.router.add_get("/healthz", http.healthy)
    health.router.add_get("/readyz", http.healthy)
    async with AsyncExitStack() as stack:
        tls = await stack.enter_async_context(_renewed(config))
        port = await stack.enter_async_context(http.serving(application, config.host, config.port, tls))
        if config.health_port:
            await stack.enter_async_context(http.serving(health, config.host, config.health_port))
        logger.info("pods of class %s are changed, at port %d", rules.runtime_class, port)
        yield port


class _Reviews:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def answer(self, request: web.Request) -> web.Response:
        """A review; what is none is the client's fault, and told so."""
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="a review is application/json\n")
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the review is not there in {READ_TIMEOUT:.0f} s\n") from None
        try:
            answer = review(body, self._rules)
        except MalformedConfig as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.Response(body=answer, content_type="application/json")


@asynccontextmanager
async def _renewed(config: WebhookConfig) -> AsyncIterator[ssl.SSLContext]:
    """A listener's context whose certificate is the one in the directory, as Kubernetes replaces it: by renaming.

    A pair that cannot be used is put down, and the last good one stays.
    """
    if config.tls_min_version == "VersionTLS13" and config.tls_cipher_suites:
        raise SettingError("-tls-cipher-suites: the suites of TLS 1.3 cannot be chosen")
    directory = Path(config.cert_dir)
    try:
        async with watching(directory) as news:
            listening = current = await asyncio.to_thread(_context, directory, config)

            def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
                connection.context = current

            async def follow() -> None:
                nonlocal current
                while True:
                    await news.wait()
                    news.clear()
                    try:
                        current = await asyncio.to_thread(_context, directory, config)
                    except SettingError as error:
                        logger.warning("the certificate stays: %s", error)
                    else:
                        logger.info("the certificate is read anew")

            listening.sni_callback = choose  # called for every connection, whether it names a server or not
            following = asyncio.create_task(follow(), name="certificate")
            try:
                yield listening
            finally:
                following.cancel()
                await asyncio.wait([following])
    except OSError as error:
        raise SettingError(f"-cert-dir: {directory}: {error.strerror or error}") from error


def _context(directory: Path, config: WebhookConfig) -> ssl.SSLContext:
    try:
        certificate, key = ((directory / name).read_text() for name in ("tls.crt", "tls.key"))
        return server_context(
            Material(certificate, key, min_version=config.tls_min_version, cipher_suites=config.tls_cipher_suites)
        )
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"-cert-dir: {error}") from error
    except MalformedConfig as error:
        raise SettingError(f"-cert-dir: {directory}/tls.crt, tls.key: {error}") from error
