"""Real fifos, files and logger programs; the test is the manager."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.stdio import Stdio, StdioOpener, StdioSpec
from kata_py.shim import logger_binary, stream
from kata_py.shim.stdio import ManagerStdioOpener

MANY = 64 << 20  # bytes


def fifo(path: Path) -> Path:
    os.mkfifo(path, 0o700)
    return path


@pytest.fixture
def stdout(tmp_path: Path) -> Path:
    return fifo(tmp_path / "stdout")


@pytest.fixture
def stdin(tmp_path: Path) -> Path:
    return fifo(tmp_path / "stdin")


@asynccontextmanager
async def opened(**paths: object) -> AsyncIterator[Stdio]:
    async with ManagerStdioOpener() as opener:
        typed: StdioOpener = opener
        terminal = bool(paths.pop("terminal", False))
        spec = StdioSpec(**{name: str(path) for name, path in paths.items()}, terminal=terminal)
        async with typed(spec, "box", "default") as stdio:
            yield stdio


def reader(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def descriptors() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


async def eventually(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 nothing tells of a task that waits
            await asyncio.sleep(0.005)


async def test_bytes_reach_the_manager_and_closing_is_its_end_of_file(stdout: Path) -> None:
    async with opened(stdout=stdout) as stdio:
        fd = reader(stdout)
        await stdio.write_stdout(b"hello")
        assert os.read(fd, 100) == b"hello"
        with pytest.raises(BlockingIOError):
            os.read(fd, 100)
    assert os.read(fd, 100) == b""
    os.close(fd)


async def test_a_fifo_opens_before_its_reader_and_keeps_what_was_written(stdout: Path) -> None:
    async with opened(stdout=stdout) as stdio:
        await stdio.write_stdout(b"early")
        fd = reader(stdout)
    assert os.read(fd, 100) == b"early"
    os.close(fd)


async def test_a_manager_that_restarts_loses_nothing(stdout: Path) -> None:
    async with opened(stdout=stdout) as stdio:
        os.close(reader(stdout))
        await stdio.write_stdout(b"while nobody reads")
        fd = reader(stdout)
        assert os.read(fd, 100) == b"while nobody reads"
    os.close(fd)


async def test_a_stalled_reader_stops_the_writer_and_closing_frees_it(stdout: Path) -> None:
    async with opened(stdout=stdout) as stdio:
        fd = reader(stdout)
        writing = asyncio.create_task(stdio.write_stdout(bytes(1 << 20)))
        await eventually(lambda: _waits(stdio))
        assert not writing.done()
    await asyncio.wait_for(writing, 1)
    os.close(fd)


def _waits(stdio: Stdio) -> bool:
    return stdio._stdout._waiting is not None  # type: ignore[attr-defined]


async def test_a_cancelled_writer_leaves_the_stream_usable(stdout: Path) -> None:
    async with opened(stdout=stdout) as stdio:
        fd = reader(stdout)
        writing = asyncio.create_task(stdio.write_stdout(bytes(1 << 20)))
        await eventually(lambda: _waits(stdio))
        writing.cancel()
        await asyncio.wait([writing])
        while len(os.read(fd, 1 << 20)) == 1 << 20:
            pass
        await stdio.write_stdout(b"after")
        assert os.read(fd, 100) == b"after"
    os.close(fd)


async def test_64_mib_go_through_stdout_and_stdin_at_once(stdout: Path, stdin: Path) -> None:
    block = os.urandom(1 << 20)
    expected = sha256(block * (MANY >> 20)).hexdigest()
    read_out = sha256()

    def read_all() -> None:
        with stdout.open("rb") as file:
            while data := file.read(1 << 16):
                read_out.update(data)

    def write_all() -> None:
        with stdin.open("wb") as file:
            for _ in range(MANY >> 20):
                file.write(block)

    async def read_stdin(stdio: Stdio) -> str:
        digest, left = sha256(), MANY
        while left:
            data = await stdio.read_stdin()
            digest.update(data)
            left -= len(data)
        return digest.hexdigest()

    threads = [threading.Thread(target=target) for target in (read_all, write_all)]
    async with opened(stdout=stdout, stdin=stdin) as stdio:
        for thread in threads:
            thread.start()
        async with asyncio.TaskGroup() as group:
            read_in = group.create_task(read_stdin(stdio))
            for _ in range(MANY >> 20):
                await stdio.write_stdout(block)
        await stdio.drained()
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    assert read_in.result() == expected
    assert read_out.hexdigest() == expected


async def test_drained_waits_until_the_manager_has_read(stdout: Path) -> None:
    async with opened(stdout=stdout) as stdio:
        fd = reader(stdout)
        await stdio.write_stdout(b"last words")
        draining = asyncio.create_task(stdio.drained())
        await asyncio.sleep(0)
        assert not draining.done()
        os.read(fd, 100)
        await asyncio.wait_for(draining, 1)
    os.close(fd)


async def test_drained_gives_up_on_a_reader_that_stalls(stdout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "DRAIN_TIMEOUT", 0.05)
    async with opened(stdout=stdout) as stdio:
        await stdio.write_stdout(b"unread")
        await asyncio.wait_for(stdio.drained(), 1)


async def test_stdin_outlives_its_writer_and_ends_only_by_close(stdin: Path) -> None:
    async with opened(stdin=stdin) as stdio:
        assert stdio.has_stdin
        for text in (b"first", b"second"):  # each manager closes its end
            fd = os.open(stdin, os.O_WRONLY)
            os.write(fd, text)
            os.close(fd)
            assert await stdio.read_stdin() == text
        reading = asyncio.create_task(stdio.read_stdin())
        await asyncio.sleep(0)
        assert not reading.done()
        stdio.close_stdin()
        assert await asyncio.wait_for(reading, 1) == b""


async def test_closing_stdin_gives_what_lies_in_the_fifo_though_the_manager_holds_its_end(stdin: Path) -> None:
    async with opened(stdin=stdin) as stdio:
        fd = os.open(stdin, os.O_WRONLY)
        os.write(fd, b"rest")
        stdio.close_stdin()
        assert await stdio.read_stdin() == b"rest"
        assert await asyncio.wait_for(stdio.read_stdin(), 1) == b""
        os.close(fd)


async def test_closing_frees_a_reader_of_stdin(stdin: Path) -> None:
    async with opened(stdin=stdin) as stdio:
        reading = asyncio.create_task(stdio.read_stdin())
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reading, 1) == b""


async def test_no_streams_swallow_output_and_have_no_stdin() -> None:
    async with opened() as stdio:
        assert not stdio.has_stdin
        assert await stdio.read_stdin() == b""
        stdio.close_stdin()
        await stdio.write_stdout(b"x")
        await stdio.write_stderr(b"x")
        await stdio.drained()


async def test_a_terminal_has_no_stderr_though_the_manager_names_one(stdout: Path, tmp_path: Path) -> None:
    async with opened(stdout=f"fifo://{stdout}", stderr=tmp_path / "never made", terminal=True) as stdio:
        await stdio.write_stderr(b"x")


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
async def test_a_missing_fifo_is_named_and_leaves_no_descriptor(name: str, tmp_path: Path) -> None:
    before = descriptors()
    paths = {other: fifo(tmp_path / other) for other in ("stdin", "stdout", "stderr") if other != name}
    with pytest.raises(InvalidArgument, match=f"{tmp_path}/gone: No such file"):
        async with opened(**paths, **{name: tmp_path / "gone"}):
            pass
    assert descriptors() == before


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"stdout": "ttrpc+unix:///run/x.sock?streaming_id=y"}, "ttrpc.unix"),
        ({"stderr": "binary:///bin/true"}, "for stdout, binary"),
        ({"stdin": "file:///etc/passwd"}, "only fifos"),
        ({"stdout": "/etc/passwd"}, "/etc/passwd: not a fifo"),
    ],
)
async def test_an_unknown_form_is_named(paths: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        async with opened(**paths):
            pass


async def test_both_outputs_are_appended_to_one_file_with_its_parents(tmp_path: Path) -> None:
    log = tmp_path / "a" / "b" / "log"
    for text in (b"one\n", b"two\n"):
        async with opened(stdout=f"file://{log}", stderr=f"file://{log}") as stdio:
            await stdio.write_stdout(text)
            await stdio.write_stderr(b"err " + text)
            await stdio.drained()
    assert log.read_bytes() == b"one\nerr one\ntwo\nerr two\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o640


async def test_a_full_disk_loses_output_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(stdout="file:///dev/full") as stdio:
        await stdio.write_stdout(b"x")
        await stdio.write_stdout(b"y")
    (record,) = caplog.records
    assert record.getMessage() == "/dev/full: output is lost: No space left on device"


LOGGER = """\
import os, sys
with open(sys.argv[1], "w") as log:
    log.write(f"{sys.argv[2:]} {sorted(dict(os.environ))} {os.environ['CONTAINER_ID']}\\n")
{ready}
texts = [open(fd, "rb").read() for fd in (3, 4)]
with open(sys.argv[1], "a") as log:
    log.write(repr(texts))
