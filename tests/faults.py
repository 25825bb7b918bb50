"""Faults at a chosen moment of a sandbox's life: its processes found, killed, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kata_py.sandbox import record as records
from kata_py.sandbox.paths import HostPaths

TIMEOUT = 60.0  # seconds until a moment must have come
MACHINES = HostPaths().machines
_HEED = 0.2  # seconds in which a guest that heeds an interrupt is down
_PAUSE = 0.001  # seconds between looks at a record: a file, of which nothing else tells


async def on_record(sandbox: str, moment: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until a sandbox's record says so, and return what it says.

    Raises:
        LookupError: The sandbox was gone before that.
        TimeoutError: It did not come in time.
    """
    path = records.ROOT / sandbox / "record.json"
    seen = False
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                content: dict[str, Any] = json.loads(path.read_bytes())
            except FileNotFoundError:
                if seen:
                    raise LookupError(f"{sandbox} was gone before its moment came") from None
            else:
                seen = True
                if moment(content):
                    return content
            await asyncio.sleep(_PAUSE)


async def kill_when(sandbox: str, victim: str, moment: Callable[[dict[str, Any]], bool]) -> None:
    """Kill one of a sandbox's processes at a moment, or as soon after it as there is one of that name.

    Raises:
        LookupError: The sandbox was gone before that.
        TimeoutError: The moment did not come in time.
    """
    content = await on_record(sandbox, lambda content: moment(content) and victim in processes(content))
    with suppress(ProcessLookupError):  # as dead as it should be
        os.kill(processes(content)[victim], signal.SIGKILL)


async def panic_when(sandbox: str, moment: Callable[[dict[str, Any]], bool]) -> None:
    """Bring a sandbox's guest, and with it the agent, its PID 1, down at a moment, by QEMU's extra monitor.

    The guest must run with `unknown_nmi_panic`; the interrupt is sent until its kernel is far enough to heed it.

    Raises:
        LookupError: The sandbox was gone before that.
        TimeoutError: The moment did not come in time, or the guest does not end.
    """
    await on_record(sandbox, moment)
    reader, writer = await asyncio.open_unix_connection(MACHINES / sandbox / "extra-monitor.sock")
    try:
        async with asyncio.timeout(TIMEOUT):
            writer.write(b'{"execute": "qmp_capabilities"}')
            while True:
                writer.write(b'{"execute": "inject-nmi"}')
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEED):
                        while await reader.readline():
                            pass
                        return
    except ConnectionError:
        pass  # as down as it should be
    finally:
        writer.close()


def processes(content: dict[str, Any]) -> dict[str, int]:
    """The pids that a record names: the shim's, and its children's by their names."""
    children = {entry["name"]: entry["pid"] for entry in content["undo"] if entry["kind"] == "kill-process"}
    return {"shim": content["shim"]["pid"], **children}


def in_stage(name: str) -> Callable[[dict[str, Any]], bool]:
    """The moment at which a stage of the start is on record."""
    return lambda content: any(span["name"] == name for span in content["timeline"])


def in_state(state: records.State) -> Callable[[dict[str, Any]], bool]:
    """The moment at which the sandbox is on record in a state."""
    return lambda content: content["state"] == state


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process with all its descendants stands still for as long as the context lasts."""
    tree = _tree(pid)
    for each in tree:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in tree:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _tree(int(child)))]
