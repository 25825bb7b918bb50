"""A hypervisor driver whose machine is a sleeping process, and whose guest is whoever listens at sockets of a test's.

So a test can be the guest of a real shim: the agent, its log and the console are what the test says they are, and the
shim's memory and processor time are its own. The configuration's `kernel_params` name the sockets' directory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kata_py.config.model import Configuration
from kata_py.hypervisor.api import Device, GuestDevice, HypervisorError, Ports, VmExit, VmSpec
from kata_py.resource.journal import Journal, undone
from kata_py.resource.process import spawn
from kata_py.resource.undo import RemoveTree
from kata_py.ttrpc.address import UnixAddress
from kata_qemu.console import Console
from kata_qemu.lines import Tail, reading

AGENT, LOG, CONSOLE = "agent.sock", "log.sock", "console.sock"


class OutsideVm:
    """A machine; satisfies `kata_py.hypervisor.api.Vm` and `OffersPorts`."""

    def __init__(self, sockets: Path, child: asyncio.subprocess.Process, tail: Tail) -> None:
        self.agent = UnixAddress(str(sockets / AGENT))
        self.ports = Ports(log=UnixAddress(str(sockets / LOG)))
        self._child = child
        self._tail = tail

    @property
    def pid(self) -> int:
        return self._child.pid

    def console_tail(self) -> tuple[str, ...]:
        return self._tail.lines

    async def wait(self) -> VmExit:
        await self._child.wait()
        return VmExit("the machine has ended", evidence=self.console_tail())

    async def attach(self, device: Device) -> GuestDevice:
        raise HypervisorError("outside", "nothing can be attached")

    async def detach(self, device: GuestDevice) -> None:
        raise HypervisorError("outside", "nothing was attached")


class OutsideHypervisor:
    """The driver; satisfies `kata_py.hypervisor.api.Hypervisor`."""

    name = "outside"

    def __init__(self, configuration: Configuration) -> None:
        self._sockets = Path(configuration.hypervisor.kernel_params)

    @asynccontextmanager
    async def launch(self, spec: VmSpec, journal: Journal) -> AsyncIterator[OutsideVm]:
        """As `Hypervisor.launch`; the test listens by then."""
        tail = Tail()
        async with AsyncExitStack() as stack:
            try:
                with journal.span("outside"):
                    stack.enter_context(undone(journal, RemoveTree(str(spec.directory))))
                    spec.directory.mkdir(parents=True)
                    child = await stack.enter_async_context(spawn(journal, "machine", ["/bin/sleep", "infinity"]))
                    console = stack.enter_context(socket.socket(socket.AF_UNIX))
                    console.connect(str(self._sockets / CONSOLE))
                    lines = Console(self._sockets / CONSOLE, tail, journal)
                    stack.enter_context(reading(console.fileno(), lines.take))
            except OSError as error:
                raise HypervisorError("outside", str(error)) from error
            yield OutsideVm(self._sockets, child, tail)
