"""A private containerd: its own root, state and socket, so that the machine's own is never touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tools import oci_image
from tools.footprint import without_new_parents

RUNTIME = "io.containerd.kata.v2"
START_TIMEOUT = 30.0  # seconds until containerd says that it has booted
STOP_TIMEOUT = 15.0

_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{directory}/opt"
[debug]
level = "{level}"
"""


class ContainerdError(Exception):
    """containerd or a task did not get where it should in time; the message says which, and why if it is known."""


class PrivateContainerd:
    """A running containerd, as a context manager; leaving it ends its tasks and stops it.

    Attributes:
        namespace: Where its containers and images are.

    Args:
        directory: Where all of it lives; made when missing. Its path must leave room for socket names.
        launcher: The shim's program; its directory comes first in containerd's PATH.
        runtime_config: `configuration.toml` that the shim is told of.
        env: Added to containerd's environment, and so to the shim's.
        debug: Whether containerd and the shim log at debug level.
    """

    namespace = "default"

    def __init__(
        self,
        directory: Path,
        launcher: Path,
        runtime_config: Path,
        *,
        env: Mapping[str, str] | None = None,
        debug: bool = True,
    ) -> None:
        self.directory = directory.absolute()
        self.launcher = launcher.absolute()
        self.runtime_config = runtime_config.absolute()
        self.log = self.directory / "containerd.log"
        self.address = self.directory / "containerd.sock"
        self._env = {**os.environ, **(env or {}), "PATH": f"{self.launcher.parent}:{os.environ['PATH']}"}
        self._debug = debug
        self._fifos = self.directory / "fifo"
        self._process: subprocess.Popen[str] | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(without_new_parents())
            stack.callback(self._clean_up)
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "config.toml").write_text(self._config())
            self._prepare(stack)
            self.start()
            self.remove_all()  # a run before this one was interrupted, and containerd remembers
            self._import_images()
            self._resources = stack.pop_all()
        return self

    def _config(self) -> str:
        """The text of its configuration file."""
        return _CONFIG.format(directory=self.directory, level="debug" if self._debug else "info")

    def _prepare(self, stack: ExitStack) -> None:
        """Make what else it needs of the machine before it starts; the stack undoes it after its end."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._resources:
            if self._process is not None:
                self.remove_all()

    def _clean_up(self) -> None:
        self.stop()
        self._end_shims()
        shutil.rmtree(self._fifos, ignore_errors=True)

    def start(self) -> None:
        """Start containerd and wait until it serves.

        Raises:
            ContainerdError: It ended, or did not come up in time.
        """
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                ["containerd", "--config", str((self.directory / "config.toml").resolve())],
                cwd=self.directory,  # where a relative path in a pod's spec has containerd make directories
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.PIPE,
                text=True,
                env=self._env,
                start_new_session=True,
            )
        booted = threading.Event()
        threading.Thread(target=self._copy_log, args=(self._process, booted), daemon=True).start()
        if not booted.wait(START_TIMEOUT) or self._process.poll() is not None:
            self.stop()
            raise ContainerdError(f"containerd did not start; the end of {self.log}:\n{self.log_tail()}")

    def _copy_log(self, process: subprocess.Popen[str], booted: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr, self.log.open("a", buffering=1) as log:
            for line in process.stderr:
                log.write(line)
                if "containerd successfully booted" in line:
                    booted.set()
        booted.set()  # it ended; start() looks at the exit status

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop containerd; its shims live on, as they should.

        Raises:
            ContainerdError: It outlived SIGKILL.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT)

    @property
    def pid(self) -> int:
        """containerd's process id."""
        assert self._process is not None, "containerd is not running"
        return self._process.pid

    def bundle(self, container_id: str) -> Path:
        """A task's bundle directory."""
        return self.directory / "state/io.containerd.runtime.v2.task" / self.namespace / container_id

    def command(self, *arguments: str) -> list[str]:
        """The `ctr` command line for this containerd."""
        return ["ctr", "--address", str(self.address), "--namespace", self.namespace, *arguments]

    def ctr(
        self, *arguments: str, check: bool = True, timeout: float = 120.0, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `ctr` and collect its output.

        Raises:
            subprocess.CalledProcessError: It failed and `check` is set.
            subprocess.TimeoutExpired: It took longer than `timeout` seconds.
        """
        streams: dict[str, object] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            self.command(*arguments), check=check, capture_output=True, timeout=timeout, env=self._env, **streams
        )

    def run_arguments(self, container_id: str, *argv: str, options: Sequence[str] = ()) -> list[str]:
        """Arguments of `ctr run` for a container of the busybox image under our runtime."""
        runtime = ["--runtime", RUNTIME, "--runtime-config-path", str(self.runtime_config)]
        return ["run", *runtime, "--fifo-dir", str(self._fifos), *options, oci_image.REFERENCE, container_id, *argv]

    def exec_arguments(self, container_id: str, exec_id: str, *argv: str, options: Sequence[str] = ()) -> list[str]:
        """Arguments of `ctr tasks exec`."""
        where = ["--fifo-dir", str(self._fifos), "--exec-id", exec_id]
        return ["tasks", "exec", *where, *options, container_id, *argv]

    def run(
        self,
        container_id: str,
        *argv: str,
        options: Sequence[str] = (),
        check: bool = True,
        timeout: float = 120.0,
        stdin: bytes | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """`ctr run` of a busybox container; see `ctr` for the rest."""
        arguments = self.run_arguments(container_id, *argv, options=options)
        return self.ctr(*arguments, check=check, timeout=timeout, stdin=stdin)

    def containers(self) -> list[str]:
        """The ids of all containers."""
        return self.ctr("containers", "list", "--quiet").stdout.decode().split()

    def until_stopped(self, name: str) -> None:
        """Wait until the task is listed as stopped: a kill is a request, the exit comes after it.

        Raises:
            ContainerdError: It has not stopped in time.
        """
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            rows = (line.split() for line in self.ctr("tasks", "list").stdout.decode().splitlines())
            if any(row[0] == name and row[-1] == "STOPPED" for row in rows):
                return
        raise ContainerdError(f"{name} has not stopped {STOP_TIMEOUT:g} s after its kill")

    def remove_all(self) -> None:
        """Kill and delete every task and container, and the snapshots of containers that were never made."""
        for container_id in self.containers():
            self.ctr("tasks", "kill", "--signal", "SIGKILL", "--all", container_id, check=False)
            self.ctr("tasks", "delete", "--force", container_id, check=False)
            self.ctr("containers", "delete", container_id, check=False)
        for line in self.ctr("snapshots", "list", check=False).stdout.decode().splitlines():
            key, *_, kind = line.split()
            if kind == "Active":
                self.ctr("snapshots", "remove", key, check=False)

    def _end_shims(self) -> None:
        """End the shims of bundles that are still there: containerd was stopped in the midst of something."""
        for pid_file in self.bundle("any").parent.glob("*/shim.pid"):
            bundle = pid_file.parent
            with suppress(ProcessLookupError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
            subprocess.run(
                [self.launcher, "-namespace", self.namespace, "-address", str(self.address), "-id", bundle.name,
                 "-bundle", str(bundle), "delete"],
                cwd=bundle, check=False, capture_output=True, timeout=STOP_TIMEOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def wipe(self) -> None:
        """Remove the directory of a stopped containerd."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The end of containerd's log, with what the shim wrote into it."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _import_images(self) -> None:
        """See to it that the images are there."""
        self._import_image(oci_image.REFERENCE, oci_image.SHELL)

    def _import_image(
        self, reference: str, command: Sequence[str], files: Mapping[str, oci_image.File] | None = None
    ) -> None:
        if reference in self.ctr("images", "list", "--quiet").stdout.decode().split():
            return
        archive = self.directory / "image.tar"
        oci_image.build(archive, reference, command, files)
        self.ctr("images", "import", str(archive))
        archive.unlink()
