"""How long a manager waits for `start`: from exec to the address on stdout, interpreter included.

Two launchers: the console script that pip makes, and what a distribution's package would ship: the system's
Python isolated from environment and site, with the places of the code spelt out.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kata_py.shim import listener

Figure = tuple[str, str, str]
"""Name, value, bar."""

RUNS = 20
BAR = 60  # milliseconds
TIMEOUT = 10.0  # seconds
ID = "bench-shim-start"

PACKAGED = """\
#!/usr/bin/python3 -IS
import sys
sys.path[:0] = {places}
from kata_py.shim.command import main
sys.exit(main())
"""


def figures() -> list[Figure]:
    """Measure; takes about ten seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as scratch:
        bundle = Path(scratch, "bundle")
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "annotations": {}}))
        packaged = Path(scratch, "containerd-shim-kata-v2")
        packaged.write_text(PACKAGED.format(places=_places()))
        packaged.chmod(0o755)
        launchers = {"console script": Path(sys.executable).with_name(packaged.name), "packaged launcher": packaged}
        return [_figure(name, launcher, bundle) for name, launcher in launchers.items()]


def _places() -> list[str]:
    """Where the code lies, without the standard library."""
    return [path for path in sys.path if path and not path.startswith(f"{sys.base_prefix}/lib/python3")]


def _figure(name: str, launcher: Path, bundle: Path) -> Figure:
    measure(launcher, bundle)  # compiles what is not compiled yet
    runs = [measure(launcher, bundle) for _ in range(RUNS)]
    value = f"{statistics.median(runs):.1f} ms (of {RUNS}: {min(runs):.1f}–{max(runs):.1f})"
    return f"shim: start to address, {name}", value, f"≤ {BAR} ms"


def measure(launcher: Path, bundle: Path) -> float:
    """Milliseconds from exec to the address."""
    words = [launcher, "-namespace", "bench", "-address", "", "-publish-binary", "/bin/true", "-id", ID, "start"]
    began = time.perf_counter()
    with subprocess.Popen(words, cwd=bundle, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as start:
        assert start.stdout
        readable, _, _ = select.select([start.stdout], [], [], TIMEOUT)
        took = (time.perf_counter() - began) * 1e3
        address = start.stdout.read().decode()
    if not readable or not address.startswith("unix://"):
        raise RuntimeError(f"{launcher} printed {address!r} and ended with {start.returncode}")
    _end(int((bundle / "shim.pid").read_text()))
    listener.remove_dead(address.removeprefix("unix://"))
    return took


def _end(pid: int) -> None:
    try:
        daemon = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        select.select([daemon], [], [], TIMEOUT)
    except ProcessLookupError:
        pass
    finally:
        os.close(daemon)


if __name__ == "__main__":
    for figure in figures():
        print(*figure, sep="  ")
