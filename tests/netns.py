"""Network namespaces for tests: each with the process that holds it, and gone with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_COUNT = re.compile(r" direct_packets_stat \d+")  # of htb; packets come at any time


@dataclass(frozen=True)
class Pod:
    """A network namespace; `path` is what an OCI spec would name."""

    pid: int

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.pid}/ns/net")

    def run(self, *argv: str) -> str:
        """Run a program in it; gives what it prints."""
        line = ["nsenter", f"--net={self.path}", *argv]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}"
        return done.stdout

    def ip(self, words: str) -> str:
        """ip(8)."""
        return self.run("ip", *words.split())

    def end(self) -> None:
        """End what holds it, and wait until the path leads nowhere."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def links(self) -> set[str]:
        """The names of its links."""
        return {line.split(": ")[1].split("@")[0] for line in self.ip("-o link show").splitlines()}

    def state(self) -> str:
        """All that a connection to a guest changes: links, addresses, queueing disciplines."""
        disciplines = _COUNT.sub("", self.run("tc", "qdisc", "show"))
        return self.ip("-br link") + self.ip("-br addr") + disciplines


@contextmanager
def pod() -> Iterator[Pod]:
    """A fresh namespace with its loopback up."""
    line = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo && exec sleep infinity"]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"\n"
            yield Pod(holder.pid)
        finally:
            holder.kill()


def join(one: Pod, name: str, other: Pod, peer: str) -> None:
    """A veth pair between two namespaces, both ends up."""
    one.ip(f"link add {name} type veth peer name {peer} netns {other.pid}")
    one.ip(f"link set {name} up")
    other.ip(f"link set {peer} up")
