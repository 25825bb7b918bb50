"""A launcher as a package would install it, and managers who call it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kata_py.sandbox import record
from kata_py.shim import listener

TIMEOUT = 20.0  # seconds for one run of the launcher, on a busy machine
REPOSITORY = Path(__file__).resolve().parents[3]

LAUNCHER = f"""\
#!{sys.executable}
import sys
{{before}}
from kata_py.shim.command import main
sys.exit(main())
"""

# The Task service replaced by one that has a task for ever.
OCCUPIED = f"""\
sys.path.insert(0, {str(REPOSITORY)!r})
if sys.argv[-1] not in ("start", "delete"):
    from kata_py.shim import daemon
    from tests.functional.shim.occupied import make_tasks
    daemon._task_service = lambda invocation, node: make_tasks
"""


@dataclass(frozen=True)
class Manager:
    """How one manager calls."""

    address: str
    namespace: str
    binary: str
    environment: dict[str, str]


CONTAINERD = Manager(
    "/run/containerd/containerd.sock", "k8s.io", "/usr/bin/containerd",
    {"TTRPC_ADDRESS": "/run/no-such-containerd.sock.ttrpc", "GRPC_ADDRESS": "/run/containerd/containerd.sock"},
)  # fmt: skip
CRIO = Manager("", "default", "/usr/bin/crio", {"TTRPC_ADDRESS": "", "GRPC_ADDRESS": ""})


@dataclass
class Shim:
    """One container's launcher."""

    launcher: Path
    bundle: Path
    id: str
    manager: Manager = CRIO
    more: list[str] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return Path(listener.path_of(self.manager.address, self.manager.namespace, self.id))

    @property
    def pid(self) -> int:
        return int((self.bundle / "shim.pid").read_text())

    def words(self, *last: str) -> list[str]:
        return [
            str(self.launcher), "-namespace", self.manager.namespace, "-address", self.manager.address,
            "-publish-binary", self.manager.binary, "-id", self.id, *self.more, *last,
        ]  # fmt: skip

    def run(self, *last: str, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.environ["PATH"], "GOMAXPROCS": "2", "MAX_SHIM_VERSION": "2"}
        environment |= {"NAMESPACE": self.manager.namespace, **self.manager.environment}
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": TIMEOUT} | options
        return subprocess.run(
            self.words(*last), cwd=cwd or self.bundle, env=environment, process_group=0, check=False, **options
        )

    def start(self, **options: Any) -> str:
        """Start it as its manager does, who reads both outputs to their ends; returns the address."""
        done = self.run("start", **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return str(done.stdout.decode())

    def delete(self) -> subprocess.CompletedProcess[bytes]:
        return self.run("-bundle", str(self.bundle), "delete", cwd=self.bundle if self.bundle.exists() else Path("/"))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the daemon, and wait for its end if that is certain."""
        pid = self.pid
        os.kill(pid, number)
        if number == signal.SIGKILL:
            wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([pidfd], [], [], TIMEOUT)
        assert readable, f"{pid} is still there after {TIMEOUT:g} s"
    finally:
        os.close(pidfd)


def make_launcher(directory: Path, before: str = "") -> Path:
    path = directory / "containerd-shim-kata-v2"
    path.write_text(LAUNCHER.format(before=before))
    path.chmod(0o755)
    return path


def write_spec(bundle: Path, annotations: dict[str, str] | None = None) -> None:
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "annotations": annotations or {}}))


MakeShim = Callable[..., Shim]


@pytest.fixture
def make_shim(tmp_path: Path) -> Iterator[MakeShim]:
    """Makes shims of new ids; at the end nothing of them is left, whatever the test did."""
    made: list[Shim] = []

    def make(manager: Manager = CRIO, *, annotations: dict[str, str] | None = None, occupied: bool = False) -> Shim:
        id = uuid.uuid4().hex
        home = tmp_path / id
        home.mkdir()
        write_spec(home / "bundle", annotations)
        made.append(Shim(make_launcher(home, OCCUPIED if occupied else ""), home / "bundle", id, manager))
        return made[-1]

    yield make
    for shim in made:
        pid_file = shim.bundle / "shim.pid"
        if pid_file.is_file() and shim.id in _command_line(int(pid_file.read_text())):
            shim.kill()
        listener.remove_dead(str(shim.socket))
        assert not (record.ROOT / shim.id).exists()


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture
def shim(make_shim: MakeShim) -> Shim:
    return make_shim()


def daemons_of(id: str) -> list[int]:
    """The processes that have the id in their command line."""
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and id in _command_line(int(path.name))
    ]
