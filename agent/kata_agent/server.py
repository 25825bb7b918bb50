"""The agent's server, from listening to its end.

Health is answered in bytes before any message class is loaded; the rest is loaded meanwhile, in a thread, so
that the first real call finds it there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import threading
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from kata_agent import __version__
from kata_agent.container.reaper import Reaper
from kata_py.ttrpc.address import parse
from kata_py.ttrpc.server import Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from kata_agent.cmdline import Parameters
    from kata_agent.rpc.service import Agent
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Service

_LOG = logging.getLogger(__name__)

_CLOSE_TIMEOUT = 5.0  # seconds in which the last answers leave

# grpc.HealthCheckResponse{status=SERVING} and grpc.VersionCheckResponse{grpc_version, agent_version} on the wire.
_SERVING = b"\x08\x01"
_VERSION = b"".join(bytes((tag, len(text))) + text.encode() for tag, text in ((0x0A, "0.0.1"), (0x12, __version__)))


async def serve(
    parameters: Parameters, listener: socket.socket | None = None, marks: Sequence[tuple[str, int]] = ()
) -> None:
    """Serve until the sandbox is destroyed, or SIGTERM comes.

    Args:
        parameters: The agent's parameters.
        listener: A socket that listens already, to be served instead of the address.
        marks: The steps up to here, each with the moment it began, for who traces.

    Raises:
        ListenError: The address cannot be listened on.
    """
    marks = [*marks, ("boot: listen", time.monotonic_ns())]
    async with AsyncExitStack() as stack:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        reaper = Reaper()
        reaper.start()
        stack.callback(reaper.close)
        await _open_ports(stack, parameters, reaper)
        server = Server()
        server.add_raw("grpc.Health", "Check", _check)
        server.add_raw("grpc.Health", "Version", _version)
        agent = functools.cache(lambda: _agent(stack, reaper, parameters, ended, marks))
        server.add_lazy("grpc.AgentService", agent)
        server.add_lazy("katapy.agent.v1.Telemetry", lambda: _telemetry(agent()))
        if listener is not None:
            await server.serve(listener)
        else:
            await server.listen(parse(parameters.server_addr))
        marks.append(("", time.monotonic_ns()))
        threading.Thread(target=_warm, name="warm", daemon=True).start()
        _LOG.info("kata-agent %s serves %s", __version__, "its socket" if listener else parameters.server_addr)
        if parameters.without_effect:
            _LOG.warning("this agent has not what is asked for by %s", ", ".join(parameters.without_effect))
        await ended.wait()
        server.close()
        await server.wait_closed(_CLOSE_TIMEOUT)


async def _open_ports(stack: AsyncExitStack, parameters: Parameters, reaper: Reaper) -> None:
    if not parameters.log_vport and not parameters.debug_console:
        return  # as in most guests, and nothing is loaded for them
    from kata_agent import ports

    if parameters.log_vport:
        place = ports.address(parameters.server_addr, parameters.log_vport, ports.LOG)
        await ports.open_log(stack, parameters, place)
    if parameters.debug_console:
        vport = parameters.debug_console_vport
        at = ports.address(parameters.server_addr, vport, ports.DEBUG_CONSOLE) if vport else None
        await ports.open_debug_console(stack, reaper, at)


async def _check(_payload: bytes, _context: Context) -> bytes:
    return _SERVING


async def _version(_payload: bytes, _context: Context) -> bytes:
    return _VERSION


def _agent(
    stack: AsyncExitStack,
    reaper: Reaper,
    parameters: Parameters,
    ended: asyncio.Event,
    marks: Sequence[tuple[str, int]],
) -> Agent:
    from functools import partial
    from pathlib import Path

    from kata_agent import modules
    from kata_agent.container.crun import Crun
    from kata_agent.device.finder import Finder
    from kata_agent.device.table import DeviceTable
    from kata_agent.errors import AgentError
    from kata_agent.policy.guard import Guard
    from kata_agent.rpc.service import Agent
    from kata_agent.sandbox import Sandbox
    from kata_agent.storage.context import Workshop
    from kata_agent.trace import Tracer

    try:
        guard = Guard.from_file(parameters.policy_file)
    except AgentError:
        ended.set()  # a guest that should have a policy and has none serves nobody
        _LOG.critical("no policy, no service: the agent ends", exc_info=True)
        raise
    crun = Crun(reaper, Path("/run/kata-agent"), pipe_capacity=parameters.container_pipe_size)
    finder = Finder(partial(modules.load, reaper), timeout=parameters.hotplug_timeout)
    devices = DeviceTable(finder, parameters.cdi_timeout)
    workshop = Workshop(finder, reaper, proxies=_proxies(parameters))
    stack.push_async_callback(workshop.aclose)
    if parameters.pause_bundle:
        workshop.pause_bundle = Path(parameters.pause_bundle)
    sandbox = Sandbox(crun, ended, workshop, devices)
    return Agent(sandbox, reaper, guard, parameters, Tracer(marks) if parameters.tracing else None)


def _telemetry(agent: Agent) -> Service:
    from kata_agent.rpc.telemetry import Telemetry

    return Telemetry(agent.guard, agent.tracer)


def _proxies(parameters: Parameters) -> dict[str, str]:
    """Variables that programs know: for both kinds of registries, as those without TLS are asked by the same way."""
    if not parameters.https_proxy:
        return {}
    proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), parameters.https_proxy)
    return {**proxies, "NO_PROXY": parameters.no_proxy} if parameters.no_proxy else proxies


def _warm() -> None:
    import kata_agent.container.crun
    import kata_agent.device.finder
    import kata_agent.device.table
    import kata_agent.rpc.service  # noqa: F401 loaded for those who come
