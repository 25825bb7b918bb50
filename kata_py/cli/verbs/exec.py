"""`kata-ctl exec`: a shell in a guest."""

from __future__ import annotations

import shutil
import sys

import click

from kata_py.cli.parameters import sandbox_argument


@click.command(help="A shell in a guest, or a COMMAND behind --; it needs the debug console.")
@sandbox_argument
@click.option(
    "-p", "--kata-debug-port", "port", metavar="PORT", type=click.IntRange(1, (1 << 32) - 1), default=1026,
    show_default=True, help="vsock port of the debug console",
)  # fmt: skip
@click.argument("words", metavar="[-- COMMAND ...]", nargs=-1, type=click.UNPROCESSED)
def command(sandbox: str, port: int, words: tuple[str, ...]) -> int:
    """Run a shell, or a command; returns its exit status."""
    import asyncio

    from kata_py.cli import console, shim

    url = shim.find(sandbox).request("GET", "/agent-url").decode()
    return asyncio.run(
        console.run(
            console.address_of(url, port),
            list(words),
            write=console.to_stdout,
            stdin=sys.stdin.fileno(),
            size=shutil.get_terminal_size(),
        )
    )
