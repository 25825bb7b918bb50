"""The guest's packet filter rules, saved and restored whole by iptables' own tools.

Source: iptables-save(8), iptables-restore(8); kata-containers' `src/agent/src/rpc.rs` for where they are looked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError

_DIRECTORIES = ("/usr/sbin", "/sbin")
_LOCK_TIMEOUT = 5  # seconds that the tool waits for another that changes rules
_TIMEOUT = 30.0  # seconds


async def save(reaper: Reaper, *, ipv6: bool) -> bytes:
    """All rules, as iptables-save writes them.

    Raises:
        AgentError: The tool is not there or failed; its words are in the message.
    """
    return await _run(reaper, [_tool("save", ipv6=ipv6)], b"")


async def restore(reaper: Reaper, rules: bytes, *, ipv6: bool) -> bytes:
    """Replace the tables that the rules are for; returns what the tool wrote.

    Args:
        reaper: Starts the tool.
        rules: As iptables-save writes them.
        ipv6: Whether they are for IPv6.

    Raises:
        AgentError: The tool is not there or refused the rules, and none is changed; its words are in the message.
    """
    return await _run(reaper, [_tool("restore", ipv6=ipv6), "--wait", str(_LOCK_TIMEOUT)], rules)


def _tool(what: str, *, ipv6: bool) -> str:
    name = f"ip{'6' if ipv6 else ''}tables-{what}"
    for directory in _DIRECTORIES:
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    raise AgentError(f"this guest has no {name} in {' or '.join(_DIRECTORIES)}")


async def _run(reaper: Reaper, argv: Sequence[str], given: bytes) -> bytes:
    """Run a tool with files of memory as its streams: none can be full, and nobody waits for another."""
    streams = []
    try:
        for name in ("stdin", "stdout", "stderr"):
            streams.append(os.memfd_create(f"iptables {name}", os.MFD_CLOEXEC))
        _fill(streams[0], given)
        code = await reaper.run(argv, streams=streams, timeout=_TIMEOUT)
        _, output, errors = (_content(stream) for stream in streams)
    except (OSError, TimeoutError) as error:
        raise AgentError(f"{argv[0]} failed: {error}") from error
    finally:
        for stream in streams:
            os.close(stream)
    if code != 0:
        said = errors.decode(errors="replace").strip()
        raise AgentError(f"{argv[0]} failed: {said or f'it ended with status {code}'}")
    return output


def _fill(stream: int, content: bytes) -> None:
    with open(stream, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(stream, 0, os.SEEK_SET)


def _content(stream: int) -> bytes:
    os.lseek(stream, 0, os.SEEK_SET)
    with open(stream, "rb", closefd=False) as file:
        return file.read()
