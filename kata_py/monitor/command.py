"""The command `kata-monitor`. Flags are those of kata `src/runtime/cmd/kata-monitor/main.go`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kata_py.http.server import serving_tcp
from kata_py.monitor.errors import MonitorError
from kata_py.sandbox import sockets

NAME = "kata-monitor"
LISTEN_ADDRESS = "127.0.0.1:8090"
RUNTIME_ENDPOINT = "/run/containerd/containerd.sock"

# logrus' names, and what is meant by them here.
_LEVELS = {
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING,
    "warning": logging.WARNING, "error": logging.ERROR, "fatal": logging.CRITICAL, "panic": logging.CRITICAL,
}  # fmt: skip

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["version"], ["--version"], ["-version"]):
        sys.stdout.write(f"{NAME} (kata-py) {_version()}\n")
        return 0
    parsed = _parser().parse_args(words)
    logging.basicConfig(
        stream=sys.stderr,
        level=_LEVELS[parsed.log_level],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    host, port = parsed.listen_address
    try:
        asyncio.run(_until_told(host, port, parsed.runtime_endpoint))
    except MonitorError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 1
    return 0


async def serve(
    host: str, port: int, runtime: Path | None, roots: tuple[Path, ...], ready: asyncio.Future[int] | None = None
) -> None:
    """Serve until cancelled.

    Args:
        host: The address; empty is every address.
        port: TCP port; 0 is any.
        runtime: The socket of the CRI's runtime; None is none.
        roots: Where the sandboxes' sockets are.
        ready: Is given the port, once it is listened at.

    Raises:
        MonitorError: It cannot be served.
    """
    try:
        from kata_py.monitor.figures import Figures
        from kata_py.monitor.pods import Pods
        from kata_py.monitor.scrape import Scraper
        from kata_py.monitor.service import Service
    except ImportError as error:
        raise MonitorError(f"{error}; run: pip install 'kata-py[monitor]'") from error
    for root in roots:
        if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
            logger.warning("%s cannot be read: its sandboxes are not seen; run %s as root", root, NAME)
    figures = Figures()
    scraper = Scraper(figures, None if runtime is None else Pods(runtime), roots)
    try:
        async with scraper.open(), serving_tcp(host, port, Service(scraper, figures, host).answer) as bound:
            logger.info("%s %s listens at %s:%d", NAME, _version(), host, bound)
            if ready is not None:
                ready.set_result(bound)
            await asyncio.Event().wait()
    except OSError as error:
        raise MonitorError(f"{host}:{port} cannot be listened at: {error.strerror or error}") from error


async def _until_told(host: str, port: int, runtime: Path | None) -> None:
    task = asyncio.ensure_future(serve(host, port, runtime, sockets.ROOTS))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logger.info("told to end")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        NAME, allow_abbrev=False, description="Tell Prometheus the figures of all sandboxes on this node.",
        epilog="Run it as root: the sandboxes' sockets are root's.",
    )  # fmt: skip
    parser.add_argument(
        "-listen-address", "--listen-address", type=_address, default=LISTEN_ADDRESS, metavar="HOST:PORT",
        help=f"where to listen; without a host at all addresses (default: {LISTEN_ADDRESS})",
    )  # fmt: skip
    parser.add_argument(
        "-runtime-endpoint", "--runtime-endpoint", type=_endpoint, default=RUNTIME_ENDPOINT, metavar="SOCKET",
        help=f"the CRI's runtime, which knows the pods' names; empty is none (default: {RUNTIME_ENDPOINT})",
    )  # fmt: skip
    parser.add_argument(
        "-log-level", "--log-level", choices=_LEVELS, default="info", metavar="LEVEL",
        help=f"{', '.join(_LEVELS)} (default: info)",
    )  # fmt: skip
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535 or (":" in host and not bracketed):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, :PORT or [ADDRESS]:PORT, not {text!r}")
    return host[1:-1] if bracketed else host, int(port)


def _endpoint(text: str) -> Path | None:
    path = text.removeprefix("unix://")
    if path and not path.startswith("/"):
        raise argparse.ArgumentTypeError(f"expected the path of a Unix socket, not {text!r}")
    return Path(path) if path else None


def _version() -> str:
    try:
        return version("kata-py")
    except PackageNotFoundError:
        return "unknown (not installed as a distribution)"