"""


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    def make(ready: str) -> Path:
        path = tmp_path / "logger"
        path.write_text(f"#!{sys.executable} -IS\n" + LOGGER.replace("{ready}", ready))
        path.chmod(0o755)
        return path

    return make


BYTE = 'os.write(5, b"1"); os.close(5)'


@pytest.mark.parametrize(("scheme", "ready"), [("binary", "os.close(5)"), ("binary", BYTE), ("binary-v2", BYTE)])
async def test_a_logger_gets_outputs_arguments_and_two_variables(
    scheme: str, ready: str, program: Callable[[str], Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with opened(stdout=f"{scheme}://{program(ready)}?{log}&k=v&k2=v%202", stderr="ignored") as stdio:
        await stdio.write_stdout(b"out")
        await stdio.write_stderr(b"err")
    assert log.read_text().splitlines() == [
        "['', 'k', 'v', 'k2', 'v 2'] ['CONTAINER_ID', 'CONTAINER_NAMESPACE', 'LC_CTYPE'] box",
        "[b'out', b'err']",
    ]


async def test_a_logger_that_dies_swallows_output(program: Callable[[str], Path], tmp_path: Path) -> None:
    async with opened(stdout=f"binary://{program('sys.exit(1)')}?{tmp_path}/log") as stdio:
        await stdio.write_stdout(bytes(1 << 20))
        await stdio.drained()


@pytest.mark.parametrize(
    ("scheme", "ready", "said"),
    [
        ("binary", "import time; time.sleep(60)", "was not ready within 0.3 s"),
        ("binary-v2", "os.close(5)", "closed its ready descriptor"),
    ],
)
async def test_a_logger_that_never_gets_ready_is_named_and_ended(
    scheme: str, ready: str, said: str, program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger_binary, "READY_TIMEOUT", 0.3)
    before, path = descriptors(), program(ready)
    with pytest.raises(InvalidArgument, match=f"logger {path} {said}"):
        async with opened(stdout=f"{scheme}://{path}?{tmp_path}/log"):
            pass
    assert descriptors() == before
    assert not children()


async def test_a_logger_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidArgument, match="logger /no/such: No such file"):
        async with opened(stdout="binary:///no/such?k=v"):
            pass


async def test_a_logger_that_ignores_its_end_is_terminated_at_last_killed_without_holding_up_the_exit(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logger_binary, "END_TIMEOUT", 0.1)
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {BYTE}; signal.pause()"
    async with ManagerStdioOpener() as opener:
        spec = StdioSpec(stdout=f"binary://{program(stubborn)}?{tmp_path}/log")
        async with opener(spec, "box", "default") as stdio:
            await stdio.write_stdout(b"x")
        assert not caplog.records  # the container's exit is past already
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["SIGTERM", "SIGKILL"]
    assert not children()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
