"""The shim's log: logrus' text or JSON, to the bundle's `log` fifo and to the node's journal, without ever waiting.

A line is what the user's searches expect (OpenShift sandboxed containers guide, 11.2.2):
`time="…" level=… msg="…"` and then fields in the order of their names. A record's own fields are what the
caller gives as `extra`, such as `qemuPid` or `subsystem`. As JSON (`[runtime] log_format`) it is an object with the
same keys.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kata_py.shim.guest_rate import GuestRate

IDENTIFIER = "kata"  # what `journalctl -t` is given
VIRTIOFSD = "virtiofsd"  # the same for virtiofsd's own lines
NAME = "containerd-shim-v2"

Form = Literal["text", "json"]

JOURNAL = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"

_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "fatal": 2}  # syslog(3)
_FACILITY = 3  # daemon

# Kata Go's names for the parts; the longest prefix of the Python logger's name decides.
_PARTS = {
    "asyncio": ("containerd-kata-shim-v2", "shim"),
    "kata_py.config": ("katautils", "config"),
    "kata_py.http": ("containerd-kata-shim-v2", "shim-management"),
    "kata_py.hypervisor": ("virtcontainers", "hypervisor"),
    "kata_py.network": ("virtcontainers", "network"),
    "kata_py.sandbox": ("virtcontainers", "sandbox"),
    "kata_py.shim.management": ("containerd-kata-shim-v2", "shim-management"),
    "kata_py.shim": ("containerd-kata-shim-v2", "shim"),
    "kata_py.storage": ("virtcontainers", "fs_share"),
    "kata_py.ttrpc": ("containerd-kata-shim-v2", "ttrpc"),
    "kata_qemu": ("virtcontainers/hypervisor", "qemu"),
    "kata_qemu.console": ("virtcontainers", "sandbox"),
    "kata_qemu.hybrid": ("virtcontainers/hypervisor", "vhost-device-vsock"),
    "kata_qemu.monitor": ("virtcontainers/hypervisor", "qmp"),
    "kata_qemu.virtiofsd": ("virtcontainers/hypervisor", "virtiofsd"),
}

_VIRTIOFSD_LOGGER = "kata_qemu.virtiofsd"  # has its lines, and no others

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogrusFormatter(logging.Formatter):
    """Writes a record as one line of logrus' text, or of its JSON.

    Args:
        sandbox: The sandbox's id, a field of every line.
        form: Which of the two. It may change at any time: the shim begins to log before it has read its configuration.
    """

    def __init__(self, sandbox: str, form: Form = "text") -> None:
        super().__init__()
        self.form = form
        self._base: dict[str, object] = {"name": NAME, "pid": os.getpid(), "sandbox": sandbox}

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`; a traceback becomes the field `stack`."""
        source, subsystem = _part(record.name)
        fields = self._base | {"source": source, "subsystem": subsystem}
        fields |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info and record.exc_info[0]:
            fields["stack"] = self.formatException(record.exc_info)
        nanoseconds = int(record.created % 1 * 1e9)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{nanoseconds:09}Z"
        if self.form == "json":
            fields |= {"time": stamp, "level": level(record), "msg": record.getMessage()}
            return json.dumps(fields, sort_keys=True, default=str)
        head = f'time="{stamp}" level={level(record)} msg={_quoted(record.getMessage())}'
        return " ".join([head, *(f"{key}={_value(fields[key])}" for key in sorted(fields))])


def write_as(form: Form) -> None:
    """Have everything that is logged from now on written in one of the forms."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, LogrusFormatter):
            handler.formatter.form = form


def level(record: logging.LogRecord) -> str:
    """The record's level in logrus' words."""
    return _LEVELS.get(record.levelno, "fatal" if record.levelno > logging.ERROR else "info")


def _part(name: str) -> tuple[str, str]:
    while name not in _PARTS:
        name, _, _ = name.rpartition(".")
        if not name:
            return "containerd-kata-shim-v2", "shim"
    return _PARTS[name]


def _value(value: object) -> str:
    text = str(value)
    plain = text and all(character.isascii() and (character.isalnum() or character in "-._/@^+") for character in text)
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'


class FifoHandler(logging.Handler):
    """The bundle's `log`, which the manager reads. A line that it cannot take at once is dropped.

    The fifo is opened when it has a reader and then kept: containerd comes back to it after its restart,
    CRI-O does not.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._fd: int | None = None
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        line = self.format(record).encode(errors="backslashreplace") + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            # Up to PIPE_BUF bytes go whole or not at all; a longer line may be cut off.
            self._torn = os.write(self._fd, line) < len(line)
        except OSError:
            pass  # no fifo, no reader, no room

    def close(self) -> None:
        """Close the fifo."""
        super().close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class JournalHandler(logging.Handler):
    """The node's journal, else its syslog. A line that it cannot take at once is dropped.

    Source: systemd `docs/JOURNAL_NATIVE_PROTOCOL.md`; RFC 3164.
    """

    def __init__(self, journal: str = JOURNAL, syslog: str = SYSLOG) -> None:
        super().__init__()
        self._targets = ((journal, _journal_entry), (syslog, _syslog_entry))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        line, priority = self.format(record), _PRIORITIES[level(record)]
        speaker = VIRTIOFSD if record.name == _VIRTIOFSD_LOGGER else IDENTIFIER
        for path, entry in self._targets:
            try:
                self._socket.sendto(entry(line, priority, speaker), path)
            except (FileNotFoundError, ConnectionRefusedError):
                continue  # not on this node, or not running
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    with contextlib.suppress(OSError):
                        self._socket.sendto(entry(line[: 1 << 13], priority, speaker), path)
            return

    def close(self) -> None:
        """Close the socket."""
        super().close()
        self._socket.close()


def _journal_entry(line: str, priority: int, speaker: str) -> bytes:
    text = line.encode(errors="backslashreplace")  # never holds a newline: the formatter escapes it
    return b"PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nMESSAGE=%s\n" % (priority, speaker.encode(), text)


def _syslog_entry(line: str, priority: int, speaker: str) -> bytes:
    return f"<{_FACILITY << 3 | priority}>{speaker}[{os.getpid()}]: {line}".encode(errors="backslashreplace")


@contextlib.contextmanager
def logging_to(fifo: Path, sandbox: str, *, debug: bool) -> Iterator[None]:
    """Log to the fifo and the journal while the context lasts.

    Args:
        fifo: The bundle's `log`.
        sandbox: The sandbox's id.
        debug: Whether debug lines are wanted.
    """
    root = logging.getLogger()
    handlers: list[logging.Handler] = [FifoHandler(fifo), JournalHandler()]
    for handler in handlers:
        handler.setFormatter(LogrusFormatter(sandbox))
        handler.addFilter(GuestRate())
        root.addHandler(handler)
    before = root.level
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pyroute2").setLevel(logging.INFO)  # at debug it has lines for each message of the kernel's
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
