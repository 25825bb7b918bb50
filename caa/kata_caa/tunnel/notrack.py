"""The tunnel's own packets, kept out of connection tracking: rules of the raw table, on both sides.

A reading and one transaction for each change, so nothing is ever half done, and whoever else changes the table
meanwhile (another pod's tunnel, upstream's daemon) makes it fail and be tried again. Chains, comments and rules are
upstream's, so that either can remove the other's.

Source: cloud-api-adaptor `pkg/podnetwork/tunneler/vxlan/iptables.go`; iptables-save(8), iptables-restore(8).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from kata_caa.errors import TunnelError

OUTPUT: Final = "peerpod-OUTPUT"
PREROUTING: Final = "peerpod-PREROUTING"

_BASES: Final = {OUTPUT: "OUTPUT", PREROUTING: "PREROUTING"}
_DIRECTORIES: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin")
_LOCK_TIMEOUT: Final = 5  # seconds that the tool waits for another that changes rules
_TIMEOUT: Final = 30.0  # seconds
_TRIES: Final = 100  # each that fails means that somebody else has got what he wanted


async def add(vni: int, remote: IPv4Address | IPv6Address, port: int) -> None:
    """Keep a tunnel's packets out of connection tracking. What is there already stays.

    Args:
        vni: The tunnel's number.
        remote: Its other end.
        port: UDP port of both ends.

    Raises:
        TunnelError: The tools are not there or refuse; their words are in the message.
    """
    await _change(remote.version, lambda listing: additions(listing, vni, str(remote), port))


async def remove(vni: int, version: int) -> None:
    """Remove a tunnel's rules, and the chains with the last of them. What is gone already is no error.

    Args:
        vni: The tunnel's number.
        version: 4 or 6, that of its other end's address.

    Raises:
        TunnelError: The tools are not there or refuse; their words are in the message.
    """
    await _change(version, lambda listing: removals(listing, vni))


def additions(listing: str, vni: int, remote: str, port: int) -> list[str]:
    """The commands that are missing for a tunnel's rules to be in force.

    Args:
        listing: The raw table as iptables-save writes it.
        vni: The tunnel's number.
        remote: Address of its other end.
        port: UDP port of both ends.
    """
    lines, commands = listing.splitlines(), []
    for chain, side in ((OUTPUT, "-d"), (PREROUTING, "-s")):
        if not _has_chain(lines, chain):
            commands.append(f"-N {chain}")
        if _jump(chain) not in lines:
            commands.append(_jump(chain))
        if not _rules(lines, chain, vni):
            commands.append(
                f'-A {chain} -m comment --comment "{_comment(vni)}" {side} {remote} '
                f"-p udp -m udp --dport {port} -j NOTRACK"
            )
    return commands


def removals(listing: str, vni: int) -> list[str]:
    """The commands that remove a tunnel's rules, and chains without rules.

    Args:
        listing: The raw table as iptables-save writes it.
        vni: The tunnel's number.
    """
    lines, commands = listing.splitlines(), []
    for chain in (OUTPUT, PREROUTING):
        own = _rules(lines, chain, vni)
        commands += [f"-D{rule[2:]}" for rule in own]
        if _has_chain(lines, chain) and len(own) == sum(line.startswith(f"-A {chain} ") for line in lines):
            commands += [f"-D{line[2:]}" for line in lines if line == _jump(chain)]
            commands.append(f"-X {chain}")
    return commands


def _comment(vni: int) -> str:
    return f"peerpod [vni:{vni}]"


def _jump(chain: str) -> str:
    return f"-A {_BASES[chain]} -j {chain}"


def _has_chain(lines: list[str], chain: str) -> bool:
    return any(line.startswith(f":{chain} ") for line in lines)


def _rules(lines: list[str], chain: str, vni: int) -> list[str]:
    comment = f'--comment "{_comment(vni)}"'
    return [line for line in lines if line.startswith(f"-A {chain} ") and comment in line]


async def _change(version: int, commands: Callable[[str], list[str]]) -> None:
    save, restore = (_tool(what, version) for what in ("save", "restore"))
    failure, last = "", ("", "")
    for _ in range(_TRIES):
        code, listing, words = await _run([save, "-t", "raw"], "")
        if code:
            raise TunnelError(f"{save} failed: {words or f'status {code}'}")
        wanted = commands(listing)
        if not wanted:
            return
        script = "\n".join(("*raw", *wanted, "COMMIT", ""))
        code, _, words = await _run([restore, "--noflush", "--wait", str(_LOCK_TIMEOUT)], script)
        # After success too there may be more to do: of two that remove their rules at once, neither sees the last go.
        failure = f"{restore} failed: {words or f'status {code}'}" if code else "the rules do not stay as they are made"
        if failure and last == (listing, failure):
            break  # nobody else is to blame
        last = (listing, failure)
    raise TunnelError(f"{failure}, with: {'; '.join(wanted)}")


def _tool(what: str, version: int) -> str:
    name = f"ip{'6' if version == 6 else ''}tables-{what}"
    for directory in _DIRECTORIES:
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    raise TunnelError(f"there is no {name} in {', '.join(_DIRECTORIES)}: install iptables")


async def _run(argv: list[str], given: str) -> tuple[int, str, str]:
    """Run a tool; its status, and what it wrote."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise TunnelError(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(_TIMEOUT):
            output, errors = await process.communicate(given.encode())
    except TimeoutError:
        raise TunnelError(f"{argv[0]} did not end within {_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace").strip()
