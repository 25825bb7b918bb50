"""The debug console's client: against real shells on terminals, as the agent gives them."""

from __future__ import annotations

import asyncio
import io
import os
import pty
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_py.cli import console, copying
from kata_py.cli.console import Conversation, address_of, run
from kata_py.cli.errors import CtlError
from kata_py.ttrpc.address import HybridVsockAddress, SerialAddress, UnixAddress, VsockAddress

SHELLS = ("/bin/sh", "/bin/bash")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("vsock://7:1024", VsockAddress(7, 1026)),
        ("hvsock:///run/vc/vm/x/kata.hvsock:1024", HybridVsockAddress("/run/vc/vm/x/kata.hvsock", 1026)),
        ("serial:///run/vc/vm/x/agent.sock", SerialAddress("/run/vc/vm/x/debug-console.sock")),
    ],
)
def test_the_console_is_beside_the_agent(url: str, address: object) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize("url", ["unix:///x", "nonsense", "virtio-serial://agent.channel.0"])
def test_an_agent_without_a_console_beside_it_is_told(url: str) -> None:
    with pytest.raises(CtlError):
        address_of(url)


def test_another_port_needs_vsock() -> None:
    assert address_of("vsock://7:1024", 5) == VsockAddress(7, 5)
    with pytest.raises(CtlError, match="port 5 cannot be reached"):
        address_of("serial:///run/agent.sock", 5)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_output_is_told_from_our_own_words_however_it_is_cut(size: int) -> None:
    said = b"prompt# echo 036%s\x1ett\x1eout\x1eput \x1et\x1ett:12\x1eprompt"
    conversation = Conversation("tt")
    output = b"".join(conversation.take(said[at : at + size]) for at in range(0, len(said), size))
    assert conversation.status == 12
    assert output == b"out\x1eput \x1et"


