"""A bare virtual machine to measure and test the guest in: QEMU, a console, the agent's port. No shim, no share."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kata_py.ttrpc.address import SerialAddress
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.errors import TtrpcError

GUEST = Path(__file__).parents[1] / "build/guest"
MACHINE = "q35,accel=tcg,memory-backend=ram,smm=off,vmport=off,smbus=off,sata=off,i8042=off"
CPU = "max,-erms"  # emulated, `rep stosb` goes byte by byte; a kernel that does not know of it clears pages by words
_DISK_SLOT = 0x10  # on the PCI bus, of the first disk besides the root
PARAMETERS = ("console=ttyS0", "quiet", "panic=1", "reboot=t", "cryptomgr.notests")


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine boots.

    Attributes:
        kernel: An ELF or bzImage kernel.
        initramfs: Its initramfs.
        image: The root.
        parameters: Kernel parameters besides the machine's.
        root: The disk that is mounted, as the guest calls it.
        address: Where the agent listens.
        memory: MiB.
        arguments: More of QEMU's, for devices besides the usual.
        ports: Names of virtio-serial ports besides the agent's; each has a socket of that name.
        disks: Raw files that are disks besides the root.
    """

    kernel: Path
    initramfs: Path
    image: Path
    parameters: tuple[str, ...]
    root: str = "/dev/vda"
    address: str = "virtio-serial://agent.channel.0"
    memory: int = 2048
    arguments: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    disks: tuple[Path, ...] = ()

    def append(self) -> str:
        """The kernel's parameters."""
        root = (f"root={self.root}", "rootfstype=erofs", "ro")
        return " ".join((*PARAMETERS, *self.parameters, *root, f"agent.server_addr={self.address}"))


def guest() -> Boot:
    """The guest as `make guest` left it."""
    boot = json.loads((GUEST / "boot.json").read_text())
    return Boot(GUEST / boot["kernel"], GUEST / boot["initramfs"], GUEST / boot["image"], tuple(boot["parameters"]))


class BootError(Exception):
    """A guest did not do what it was to; has the console's last lines."""

    def __init__(self, machine: Machine, cause: str) -> None:
        lines = "\n".join(text for _, text in machine.console[-15:])
        super().__init__(f"{cause}; the console's last lines:\n{lines}")


@dataclass(slots=True)
class Machine:
    """A running machine.

    Attributes:
        process: QEMU.
        began: When it was executed, by the monotonic clock.
        sockets: Directory of its sockets.
        console: What it said: seconds since it began, and the line.
    """

    process: asyncio.subprocess.Process
    began: float
    sockets: Path
    console: list[tuple[float, str]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def said(self, line: str, timeout: float = 30.0) -> float:
        """Wait for a line on the console; returns the seconds from QEMU's start to it.

        Raises:
            BootError: It did not come.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for seconds, text in self.console:
                        if text == line:
                            return seconds
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BootError(self, f"no {line!r} within {timeout:g} s") from None

    @asynccontextmanager
    async def agent(self, timeout: float = 30.0) -> AsyncIterator[tuple[Client, float]]:
        """A client of the agent once it has answered `Check`, and the seconds from QEMU's start to that answer.

        The request is sent at once and waits in the channel until the agent reads it: nothing polls.

        Raises:
            BootError: No answer came.
        """
        async with connect(SerialAddress(str(self.sockets / "agent")), timeout=5.0) as client:
            try:
                await client.call("grpc.Health", "Check", b"", timeout=timeout)
            except TtrpcError as error:
                raise BootError(self, str(error)) from error
            yield client, time.monotonic() - self.began

    async def listen(self) -> None:
        """Collect the console; ends with the machine."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.console.append((time.monotonic() - self.began, line.decode(errors="replace").strip()))
            self._news.set()

    async def used_memory(self, timeout: float = 10.0) -> int:
        """Bytes of the guest's memory in use: MemTotal less MemAvailable, as its balloon driver tells.

        Raises:
            TimeoutError: The balloon told nothing; its module is one of those that the agent loads.
        """
        balloon = "/machine/peripheral/balloon"
        async with asyncio.timeout(timeout), self._monitor() as monitor:
            await monitor("qom-set", path=balloon, property="guest-stats-polling-interval", value=1)
            while True:
                told = await monitor("qom-get", path=balloon, property="guest-stats")
                if told["last-update"]:
                    return int(told["stats"]["stat-total-memory"] - told["stats"]["stat-available-memory"])
                await asyncio.sleep(0.1)

    async def plug(self, kind: str, **properties: str) -> None:
        """Plug a device in.

        Raises:
            OSError: QEMU refuses; has what it says.
            TimeoutError: It does not answer.
        """
        async with asyncio.timeout(10), self._monitor() as monitor:
            await monitor("device_add", driver=kind, **properties)

    @asynccontextmanager
    async def _monitor(self) -> AsyncIterator[Any]:
        reader, writer = await asyncio.open_unix_connection(self.sockets / "monitor")

        async def command(name: str, **arguments: object) -> Any:
            writer.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            while True:
                message = json.loads(await reader.readline())
                if "error" in message:
                    raise OSError(f"{name}: {message['error']['desc']}")
                if "return" in message:
                    return message["return"]

        try:
            await command("qmp_capabilities")
            yield command
        finally:
            writer.close()


@asynccontextmanager
async def run(boot: Boot) -> AsyncIterator[Machine]:
    """A machine, from its start until this is left."""
    size = f"{boot.memory}M"
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="guest-")))
        monitor, agent = (stack.enter_context(_listening(sockets / name)) for name in ("monitor", "agent"))
        extra: list[str] = []
        listeners = [stack.enter_context(_listening(sockets / name)) for name in boot.ports]
        for number, (name, listener) in enumerate(zip(boot.ports, listeners, strict=True)):
            extra += ["-chardev", f"socket,id=port{number},fd={listener.fileno()},server=on,wait=off"]
            extra += ["-device", f"virtserialport,chardev=port{number},name={name}"]
        for number, disk in enumerate(boot.disks):
            extra += ["-drive", f"id=disk{number},if=none,format=raw,file={disk}"]
            extra += ["-device", f"virtio-blk-pci,drive=disk{number},addr={_DISK_SLOT + number:#x}"]
        command = (
            "qemu-system-x86_64", "-machine", MACHINE, "-cpu", CPU, "-smp", "1", "-m", size,
            "-object", f"memory-backend-memfd,id=ram,size={size},share=on",
            "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-chardev", f"socket,id=monitor,fd={monitor.fileno()},server=on,wait=off", "-mon", "monitor,mode=control",
            "-chardev", f"socket,id=agent,fd={agent.fileno()},server=on,wait=off", "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=agent,name=agent.channel.0", "-device", "virtio-balloon-pci,id=balloon",
            "-drive", f"id=root,if=none,format=raw,readonly=on,file={boot.image}",
            "-device", "virtio-blk-pci,drive=root", *boot.arguments, *extra,
            "-kernel", boot.kernel, "-initrd", boot.initramfs, "-append", boot.append(),
        )  # fmt: skip
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=[listener.fileno() for listener in (monitor, agent, *listeners)],
        )
        machine = Machine(process, began, sockets)
        listening = asyncio.create_task(machine.listen(), name="console")
        try:
            yield machine
        finally:
            if process.returncode is None:
                process.kill()
            await listening
            await process.wait()


def _listening(path: Path) -> socket.socket:
    """A listening socket, there before QEMU is, so that nobody waits for it."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock
