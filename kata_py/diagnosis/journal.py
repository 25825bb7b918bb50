"""What the node's journal has of a failed sandbox: lines of its shim, which carries the agent's and the guest console's
over, and virtiofsd's; of its manager; and of the kernel, when that has killed in its cgroups.

Read by journalctl(1), and no more of it than is bounded here. Many nodes have none: then there is nothing to be had.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

from kata_py.sandbox.failure import Failure

SPEAKERS = ("kata", "virtiofsd", "crio", "containerd", "kubelet", "kernel")  # identifiers in the journal
TIMEOUT = 5.0  # seconds that journalctl may take
BEFORE = 600.0  # seconds before a failure that are looked at, if its sandbox is that old
AFTER = 10.0  # seconds after it: a manager tells of it later
ENTRIES = 5000  # that are read: the latest
LINES = 30  # that are told: the latest
LENGTH = 400  # characters of each
_DEBUG = "7"  # syslog(3)

# Of the shim's lines: who it is, said by each of them, and where in its program an error came from.
_REPEATED = re.compile(r' (name|pid|sandbox)=\S+| stack="(\\.|[^"\\])*"')


def lines_of(failure: Failure) -> tuple[str, ...]:
    """Lines that name the sandbox, the container or the pod, oldest first, each behind who said it. Blocks.

    Args:
        failure: What has failed.
    """
    begun = failure.at - BEFORE
    if failure.timeline:
        begun = max(begun, time.time() - (time.monotonic_ns() - failure.timeline[0].began) / 1e9)
    command = [
        "journalctl", "--no-pager", "--quiet", "--output=json", "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER",
        f"--since=@{begun - 1:.0f}", f"--until=@{failure.at + AFTER:.0f}", f"--lines={ENTRIES}",
        *(f"--identifier={speaker}" for speaker in SPEAKERS),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ()
    names = {name for name in (failure.sandbox, failure.container, str(failure.pod)) if len(name) > 1}
    return tuple(_naming(names, done.stdout))[-LINES:]


def _naming(names: set[str], entries: bytes) -> Iterator[str]:
    for entry in entries.splitlines():
        try:
            fields = json.loads(entry)
        except ValueError:
            continue
        said = _text(fields.get("MESSAGE"))
        if fields.get("PRIORITY") != _DEBUG and any(name in said for name in names):
            yield f"{fields.get('SYSLOG_IDENTIFIER')}: {_REPEATED.sub('', said)[:LENGTH]}"


def _text(message: object) -> str:
    """A message as journalctl writes it: its bytes where one cannot be printed, nothing where it is too long."""
    if isinstance(message, list):
        return bytes(message).decode(errors="replace")
    return message if isinstance(message, str) else ""
