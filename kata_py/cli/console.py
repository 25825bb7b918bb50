"""`kata-ctl exec`: a shell in a guest, or one command, over the agent's debug console.

What answers there is an interactive shell on a terminal, one for each connection; over a serial line, which knows no
connections, the next one begins as soon as one ends. So that ends, statuses and the output's first byte are known
all the same, the shell is asked to become a script of ours: it makes its terminal transparent, says that it is ready,
takes what it is to run, says so, runs it, and says with what status that ended. Each of these words has a random token.
Source of addresses: kata `src/runtime/cmd/kata-runtime/kata-exec.go`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from kata_py.cli.errors import CtlError
from kata_py.ttrpc.address import Address, AddressError, HybridVsockAddress, SerialAddress, VsockAddress, parse
from kata_py.ttrpc.errors import ConnectError
from kata_py.ttrpc.transport.stream import open_stream

PORT = 1026
SERIAL_SOCKET = "debug-console.sock"  # beside the agent's own, where there is no vsock
CONNECT_TIMEOUT = 5.0  # seconds
READY_TIMEOUT = 8.0  # seconds until the guest's shell must be ready
ATTEMPTS = 2  # a serial line that was closed a moment ago may not notice that it is open again
PAUSE = 0.3  # seconds between them
_CHUNK = 1 << 16
_MARK = b"\x1e"  # what no terminal shows, and few programs write
_END_OF_INPUT = b"\x04\x04"  # Ctrl-D: of a line that is not whole, and of all

_HINT = "set debug_console_enabled = true in [agent.kata] of configuration.toml, and start the pod anew"


def address_of(agent_url: str, port: int = PORT) -> Address:
    """Where a guest's debug console is, from where its agent is.

    Raises:
        CtlError: There is none beside that.
    """
    try:
        agent = parse(agent_url)
    except AddressError as error:
        raise CtlError(f"the shim tells an agent's address that is none: {error}") from error
    match agent:
        case VsockAddress(cid, _):
            return VsockAddress(cid, port)
        case HybridVsockAddress(path, _):
            return HybridVsockAddress(path, port)
        case SerialAddress(path, _) if path:
            if port != PORT:
                raise CtlError(
                    f"port {port} cannot be reached: this guest has no vsock, and a serial port for {PORT} alone",
                    "leave out -p",
                )
            return SerialAddress(str(Path(path).with_name(SERIAL_SOCKET)))
    raise CtlError(f"a guest whose agent is at {agent_url} has no debug console")


def script_of(
    token: str, command: Sequence[str], size: tuple[int, int] = (80, 24), term: str = "", length: int = 0
) -> str:
    """What the guest's shell is to run: the command, with nothing or so many bytes to read, or a shell that reads.

    Nothing may be typed before the terminal is set for it: what ends an input would be a byte like any other.

    Args:
        token: Told once the terminal is as it is to be.
        command: The command; empty is a shell.
        size: Columns and rows of the terminal.
        term: What kind of terminal somebody types at; empty if a program's output is read instead.
        length: The bytes that the command is given. It takes none of them along that it does not read: over a serial
            line the next shell would take them for commands.
    """
    begin = f'printf "\\036%s\\036" {token}'
    if command and length:
        return f"{begin}; head -c {length} | ( {shlex.join(command)}; s=$?; cat > /dev/null; exit $s )"
    if command:
        return f"{begin}; ( {shlex.join(command)} ) < /dev/null"
    terminal = f"stty sane cols {size[0]} rows {size[1]}"
    if not term:  # the shell would take the terminal for a person's
        return f'{terminal} -echo -onlcr; {begin}; cat | "$0"'
    return f'{terminal}; {begin}; export TERM={shlex.quote(term)}; "$0" -i'


class Conversation:
    """What a guest's shell says, sorted: whether it is ready, what is output, and the status at the end.

    Args:
        token: What marks our own words.
    """

    def __init__(self, token: str) -> None:
        self.ready = False
        self.status: int | None = None
        self._begin = _MARK + token.encode() + _MARK
        self._end = _MARK + token.encode() + b":"
        self._rest = b""

    @staticmethod
    def opening(token: str, length: int) -> bytes:
        """The line that makes the guest's shell a script that takes so many bytes and runs them."""
        script = (
            f'stty raw -echo; printf "\\036%s\\036" {token}; s=$(dd bs=1 count={length} 2>/dev/null); eval "$s"; '
            f'printf "\\036%s:%d\\036" {token} $?'
        )
        return f" exec \"$0\" -c '{script}'\r".encode()

    def take(self, data: bytes) -> bytes:
        """Sort what came; returns what of it is output."""
        if self.status is not None:
            return b""
        self._rest += data
        if not self.ready:
            _, found, behind = self._rest.partition(self._begin)
            if not found:
                self._rest = self._rest[-len(self._begin) :]
                return b""
            self.ready, self._rest = True, behind
        output, found, behind = self._rest.partition(self._end)
        if not found:
            kept = next((n for n in range(len(self._end) - 1, 0, -1) if output.endswith(self._end[:n])), 0)
            self._rest = output[len(output) - kept :]
            return output[: len(output) - kept]
        digits, found, _ = behind.partition(_MARK)
        if found and digits.isdigit():
            self.status, self._rest = int(digits), b""
        else:
            self._rest = self._end + behind
        return output


