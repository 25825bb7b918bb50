"""What the agent offers besides its calls, if its parameters say so: its log, and a shell for who debugs the guest.

A guest with vsock has a port number for each. One whose agent is called over virtio-serial has no vsock; there
each is a port by name, which its number merely turns on. A port that cannot be opened costs nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError
from kata_py.ttrpc import transport
from kata_py.ttrpc.address import SerialAddress, VsockAddress
from kata_py.ttrpc.errors import TtrpcError

if TYPE_CHECKING:
    from kata_agent.cmdline import Parameters
    from kata_agent.container.reaper import Reaper
    from kata_py.ttrpc.address import Address

LOG = "agent.log.0"
DEBUG_CONSOLE = "agent.debug_console.0"

_LOG = logging.getLogger(__name__)


def address(server_addr: str, vport: int, name: str) -> Address:
    """The address to listen at.

    Args:
        server_addr: Where the agent itself is called.
        vport: A vsock port.
        name: Of the virtio-serial port that stands for it.
    """
    return SerialAddress("", name) if server_addr.startswith("virtio-serial:") else VsockAddress(-1, vport)


async def open_log(stack: AsyncExitStack, parameters: Parameters, place: Address) -> None:
    """Let the log be read at an address; the console keeps warnings and worse, which may tell of a guest's end.

    Args:
        stack: What is opened is closed with it.
        parameters: Told in the first record.
        place: The address.
    """
    from kata_agent import __version__, features
    from kata_agent.log_port import LogPort

    port = LogPort(asyncio.get_running_loop())
    try:
        stack.callback((await transport.listen(place, port.accept)).close)
    except TtrpcError as error:
        _LOG.error("the log stays on the console: %s", error)
        return
    root = logging.getLogger()
    for handler in root.handlers:
        handler.setLevel(logging.WARNING)
    root.addHandler(port)
    stack.callback(root.removeHandler, port)
    announced = {"agent-version": __version__, "config": parameters._asdict(), "extra-features": features.extra()}
    _LOG.info("announce", extra={"fields": announced})


async def open_debug_console(stack: AsyncExitStack, reaper: Reaper, place: Address | None) -> None:
    """Offer a shell at an address, or on the console.

    Args:
        stack: What is opened is closed with it.
        reaper: Starts the shells.
        place: The address; None is the console.
    """
    from kata_agent import debug_console

    try:
        console = debug_console.DebugConsole(reaper, debug_console.shell())
        if place is None:
            task = asyncio.create_task(console.serve(), name="debug console")
            stack.callback(task.cancel)
        else:
            stack.callback((await transport.listen(place, console.accept)).close)
    except (AgentError, TtrpcError) as error:
        _LOG.error("no debug console: %s", error)
        return
    _LOG.warning("debug console: whoever reaches %s has a shell in this guest", place or "the console")
