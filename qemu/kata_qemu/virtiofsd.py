"""virtiofsd: the daemon that serves a directory to the guest. Two programs go by that name, with unlike options.

Source: QEMU ≤ 7.2 `docs/tools/virtiofsd.rst` (in C); gitlab.com/virtio-fs/virtiofsd `README.md` (in Rust).
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_py.hypervisor.api import HypervisorError
from kata_py.resource.confinement import Confinement
from kata_py.resource.journal import Journal
from kata_qemu.lines import Tail
from kata_qemu.process import Program, running
from kata_qemu.sockets import listening

NAME = "virtiofsd"
DEBIAN = "Debian 12's is /usr/lib/qemu/virtiofsd, in qemu-system-common"
HINT = f"set virtio_fs_daemon to a virtiofsd; {DEBIAN}"
VERSION_TIMEOUT = 5.0  # seconds
GRACE = 0.5  # seconds in which the daemon notices that its machine is gone

_NO_XATTR = "--no-xattr"  # of the program in C; the other one has none unless it is told to

# What the program in C has to say to every machine's end: POLLIN | POLLHUP, in hexadecimal.
_FAREWELL = "virtio_loop: Unexpected poll revents 11"

log = logging.getLogger(__name__)


class Kind(enum.Enum):
    """Which program it is."""

    C = "c"
    RUST = "rust"


@dataclass(frozen=True, slots=True)
class Settings:
    """How the daemon is run.

    Attributes:
        binary: The program.
        cache: `never`, `metadata`, `auto` or `always`.
        extra: Further arguments, in the form of the Rust program.
        debug: Whether it talks much.
    """

    binary: Path
    cache: str = "auto"
    extra: tuple[str, ...] = ()
    debug: bool = False


async def recognise(binary: Path) -> Kind:
    """Ask the program which one it is.

    Raises:
        HypervisorError: It cannot be run, or does not say.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise HypervisorError(NAME, f"cannot start {binary}: {error.strerror}", hint=HINT) from error
    try:
        async with asyncio.timeout(VERSION_TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        raise HypervisorError(
            NAME, f"{binary} --version does not end within {VERSION_TIMEOUT:g} s", budget=VERSION_TIMEOUT
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    match output.decode(errors="replace").split():
        case ["virtiofsd", "version", *_]:
            return Kind.C
        case ["virtiofsd", number, *_] if number[:1].isdigit():
            return Kind.RUST
    lines = tuple(output.decode(errors="replace").splitlines())
    raise HypervisorError(NAME, f"{binary} does not say that it is a virtiofsd", hint=HINT, evidence=lines)


def arguments(kind: Kind, settings: Settings, directory: Path, descriptor: int) -> list[str]:
    """The command line that serves the directory on an inherited, listening socket; it logs to stderr."""
    extra = settings.extra
    if not {"--xattr", _NO_XATTR} & set(extra):  # programs have capabilities by them
        extra = ("--xattr", *extra)
    if "--announce-submounts" not in extra:  # containers' roots are file systems of their own, with inodes alike
        extra = ("--announce-submounts", *extra)
    level = "info" if settings.debug else "warn"
    if kind is Kind.RUST:
        return [
            str(settings.binary), f"--fd={descriptor}", f"--shared-dir={directory}", f"--cache={settings.cache}",
            f"--log-level={level}", *(argument for argument in extra if argument != _NO_XATTR),
        ]  # fmt: skip
    cache = {"never": "none", "metadata": "none"}.get(settings.cache, settings.cache)
    source = str(directory).replace("\\", "\\\\").replace(",", "\\,")
    return [
        str(settings.binary), f"--fd={descriptor}", "-o", f"source={source}", "-o", f"cache={cache}",
        "-o", f"log_level={level}", *_in_c(extra),
    ]  # fmt: skip


_LONG_IN_C = ("--thread-pool-size", "--rlimit-nofile", "--socket-group", "--syslog", "-")


def _in_c(extra: Sequence[str]) -> list[str]:
    """Arguments of the Rust program as the one in C takes them: `--no-xattr` is `-o no_xattr`."""
    line: list[str] = []
    for argument in extra:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and name not in _LONG_IN_C:
            line += ["-o", name[2:].replace("-", "_") + equals + value]
        else:
            line.append(argument)
    return line


@asynccontextmanager
async def serving(
    settings: Settings,
    directory: Path,
    socket: Path,
    journal: Journal,
    tail: Tail,
    confinement: Confinement | None = None,
) -> AsyncIterator[Program]:
    """Serve a directory on a socket for as long as the context lasts.

    Args:
        settings: How.
        directory: What the guest sees.
        socket: Where QEMU connects to; it may do so at once.
        journal: Where the process is written down.
        tail: Where its last lines are kept.
        confinement: What is left to it; None is all that we have ourselves.

    Raises:
        HypervisorError: It could not be started.
    """

    def on_line(pid: int, line: str) -> None:
        if not line.endswith(_FAREWELL):
            tail.add(f"{NAME}: {line}")
            log.warning("%s", line)

    kind = await recognise(settings.binary)
    async with AsyncExitStack() as stack:
        with listening(socket) as sock:  # closed here once the daemon has it: if it dies, QEMU must not hang
            line = arguments(kind, settings, directory, sock.fileno())
            program = await stack.enter_async_context(
                running(journal, NAME, line, pass_fds=[sock.fileno()], confinement=confinement, on_line=on_line)
            )
        try:
            yield program
        finally:
            # QEMU is gone by now, and the daemon ends by itself, its inner process first. Killed, it would leave
            # that one to whoever adopts orphans here.
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await program.wait()
