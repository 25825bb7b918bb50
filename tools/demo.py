"""`make demo`: containers and a pod in virtual machines, from a real containerd down to crun, shown step by step."""

from __future__ import annotations

import os
import platform
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import table
from tests.cri.client import CriError
from tools import configuration, demo_pod
from tools.containerd import ContainerdError, PrivateContainerd
from tools.cri import CriContainerd
from tools.footprint import Footprint
from tools.steps import DemoError, expect, step

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build"
SETTLE_TIMEOUT = 3.0  # seconds
TTY_TIMEOUT = 60.0  # seconds
OURS = ("demo-", "kata", "containerd", "/run/vc", str(BUILD))  # what else changes on the machine is not our doing
SIZED = 'until [ "$(stty size 2>/dev/null)" ]; do :; done; stty size'  # ctr gives the size once the process runs
LAUNCHER = Path(sys.executable).with_name("containerd-shim-kata-v2")


def main() -> int:
    """Run the demo; 0 when every step did what it says and nothing is left behind."""
    if os.geteuid() != 0:
        print("make demo needs root: containerd mounts, and the shim starts virtual machines", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = configuration.write(BUILD / "demo" / "configuration.toml", BUILD / "guest", program="make demo")
    before = Footprint.take()
    status = 0
    scratch = BUILD / "demo" / "pod"
    shutil.rmtree(scratch, ignore_errors=True)
    containerd = CriContainerd(BUILD / "demo" / "containerd", LAUNCHER, {demo_pod.HANDLER: config})
    try:
        step("start a private containerd", f"its log is {containerd.log.relative_to(REPOSITORY)}")
        with containerd:
            tour(containerd)
            demo_pod.tour(containerd, scratch)
    except KeyboardInterrupt:
        print("\ninterrupted; everything was cleaned up", file=sys.stderr)
        status = 130
    except (ContainerdError, CriError, DemoError, TimeoutError, subprocess.SubprocessError) as error:
        print(f"\nfailed: {error}\n{containerd.log_tail(40)}", file=sys.stderr)
        status = 1
    left = left_behind(before)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    if not left:
        step("nothing is left behind", "processes, mounts, links, cgroups and /run are as before")
    return status or (1 if left else 0)


def tour(containerd: PrivateContainerd) -> None:
    """The steps, each of which checks what it shows."""
    step("run a container, attached: its kernel is the guest's")
    guest = shown(containerd, *containerd.run_arguments("demo-1", "uname", "-sr", options=["--rm"])).strip()
    host = f"{platform.system()} {platform.release()}"
    print(f"\n    host kernel   {host}\n    guest kernel  {guest}")
    expect(guest != host, "the container saw the host's kernel: it ran in no virtual machine")

    step("run one in the background, and look inside")
    shown(containerd, *containerd.run_arguments("demo-2", "sleep", "1000", options=["--detach"]))
    output = shown(containerd, *containerd.exec_arguments("demo-2", "e1", "sh", "-c", "echo pid $$ of $(hostname)"))
    expect("pid" in output, "exec printed nothing")

    step("bytes through stdin")
    text = "through the fifo, the shim, the agent and back\n"
    echoed = shown(containerd, *containerd.exec_arguments("demo-2", "e2", "cat"), stdin=text)
    expect(echoed == text, f"cat gave {echoed!r}")

    step("a terminal of 100 columns")
    size = shown_on_tty(containerd, *containerd.exec_arguments("demo-2", "e3", "sh", "-c", SIZED, options=["-t"]))
    expect("40 100" in size, f"the terminal has another size: {size!r}")

    step("an exit code comes back")
    shown(containerd, *containerd.exec_arguments("demo-2", "e4", "sh", "-c", "exit 42"), status=42)

    step("numbers of the container, from the guest's cgroups")
    expect("memory" in shown(containerd, "tasks", "metrics", "demo-2"), "no metrics")

    step("where the time went")
    print(table(Record.load("demo-2").timeline))

    step("kill and delete: 128 + 9 is what is left of it")
    shown(containerd, "tasks", "kill", "--signal", "SIGKILL", "demo-2")
    containerd.until_stopped("demo-2")
    shown(containerd, "tasks", "delete", "demo-2")
    shown(containerd, "containers", "delete", "demo-2")


def left_behind(before: Footprint, *, also: Sequence[str] = ()) -> list[str]:
    """What is left of ours, by these further words too, once what was killed has had its time to go."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    words = (*OURS, *also)
    while True:
        left = [line for line in Footprint.take().added_since(before) if any(word in line for word in words)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def shown(containerd: PrivateContainerd, *arguments: str, stdin: str = "", status: int = 0) -> str:
    """Run `ctr` in the open: the command, its output, its exit code and how long it took."""
    print(f"    $ ctr {shlex.join(arguments)}", flush=True)
    began = time.monotonic()
    result = containerd.ctr(*arguments, check=False, stdin=stdin.encode())
    output = result.stdout.decode(errors="replace")
    for line in (output + result.stderr.decode(errors="replace")).splitlines():
        print(f"      {line}")
    print(f"      exit {result.returncode}, {time.monotonic() - began:.1f} s", flush=True)
    expect(result.returncode == status, f"ctr ended with {result.returncode}, not {status}")
    return output


def shown_on_tty(containerd: PrivateContainerd, *arguments: str) -> str:
    """As `shown`, with a terminal of 40 rows and 100 columns as ctr's streams."""
    print(f"    $ ctr {shlex.join(arguments)}", flush=True)
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as terminal:
        try:
            subprocess.run(["stty", "rows", "40", "columns", "100"], stdin=slave, check=True)
            process = subprocess.Popen(containerd.command(*arguments), stdin=slave, stdout=slave, stderr=slave)
        finally:
            os.close(slave)
        hung = threading.Timer(TTY_TIMEOUT, process.kill)  # the last holder of the other end: reading ends with it
        hung.start()
        chunks = []
        try:
            while chunk := terminal.read(4096):
                chunks.append(chunk)
        except OSError:  # EIO: nobody holds the other end any more
            pass
        finally:
            hung.cancel()
        expect(process.wait() == 0, f"ctr ended with {process.returncode} on a terminal")
    output = b"".join(chunks).decode(errors="replace")
    print("".join(f"      {line}\n" for line in output.splitlines()), end="")
    return output


if __name__ == "__main__":
    sys.exit(main())
