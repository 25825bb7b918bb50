"""The forwarder's life: the pod's network, then its listener, until it is told to stop.

Of a machine that was started before its pod, the listener comes first, and waits there for the pod.

Source: cloud-api-adaptor `pkg/forwarder/forwarder.go`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kata_caa.apf import ForwarderConfig, PodNetwork
from kata_caa.errors import ForwarderError, SettingError
from kata_caa.forwarder import command
from kata_caa.forwarder.command import Options
from kata_caa.forwarder.console import tell
from kata_caa.forwarder.interceptor import HOOKED, Interceptor
from kata_caa.forwarder.policy import enforce
from kata_caa.forwarder.service import Forwarder, listening
from kata_caa.notice import notify
from kata_py.ttrpc.address import UnixAddress

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

NETWORK_TIMEOUT: Final = 200.0
"""Seconds for the pod's network: the tunnel's own waits are shorter."""


def run(options: Options) -> None:
    """Run by the options, until SIGTERM or SIGINT.

    Raises:
        AdaptorError: It cannot start.
    """
    asyncio.run(serve(options, command.load(options.config)))


async def serve(
    options: Options, config: ForwarderConfig, stage: Callable[[str], None] = tell, *, policy: Path | None = None
) -> None:
    """Set up the pod's network, take connections, and return when told to stop.

    Args:
        options: How.
        config: What `apf.json` says.
        stage: Told of each stage that is done.
        policy: Where the pod's policy may be, of which the agent is to be told; None if it finds it by itself.

    Raises:
        AdaptorError: It cannot start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tls = context(options, config)  # before anything is changed
    host, port = listen_address(options.listen)
    async with AsyncExitStack() as stack:
        listener = None
        if config.unbound:
            from kata_caa.forwarder import binding

            listener = stack.enter_context(listening(host, port))
            stage(f"unbound on {_name(listener)}")
            notify("READY=1")
            _load()
            bound = await binding.wait(listener, tls, stop)
            if bound is None:
                return
            config, tls = bound, context(options, bound)
            stage("bound to a pod")
        await _set_up_network(config.network, options)
        stage("pod network")
        agent = UnixAddress(options.agent_socket)
        if policy is not None:
            await enforce(agent, policy)
        forwarder = Forwarder(agent, Interceptor(options.pod_namespace), HOOKED)
        stack.push_async_callback(forwarder.close)
        listener = listener or listening(host, port)
        await forwarder.serve(listener, tls)
        stage(f"ready on {_name(listener)}")
        notify("READY=1")
        await stop.wait()


def context(options: Options, config: ForwarderConfig) -> ssl.SSLContext | None:
    """The listener's TLS: of the files that were named, else of `apf.json`; None is without.

    Raises:
        AdaptorError: A part cannot be used, or nobody would be verified without that being asked for.
    """
    if options.disable_tls:
        return None
    from kata_caa.forwarder import tls

    named = bool(options.cert_file and options.key_file)
    material = tls.Material(
        certificate=_read(options.cert_file) if named else config.tls_server_cert,
        key=_read(options.key_file) if named else config.tls_server_key,
        client_ca=_read(options.ca_file) if options.ca_file else config.tls_client_ca,
        min_version=config.tls_min_version,
        cipher_suites=config.tls_cipher_suites,
    )
    if options.skip_verify and material.client_ca:
        raise SettingError("-tls-skip-verify goes with no certificates that are trusted")
    if not options.skip_verify and not material.client_ca:
        raise SettingError("whom to trust is not said: apf.json has no tls-client-ca, and there is no -ca-cert-file")
    return tls.server_context(material)


def listen_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port`, `:port`.

    Raises:
        SettingError: It has another form.
    """
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise SettingError(f"-listen: {text!r:.100} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


def _load() -> None:
    """Load what a pod's network takes: there is time while the pod is waited for."""
    importlib.import_module("kata_caa.tunnel.pod")
    importlib.import_module("kata_protos.agent_pb2")


def _name(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"{host}:{port}"


async def _set_up_network(network: PodNetwork, options: Options) -> None:
    if options.host_interface:
        logger.warning("-host-interface is not needed: the tunnel takes the interface that leads to the node")
    if not network.pod_ip:
        logger.warning("apf.json tells of no pod network: none is set up")
        return
    from kata_caa.tunnel import pod

    try:
        async with asyncio.timeout(NETWORK_TIMEOUT):
            await pod.set_up(network, Path(options.pod_namespace))
    except TimeoutError:
        raise ForwarderError(f"waited {NETWORK_TIMEOUT:g} s for the pod's network to be set up") from None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