class Shell:
    """A shell on a terminal for each connection; over a line, another one as soon as one ends."""

    def __init__(self, path: Path, program: str) -> None:
        self.path = path
        self._program = program
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = pty.openpty()
        environment = {"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "guest# "}
        shell = await asyncio.create_subprocess_exec(
            "setsid", "-c", self._program, "-i", stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        ended = asyncio.Event()

        def said() -> None:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:
                data = b""
            if data:
                writer.write(data)
            else:
                loop.remove_reader(ours)
                ended.set()

        loop.add_reader(ours, said)
        typing = asyncio.create_task(self._type(reader, ours, ended))
        await ended.wait()
        typing.cancel()
        await asyncio.wait([typing])
        if shell.returncode is None:
            shell.kill()
        await shell.wait()
        loop.remove_reader(ours)
        os.close(ours)
        writer.close()

    async def _type(self, reader: asyncio.StreamReader, terminal: int, ended: asyncio.Event) -> None:
        while data := await reader.read(1024):
            await asyncio.to_thread(os.write, terminal, data)
        ended.set()

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)


@pytest.fixture(params=SHELLS)
async def shell(request: pytest.FixtureRequest, short_tmp: Path) -> AsyncIterator[Shell]:
    shell = Shell(short_tmp / f"{abs(hash(request.node.name)) % 10**6}", request.param)
    server = await asyncio.start_unix_server(shell.connected, shell.path)
    yield shell
    server.close()
    await shell.close()


async def ran(shell: Shell, *command: str, stdin: int | None = None) -> tuple[int, bytes]:
    output = bytearray()
    async with asyncio.timeout(20):
        status = await run(UnixAddress(str(shell.path)), command, write=output.extend, stdin=stdin)
    return status, bytes(output)


async def test_a_command_gives_its_output_byte_by_byte_and_its_status(shell: Shell) -> None:
    assert await ran(shell, "sh", "-c", "printf 'a\\nb\\t\\000\\377'; exit 9") == (9, b"a\nb\t\0\xff")
    assert await ran(shell, "echo", "it's", "$HOME", "a;b") == (0, b"it's $HOME a;b\n")


async def test_a_command_has_nothing_to_read(shell: Shell) -> None:
    assert await ran(shell, "cat") == (0, b"")


async def test_a_command_is_given_a_file_byte_by_byte(shell: Shell) -> None:
    content = bytes(range(256)) * 400
    output = bytearray()
    async with asyncio.timeout(20):
        given = io.BytesIO(content)
        assert await run(UnixAddress(str(shell.path)), ["cat"], write=output.extend, given=given) == 0
    assert output == content


async def test_what_a_command_does_not_read_of_its_file_is_nobodys_command(shell: Shell) -> None:
    output = bytearray()
    async with asyncio.timeout(20):
        given = io.BytesIO(b"echo taken\n" * 20_000)
        command = ["sh", "-c", "echo failed; exit 5"]
        assert await run(UnixAddress(str(shell.path)), command, write=output.extend, given=given) == 5
    assert output == b"failed\n"


async def test_files_are_copied_into_a_guest_and_out_of_it(shell: Shell, tmp_path: Path) -> None:
    address, warned = UnixAddress(str(shell.path)), list[str]()
    (tmp_path / "from").mkdir()
    (tmp_path / "from/file").write_bytes(os.urandom(100_000))
    (tmp_path / "from/file").chmod(0o640)
    (tmp_path / "guest").mkdir()
    await asyncio.to_thread(copying.into_guest, address, tmp_path / "from", f"{tmp_path}/guest", warned.append)
    await asyncio.to_thread(copying.out_of_guest, address, f"{tmp_path}/guest/from", tmp_path / "back", warned.append)
    assert (tmp_path / "back/file").read_bytes() == (tmp_path / "from/file").read_bytes()
    assert (tmp_path / "back/file").stat().st_mode & 0o7777 == 0o640
    with pytest.raises(CtlError, match=r"tar failed in the guest: .*No such file"):
        await asyncio.to_thread(copying.out_of_guest, address, "/none/none", tmp_path, warned.append)
    with pytest.raises(CtlError, match=r"tar failed in the guest: .*No such file"):
        await asyncio.to_thread(copying.into_guest, address, tmp_path / "from", "/none/none/none", warned.append)
    assert warned == []


async def test_a_long_command_is_not_cut_off(shell: Shell) -> None:
    word = "x" * 20000
    assert await ran(shell, "echo", word) == (0, f"{word}\n".encode())


async def test_a_shell_reads_what_a_program_writes_up_to_its_end(shell: Shell) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"x=6\necho $((x * 7))\nfalse")
    os.close(theirs)
    try:
        assert await ran(shell, stdin=ours) == (1, b"42\n")
    finally:
        os.close(ours)


async def test_a_shell_reads_a_file(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo one\necho two\nexit 3\n")
    with (tmp_path / "script").open("rb") as file:
        assert await ran(shell, stdin=file.fileno()) == (3, b"one\ntwo\n")


async def test_somebody_who_types_has_a_terminal_of_the_same_size(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    output = bytearray()
    try:
        typing = asyncio.create_task(
            run(UnixAddress(str(shell.path)), (), write=output.extend, stdin=theirs, size=(132, 43))
        )
        async with asyncio.timeout(20):
            os.write(ours, b"stty size; exit 4\r")
            assert await typing == 4
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"43 132" in output


async def test_nobody_who_answers_is_told_in_time(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "READY_TIMEOUT", 0.05)
    writers = []
    server = await asyncio.start_unix_server(lambda r, w: writers.append(w), short_tmp / "silent")
    with pytest.raises(CtlError, match="nobody answers at the debug console"):
        await run(UnixAddress(str(short_tmp / "silent")), ("true",), write=bytearray().extend)
    for writer in writers:
        writer.close()
    server.close()


async def test_a_console_that_is_not_there_says_how_to_get_one(short_tmp: Path) -> None:
    with pytest.raises(CtlError, match="no debug console") as caught:
        await run(UnixAddress(str(short_tmp / "none")), ("true",), write=bytearray().extend)
    assert "debug_console_enabled = true" in caught.value.hint
