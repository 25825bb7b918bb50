"""The whole node gone through: what is wrong with it, by what evidence, and what to do next.

Nothing is changed. Shims are asked whether their guests' agents answer, which they do beside all else; all other parts
are read from files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.errors import ConfigurationError
from kata_py.config.load import DEFAULTS, load
from kata_py.diagnosis import garbage, overview
from kata_py.diagnosis.quantity import duration
from kata_py.diagnosis.verdict import judge
from kata_py.http import client
from kata_py.http.client import ClientError, Gone
from kata_py.node import capacity, managers
from kata_py.node.check import check
from kata_py.node.eligibility import Finding, Verdict
from kata_py.sandbox import failure, sockets
from kata_py.sandbox.paths import HostPaths

CHECK_TARGET = "/agent-check"
AGENT_TIMEOUT = 8.0  # seconds; the shim gives its agent three
FAILURES_MAX = 10  # of those kept the newest are told one by one

_AT_ONCE = 16
_ANSWER_MAX = 1 << 14  # bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the node.

    Attributes:
        name: `node`, `configuration` and so on.
        findings: What was found there.
    """

    name: str
    findings: tuple[Finding, ...]


async def examine(
    named: Path | None,
    paths: HostPaths,
    *,
    emulation: bool = False,
    root: Path = Path("/"),
    roots: tuple[Path, ...] = sockets.ROOTS,
) -> list[Part]:
    """Go through the node.

    Args:
        named: The configuration's file; None is the one that the shim would take.
        paths: Where sandboxes' files lie.
        emulation: Whether a node without KVM will do.
        root: Where the node's files are.
        roots: Where sandboxes' sockets are.
    """
    return [
        Part("node", tuple(await asyncio.to_thread(check, named, emulation=emulation, root=root))),
        Part("managers", tuple(await asyncio.to_thread(lambda: list(managers.judged(root))))),
        Part("room", tuple(await asyncio.to_thread(_room, named, root))),
        Part("sandboxes", (*await asyncio.to_thread(_dead, paths), *await _agents(roots))),
        Part("leftovers", tuple(await asyncio.to_thread(lambda: list(_leftovers(paths))))),
        Part("failures", tuple(await asyncio.to_thread(lambda: list(_failures(paths))))),
    ]


def findings(parts: Iterable[Part]) -> Iterator[Finding]:
    """What was found in all parts."""
    for part in parts:
        yield from part.findings


def _room(named: Path | None, root: Path) -> list[Finding]:
    try:
        configuration = load(named)
    except ConfigurationError:
        configuration = load(DEFAULTS)  # what is wrong with it is the node's part
    return list(capacity.judged(configuration, root))


def _dead(paths: HostPaths) -> list[Finding]:
    """Sandboxes whose shim has died, and which their manager still has; and records that cannot be read."""
    found: list[Finding] = []
    forsaken = {each.id for each in garbage.forsaken(paths)}
    for sandbox in overview.gather((paths.records,)):
        name = f"sandbox {sandbox.id[:12]}"
        if sandbox.state == overview.DEAD and sandbox.id not in forsaken:
            evidence = f"{sandbox.pod}: its shim has died; {sandbox.leftovers} entries are to be undone"
            fix = f"kata-ctl explain {sandbox.id[:12]}; then let the manager delete it: crictl rmp -f {sandbox.id[:12]}"
            found.append(Finding(name, Verdict.FAIL, evidence, fix))
        elif sandbox.state == overview.UNREADABLE:
            evidence = f"{paths.records / sandbox.id / 'record.json'} cannot be read"
            found.append(Finding(name, Verdict.FAIL, evidence, "look at the file; nothing of it is undone by itself"))
    return found


async def _agents(roots: tuple[Path, ...]) -> list[Finding]:
    """Ask each shim whether its guest's agent answers."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def ask(sandbox_id: str, path: Path) -> Finding | None:
        name = f"sandbox {sandbox_id[:12]}"
        fix = f"see journalctl -t kata and kata-ctl explain {sandbox_id[:12]}; start the pod anew"
        began = time.monotonic()
        async with turn:
            try:
                reply = await client.get(str(path), CHECK_TARGET, timeout=AGENT_TIMEOUT, limit=_ANSWER_MAX)
            except Gone:
                return None  # it has ended, or is among the dead
            except ClientError as error:
                return Finding(name, Verdict.FAIL, f"its shim does not answer: {error}", fix)
        match reply.status:
            case 200:
                return Finding(name, Verdict.OK, f"its agent answered after {time.monotonic() - began:.2f} s")
            case 404:
                return Finding(name, Verdict.OK, "not asked: another runtime's, or of an earlier version")
        said = reply.body.decode(errors="replace").strip()[:300]
        return Finding(name, Verdict.FAIL, f"its agent does not answer: {said}", fix)

    found = await asyncio.gather(*(ask(*each) for each in sockets.serving(roots).items()))
    return [each for each in found if each is not None]


def _leftovers(paths: HostPaths) -> Iterator[Finding]:
    """What `gc` would undo, and directories that no record names."""
    for each in garbage.forsaken(paths):
        evidence = f"{len(each.entries)} entries of a sandbox without shim and bundle: {', '.join(each.entries[:3])}"
        yield Finding(f"sandbox {each.id[:12]}", Verdict.WARN, evidence, "kata-ctl gc")
    for root in (paths.shares, paths.machines):
        for directory in sorted(root.iterdir()) if root.is_dir() else ():
            if directory.is_dir() and not (paths.records / directory.name).exists():
                fix = "see what is mounted or runs there; if nothing is, remove it"
                yield Finding(str(directory), Verdict.WARN, "no record of a sandbox names it", fix)


def _failures(paths: HostPaths) -> Iterator[Finding]:
    kept = failure.load(paths.failures)
    for each in kept[:FAILURES_MAX]:
        verdict = judge(each)
        age = duration(max(0.0, time.time() - each.at))
        told = f"{verdict.pod}: {verdict.what}, {age} ago, in stage {verdict.stage}: {verdict.code} {verdict.cause}"
        yield Finding(f"sandbox {each.sandbox[:12]}", Verdict.WARN, told, f"kata-ctl explain {each.sandbox[:12]}")
    if len(kept) > FAILURES_MAX:
        evidence = f"{len(kept) - FAILURES_MAX} older ones are kept in {paths.failures}"
        yield Finding("older failures", Verdict.OK, evidence)
