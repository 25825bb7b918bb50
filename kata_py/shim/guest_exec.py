"""A process in a container for a tool on the host, its streams over the connection that asked for it.

After `101 Switching Protocols` both sides speak in frames. To the process: four bytes of length, big-endian, and as
many of its stdin; a length of 0 ends that. From it: a byte that says what follows (`Kind`), the length, and the bytes.
The process is one that the guest's policy may refuse, it has few capabilities and no terminal, and the connection's end
is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import secrets
import signal
import struct
from collections.abc import Awaitable, Callable, Sequence

from kata_protos import agent_pb2, oci_pb2
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import NotFound, SandboxError, StreamCut

logger = logging.getLogger(__name__)

PROTOCOL = "kata-py-exec"  # the header field Upgrade
PIECE_MAX = 1 << 20  # bytes of stdin in a frame
STALL_TIMEOUT = 120.0  # seconds that the client may take nothing
END_TIMEOUT = 2.0  # seconds for the end of a process that is killed

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID")

_Read = Callable[[str, str, int], Awaitable[bytes]]


class Kind(enum.IntEnum):
    """What a frame from the process holds."""

    STDOUT = 1
    STDERR = 2
    EXIT = 3  # its status, a byte; the last frame
    ERROR = 4  # why it could not be run, in words; the last frame


class _Gone(Exception):
    """The client has closed the connection."""


class GuestExec:
    """One process, and the connection it is for.

    Args:
        agent: The agent that runs it.
        container_id: Where.
        args: What: the program and its arguments.
    """

    def __init__(self, agent: Agent, container_id: str, args: Sequence[str]) -> None:
        self._agent = agent
        self._args = tuple(args)
        self._names = (container_id, f"kata-ctl-{secrets.token_hex(8)}")

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run it to its end, or to the client's. Raises nothing but cancellation."""
        ended = False
        lock = asyncio.Lock()

        async def send(kind: Kind, data: bytes) -> None:
            async with lock, asyncio.timeout(STALL_TIMEOUT):
                writer.write(struct.pack(">BI", kind, len(data)) + data)
                await writer.drain()

        feeding: asyncio.Task[None] | None = None
        outputs: asyncio.Task[int] | None = None
        try:
            await self._agent.exec_process(self._request())
            feeding = asyncio.create_task(self._feed(reader), name=f"stdin of {self._names[1]}")
            outputs = asyncio.create_task(self._outputs(send), name=f"outputs of {self._names[1]}")
            await asyncio.wait({feeding, outputs}, return_when=asyncio.FIRST_COMPLETED)
            if not outputs.done():
                feeding.result()
            status = await outputs
            ended = True
            await send(Kind.EXIT, bytes([status]))
        except SandboxError as error:
            with contextlib.suppress(OSError, TimeoutError):
                await send(Kind.ERROR, str(error).encode())
        except (_Gone, OSError, TimeoutError) as error:
            logger.info("%s: its client is gone: %s", self._names[1], error)
        finally:
            for task in (feeding, outputs):
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])
            if not ended:
                await self._end()

    def _request(self) -> agent_pb2.ExecProcessRequest:
        capabilities = dict.fromkeys(("Bounding", "Effective", "Permitted"), _CAPABILITIES)
        process = oci_pb2.Process(
            User=oci_pb2.User(), Args=self._args, Env=[_PATH], Cwd="/", NoNewPrivileges=True,
            Capabilities=oci_pb2.LinuxCapabilities(**capabilities),
        )  # fmt: skip
        container_id, exec_id = self._names
        return agent_pb2.ExecProcessRequest(container_id=container_id, exec_id=exec_id, process=process)

    async def _feed(self, reader: asyncio.StreamReader) -> None:
        """Pass on its stdin, and then watch for the client's end.

        Raises:
            _Gone: It has closed the connection.
            StreamCut: Some of it may be missing or doubled.
        """
        count = 0
        try:
            while length := struct.unpack(">I", await reader.readexactly(4))[0]:
                if length > PIECE_MAX:
                    raise _Gone(f"it sent a frame of {length} bytes")
                data = await reader.readexactly(length)
                await self._agent.write_stdin(*self._names, data, count)
                count += length
        except asyncio.IncompleteReadError as error:
            raise _Gone("it closed the connection") from error
        except StreamCut:
            raise
        except SandboxError as error:  # it does not read any more: its end tells why
            logger.debug("%s: stdin: %s", self._names[1], error)
        with contextlib.suppress(SandboxError):
            await self._agent.close_stdin(*self._names)
        while await reader.read(1 << 14):  # what it sends nobody reads
            pass
        raise _Gone("it closed the connection")

    async def _outputs(self, send: Callable[[Kind, bytes], Awaitable[None]]) -> int:
        """Copy both outputs to their ends, and wait for its own; returns its status."""

        async def copy(kind: Kind, read: _Read) -> None:
            count = 0
            while data := await read(*self._names, count):
                count += len(data)
                await send(kind, data)

        await asyncio.gather(copy(Kind.STDOUT, self._agent.read_stdout), copy(Kind.STDERR, self._agent.read_stderr))
        return await self._agent.wait_process(*self._names)

    async def _end(self) -> None:
        """Kill it, if it runs."""
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._agent.signal_process(*self._names, signal.SIGKILL)
                await self._outputs(_nowhere)
        except NotFound:
            pass
        except (SandboxError, TimeoutError) as error:
            logger.info("%s in container %s may run still: %s", self._names[1], self._names[0], error)


async def _nowhere(kind: Kind, data: bytes) -> None:
    pass