async def run(
    address: Address,
    command: Sequence[str],
    *,
    write: Callable[[bytes], object],
    stdin: int | None = None,
    size: tuple[int, int] = (80, 24),
    given: IO[bytes] | None = None,
) -> int:
    """Run a command, or a shell, in a guest; returns its status.

    Args:
        address: The debug console's.
        command: The command; empty is a shell.
        write: Takes the output.
        stdin: The descriptor that is typed at a shell; None is none.
        size: Columns and rows of the terminal.
        given: A file, at its beginning, that a command reads.

    Raises:
        CtlError: Nobody answers, or the guest has gone.
    """
    length = 0
    if given is not None:
        length = given.seek(0, os.SEEK_END)
        given.seek(0)
    token = secrets.token_hex(8)
    typing = stdin is not None and os.isatty(stdin)
    script = script_of(token, command, size, os.environ.get("TERM", "linux") if typing else "", length)
    reader, writer = await _open(address, token, len(script.encode()))
    giving: asyncio.Task[None] | None = None
    try:
        writer.write(script.encode())
        conversation = Conversation(token)
        output = await _until_ready(reader, conversation)
        if given is not None:
            giving = asyncio.create_task(_give(given, writer), name="what a guest's command reads")
        with _typing(stdin if not command else None, writer):
            write(output)
            while conversation.status is None:
                data = await reader.read(_CHUNK)
                if not data:
                    raise CtlError("the guest closed the debug console before the command had ended")
                write(conversation.take(data))
        return conversation.status
    except TimeoutError:
        raise CtlError(f"the guest's shell did not begin within {READY_TIMEOUT:g} s") from None
    except OSError as error:
        raise CtlError(f"the connection to the guest broke: {error}", "is the pod still running?") from error
    finally:
        if giving is not None:
            giving.cancel()
            await asyncio.wait([giving])
        writer.close()


async def _give(file: IO[bytes], writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # who reads the answers hears of it
        while data := file.read(_CHUNK):
            writer.write(data)
            await writer.drain()


async def _open(address: Address, token: str, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and wait until the guest's shell is ready to take a script of so many bytes."""
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(PAUSE)
        reader, writer = await _connect(address)
        conversation = Conversation(token)
        try:
            writer.write(conversation.opening(token, length))
            await _until_ready(reader, conversation)
        except (TimeoutError, OSError):
            pass
        if conversation.ready:
            return reader, writer
        writer.close()
    raise CtlError(
        f"nobody answers at the debug console {address}",
        "if another kata-ctl exec is open on this sandbox, close it: a serial line has room for one",
    )


async def _until_ready(reader: asyncio.StreamReader, conversation: Conversation) -> bytes:
    """Read until the guest has said that it is ready, or its end; returns what of that is output already."""
    output = b""
    async with asyncio.timeout(READY_TIMEOUT):
        while not conversation.ready and (data := await reader.read(_CHUNK)):
            output += conversation.take(data)
    return output


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await open_stream(address, CONNECT_TIMEOUT)
    except ConnectError as error:
        raise CtlError(f"no debug console: {error}", _HINT) from error


@contextlib.contextmanager
def _typing(descriptor: int | None, writer: asyncio.StreamWriter) -> Iterator[None]:
    """Pass on what is typed; a terminal is transparent meanwhile."""
    if descriptor is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def typed() -> None:
        data = os.read(descriptor, _CHUNK)
        writer.write(data or _END_OF_INPUT)
        if not data:
            loop.remove_reader(descriptor)

    before = termios.tcgetattr(descriptor) if os.isatty(descriptor) else None
    if before is not None:
        tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed early counts
    try:
        try:
            loop.add_reader(descriptor, typed)
        except PermissionError:  # a file, which epoll does not take and which is there whole
            with open(descriptor, "rb", closefd=False) as file:
                writer.write(file.read() + _END_OF_INPUT)
        yield
    finally:
        loop.remove_reader(descriptor)
        if before is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def to_stdout(data: bytes) -> None:
    """Write output as it comes."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
