from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.shim.log import FifoHandler, JournalHandler, LogrusFormatter, logging_to, write_as
from kata_qemu import virtiofsd

SANDBOX = "5" * 64


def record(
    name: str = "kata_qemu.process", level: int = logging.WARNING, text: str = "x", **extra: object
) -> logging.LogRecord:
    return logging.getLogger(name).makeRecord(name, level, "file", 1, text, (), None, extra=extra)


def line(**record_of: object) -> str:
    return LogrusFormatter(SANDBOX).format(record(**record_of))  # type: ignore[arg-type]


def test_a_line_has_the_form_that_the_guide_shows() -> None:
    expected = (
        r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z" level=info msg="Start logging QEMU \(qemuPid=12\)" '
        rf"name=containerd-shim-v2 pid={os.getpid()} qemuPid=12 sandbox={SANDBOX} "
        r"source=virtcontainers/hypervisor subsystem=qemu"
    )
    assert re.fullmatch(expected, line(level=logging.INFO, text="Start logging QEMU (qemuPid=12)", qemuPid=12))


@pytest.mark.parametrize(
    ("level", "word"),
    [(logging.DEBUG, "debug"), (logging.INFO, "info"), (logging.WARNING, "warning"), (logging.ERROR, "error"),
     (logging.CRITICAL, "fatal"), (logging.INFO + 1, "info")],
)  # fmt: skip
def test_levels_are_logrus_words(level: int, word: str) -> None:
    assert f" level={word} " in line(level=level)


@pytest.mark.parametrize(
    ("text", "written"),
    [('say "a\\b"', r'"say \"a\\b\""'), ("one\ntwo\x1b", r'"one\ntwo\x1b"'), ("größe", '"größe"')],
)
def test_a_message_stays_one_line_of_printable_text(text: str, written: str) -> None:
    assert f" msg={written} " in line(text=text)


@pytest.mark.parametrize(
    ("value", "written"), [("a b", '"a b"'), ("", '""'), (None, "None"), ("/a-b_c.d@e^f+1", "/a-b_c.d@e^f+1")]
)
def test_a_field_is_quoted_only_where_it_must_be(value: object, written: str) -> None:
    assert f" cause={written} " in line(cause=value)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("kata_qemu.launch", "source=virtcontainers/hypervisor subsystem=qemu"),
        ("kata_qemu.console", "source=virtcontainers subsystem=sandbox"),
        ("kata_qemu.virtiofsd", "source=virtcontainers/hypervisor subsystem=virtiofsd"),
        ("kata_py.shim.daemon", "source=containerd-kata-shim-v2 subsystem=shim"),
        ("somebody.else", "source=containerd-kata-shim-v2 subsystem=shim"),
    ],
)
def test_the_part_follows_from_the_loggers_name(name: str, fields: str) -> None:
    assert line(name=name).endswith(fields)


def test_a_caller_may_name_the_part_itself() -> None:
    assert line(subsystem="vmconsole").endswith("subsystem=vmconsole")


def test_a_traceback_is_a_field_of_the_same_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logging.getLogger("kata_py.shim").exception("failed")
    text = LogrusFormatter(SANDBOX).format(caplog.records[0])
    assert r'\nValueError: bad\nvalue" subsystem=shim' in text
    assert "\n" not in text


def test_json_has_the_fields_of_the_text_and_stays_one_line() -> None:
    text = LogrusFormatter(SANDBOX, "json").format(record(text='say "a"\nb', qemuPid=12, path=Path("/x")))
    fields = json.loads(text)
    assert "\n" not in text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", fields.pop("time"))
    assert fields == {
        "level": "warning", "msg": 'say "a"\nb', "name": "containerd-shim-v2", "path": "/x", "pid": os.getpid(),
        "qemuPid": 12, "sandbox": SANDBOX, "source": "virtcontainers/hypervisor", "subsystem": "qemu",
    }  # fmt: skip


def test_the_form_changes_while_it_is_logged(fifo: Path) -> None:
    fd = reader(fifo)
    with logging_to(fifo, SANDBOX, debug=False):
        logging.getLogger("kata_py.sandbox").info("one")
        write_as("json")
        logging.getLogger("kata_py.sandbox").info("two")
    first, second = os.read(fd, 10_000).splitlines()
    assert b' msg="one" ' in first or b" msg=one " in first
    assert json.loads(second)["msg"] == "two"
    os.close(fd)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "log")
    return tmp_path / "log"


@pytest.fixture
def handler(fifo: Path) -> Iterator[FifoHandler]:
    handler = FifoHandler(fifo)
    handler.setFormatter(logging.Formatter("%(message)s"))
    yield handler
    handler.close()


def reader(fifo: Path) -> int:
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


