"""The commands `peerpods-webhook` and `peerpod-controller`: what runs in a cluster beside the adaptors, once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from typing import Any

from kata_caa import flags, log, settings
from kata_caa.command import GROUP
from kata_caa.errors import AdaptorError, SettingError
from kata_caa.settings import setting


@dataclass(frozen=True)
class _Common:
    log_level: str = setting("info", "log-level", "LOG_LEVEL", "debug, info, warning or error; ours")


@dataclass(frozen=True)
class _Health:
    health_port: int = setting(8081, "health-port", "HEALTH_PORT", "TCP port of /healthz and /readyz; 0 is none; ours")


def webhook(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Make pods of the peer pods' class peer pods; returns the exit status."""
    return _command("peerpods-webhook", _webhook, arguments, environ)


def controller(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Delete the machines of pods that have gone; returns the exit status."""
    return _command("peerpod-controller", _controller, arguments, environ)


def _webhook(words: list[str], environ: Mapping[str, str]) -> Callable[[], Awaitable[None]]:
    from kata_caa.k8s.mutation import Rules
    from kata_caa.k8s.webhook import WebhookConfig, serving

    _, config = _settings((_Common, WebhookConfig), words, environ)

    async def serve() -> None:
        async with serving(config, Rules.of(environ)):
            await asyncio.Event().wait()

    return serve


def _controller(words: list[str], environ: Mapping[str, str]) -> Callable[[], Awaitable[None]]:
    from aiohttp import web

    from kata_caa.k8s import http
    from kata_caa.k8s.api import connected
    from kata_caa.k8s.controller import Controller

    name = words.pop(0) if words and not words[0].startswith("-") else environ.get("CLOUD_PROVIDER", "")
    found = entry_points(group=GROUP)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        raise SettingError(f"CLOUD_PROVIDER: unknown provider {name!r}; there is: {known}")
    try:
        factory: Any = found[name].load()
    except ImportError as error:
        raise AdaptorError(f"{error}; run: pip install 'kata-py[{name}]'") from error
    _, health, cloud = _settings((_Common, _Health, factory.config), words, environ)

    async def serve() -> None:
        application = web.Application()
        application.router.add_get("/healthz", http.healthy)
        application.router.add_get("/readyz", http.healthy)
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(connected())
            provider = await stack.enter_async_context(factory(cloud))
            if health.health_port:
                await stack.enter_async_context(http.serving(application, "", health.health_port))
            await Controller(api, provider, name).run()

    return serve


def _command(
    name: str,
    prepare: Callable[[list[str], Mapping[str, str]], Callable[[], Awaitable[None]]],
    arguments: Sequence[str] | None,
    environ: Mapping[str, str] | None,
) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["version"], ["-version"], ["--version"]):
        print(f"{name} {version('kata-py')}")  # noqa: T201 a command
        return 0
    try:
        asyncio.run(_until_told(prepare(words, os.environ if environ is None else environ)))
    except SettingError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 a command
        return 2
    except AdaptorError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 a command
        return 1
    return 0


async def _until_told(serve: Callable[[], Awaitable[None]]) -> None:
    """Serve until SIGINT or SIGTERM; what fails first is raised as it is."""
    task = asyncio.ensure_future(serve())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("told to end")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _settings(shapes: Sequence[type], words: Sequence[str], environ: Mapping[str, str]) -> tuple[Any, ...]:
    """The settings, in dataclasses; the first one is `_Common`, and takes effect."""
    all_of_them = [(field, how) for shape in shapes for field, how in settings.settings_of(shape) if how.flag]
    names = {how.flag for _, how in all_of_them}
    values, left = flags.parse(
        words, names, {how.flag for field, how in all_of_them if isinstance(field.default, bool)}
    )
    if left:
        raise SettingError(
            f"{' '.join(left)}: not understood; flags are: {', '.join(f'-{each}' for each in sorted(names))}"
        )
    loaded: tuple[Any, ...] = tuple(settings.load(shape, values, environ) for shape in shapes)
    log.begin(loaded[0].log_level)
    return loaded
