"""`python -m kata_agent`: PID 1 of a guest, where the kernel's line speaks; with arguments a program among others."""

# pathlib is an import that the boot would wait for.
# ruff: noqa: PTH123

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_agent import cmdline


def main() -> int:
    """Run the agent; returns its exit status, which as PID 1 of a guest nobody sees."""
    if os.getpid() == 1:
        os.write(1, b"kata-boot: agent\n")  # the host's timeline waits for this line
    leave_out_tls()
    return _program() if sys.argv[1:] or os.getpid() != 1 else _guest()


def leave_out_tls() -> None:
    """Keep asyncio from loading OpenSSL, which costs more than asyncio itself; the agent speaks no TLS."""
    sys.modules["ssl"] = None  # type: ignore[assignment] # how the import system says: there is none


def _guest() -> int:
    marks = [("boot: mounts", time.monotonic_ns())]
    from kata_agent import init

    try:
        init.set_up()
        marks.append(("boot: parameters", time.monotonic_ns()))
        with open("/proc/cmdline") as file:
            line = file.read()
        from kata_agent import cmdline

        return _run(cmdline.parse(line, os.environ), marks)
    except BaseException:
        import traceback

        traceback.print_exc()  # onto the console; PID 1 has nobody to raise to
        return 1
    finally:
        init.power_off()


def _program() -> int:
    import argparse

    from kata_agent import __version__, cmdline
    from kata_py.ttrpc.errors import TtrpcError

    marks = [("boot: parameters", time.monotonic_ns())]
    parser = argparse.ArgumentParser("kata-agent", description="The agent of a Kata Containers guest.")
    parser.add_argument("--version", action="version", version=f"kata-agent {__version__}")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--server-addr", metavar="ADDRESS", help="where to listen: unix:///path, vsock://-1:1024, ...")
    place.add_argument("--listen-fd", metavar="FD", type=int, help="descriptor of a socket that listens already")
    place.add_argument("--config", metavar="FILE", help="file of parameters, in TOML")
    parser.add_argument("--log", metavar="LEVEL", default="info", help="least severe level to log (default: info)")
    arguments = parser.parse_args()
    line = f"agent.server_addr={arguments.server_addr or ''} agent.log={arguments.log}"
    try:
        config = arguments.config
        parameters = cmdline.read_file(config, os.environ) if config else cmdline.parse(line, os.environ)
    except (ValueError, OSError) as error:
        parser.exit(1, f"kata-agent: {error}\n")
    try:
        return _run(parameters, marks, arguments.listen_fd)
    except (ValueError, TtrpcError) as error:  # not an address, or one that cannot be listened on
        parser.exit(1, f"kata-agent: {error}\n")


def _run(parameters: cmdline.Parameters, marks: list[tuple[str, int]], listen_fd: int | None = None) -> int:
    marks.append(("boot: imports", time.monotonic_ns()))
    import asyncio
    import logging
    import socket

    from kata_agent import server

    logging.basicConfig(level=parameters.log_level, format="%(levelname)s %(name)s: %(message)s")
    listener = None if listen_fd is None else socket.socket(fileno=listen_fd)
    asyncio.run(server.serve(parameters, listener, marks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