def test_lines_are_dropped_until_the_manager_reads_and_after_it_left(handler: FifoHandler, fifo: Path) -> None:
    handler.emit(record(text="nobody"))
    first = reader(fifo)
    handler.emit(record(text="one"))
    assert os.read(first, 100) == b"one\n"
    os.close(first)
    handler.emit(record(text="manager gone"))
    again = reader(fifo)
    handler.emit(record(text="two"))
    assert os.read(again, 100) == b"two\n"
    os.close(again)


def test_a_reader_that_stalls_costs_lines_and_no_time(handler: FifoHandler, fifo: Path) -> None:
    fd = reader(fifo)
    for _ in range(100):
        handler.emit(record(text="x" * 3999))
    read = os.read(fd, 1 << 20)
    assert set(read.split(b"\n")) == {b"x" * 3999, b""}
    assert 10 <= read.count(b"\n") < 100
    handler.emit(record(text="again"))
    assert os.read(fd, 100) == b"again\n"
    os.close(fd)


def test_a_line_cut_off_does_not_swallow_the_next(handler: FifoHandler, fifo: Path) -> None:
    fd = reader(fifo)
    handler.emit(record(text="x" * 100_000))
    os.read(fd, 1 << 20)
    handler.emit(record(text="next"))
    assert os.read(fd, 100) == b"\nnext\n"
    os.close(fd)


def test_no_fifo_is_no_error(tmp_path: Path) -> None:
    FifoHandler(tmp_path / "log").emit(record())


@pytest.fixture
def datagrams(short_tmp: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(short_tmp / "socket"))
        receiver.settimeout(5)
        yield receiver
    (short_tmp / "socket").unlink()


def send(journal: str, syslog: str, text: str = "hello", name: str = "kata_qemu.process") -> None:
    handler = JournalHandler(journal, syslog)
    handler.emit(record(name, text=text))
    handler.close()


def test_the_journal_gets_identifier_and_priority(datagrams: socket.socket) -> None:
    send(datagrams.getsockname(), "/no/such")
    assert datagrams.recv(1000) == b"PRIORITY=4\nSYSLOG_IDENTIFIER=kata\nMESSAGE=hello\n"


def test_syslog_takes_the_journals_place(datagrams: socket.socket) -> None:
    send("/no/such", datagrams.getsockname())
    assert datagrams.recv(1000) == b"<28>kata[%d]: hello" % os.getpid()


def test_virtiofsds_lines_have_an_identifier_of_their_own(datagrams: socket.socket) -> None:
    send(datagrams.getsockname(), "/no/such", name="kata_qemu.virtiofsd")
    assert datagrams.recv(1000) == b"PRIORITY=4\nSYSLOG_IDENTIFIER=virtiofsd\nMESSAGE=hello\n"
    send("/no/such", datagrams.getsockname(), name="kata_qemu.virtiofsd")
    assert datagrams.recv(1000) == b"<28>virtiofsd[%d]: hello" % os.getpid()
    assert virtiofsd.log.name == "kata_qemu.virtiofsd"


def test_a_line_too_long_for_a_datagram_is_cut(datagrams: socket.socket) -> None:
    send(datagrams.getsockname(), "/no/such", text="y" * (8 << 20))
    assert datagrams.recv(1 << 20).count(b"y") == 1 << 13


def test_a_node_without_either_is_no_error() -> None:
    send("/no/such", "/no/such")


def test_a_full_journal_costs_lines_and_no_time(datagrams: socket.socket) -> None:
    handler = JournalHandler(datagrams.getsockname(), "/no/such")
    for number in range(2000):
        handler.emit(record(text=str(number)))
    handler.close()
    datagrams.setblocking(False)
    assert datagrams.recv(1000).endswith(b"MESSAGE=0\n")


@pytest.mark.parametrize("debug", [True, False])
def test_debug_lines_are_written_only_when_asked_for(debug: bool, fifo: Path) -> None:
    fd = reader(fifo)
    with logging_to(fifo, SANDBOX, debug=debug):
        logging.getLogger("kata_py.sandbox").debug("detail")
        logging.getLogger("kata_py.sandbox").info("fact")
    logging.getLogger("kata_py.sandbox").error("afterwards")
    words = re.findall(r'msg="(\w+)"', os.read(fd, 10_000).decode())
    assert words == (["detail"] if debug else []) + ["fact"]
    os.close(fd)


def test_debug_has_no_lines_for_each_message_of_the_kernels(fifo: Path) -> None:
    fd = reader(fifo)
    with logging_to(fifo, SANDBOX, debug=True):
        logging.getLogger("pyroute2.netlink.core").debug("message")
        logging.getLogger("pyroute2.netlink.core").warning("trouble")
    assert re.findall(r'msg="?(\w+)', os.read(fd, 10_000).decode()) == ["trouble"]
    os.close(fd)
