"""What the guest's boot waits for: each import costs it forty times what it costs here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import google.protobuf

from tests.conftest import REPOSITORY

_HEAVY = ("argparse", "ctypes", "google.protobuf", "pathlib", "random", "shutil", "tempfile", "urllib.parse", "_ssl")


def _loaded_by(statement: str) -> set[str]:
    paths = [str(REPOSITORY / name) for name in ("agent", "protos", ".")]
    program = f"import sys; sys.path[:0] = {paths!r}; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_heavy_is_loaded_before_health_can_be_answered() -> None:
    imports = "import kata_agent.__main__ as m, kata_agent.cmdline, kata_agent.init; m.leave_out_tls()"
    server = "import kata_agent.server, kata_py.ttrpc.transport.serial, kata_py.ttrpc.transport.vsock"

    loaded = _loaded_by(f"{imports}; {server}")

    assert "asyncio" in loaded
    assert loaded.isdisjoint(_HEAVY)
    assert {name for name in loaded if name.startswith(("kata_agent.network", "kata_agent.rpc"))} == set()


def test_the_first_line_on_the_console_needs_no_import_at_all() -> None:
    loaded = _loaded_by("import kata_agent.__main__")

    assert {name for name in loaded if name.startswith("kata_")} == {"kata_agent", "kata_agent.__main__"}
    assert "asyncio" not in loaded


def test_figures_and_policies_are_loaded_only_when_they_are_asked_for() -> None:
    packages = str(Path(google.protobuf.__file__).parents[2])
    loaded = _loaded_by(f"sys.path.append({packages!r}); import kata_agent.rpc.service")

    assert "kata_agent.rpc.policy" in loaded
    names = ("kata_agent.policy.engine", "kata_agent.metrics.scrape", "regorus", "tomllib", "hashlib")
    names += ("kata_agent.rpc.telemetry", "kata_protos.telemetry_pb2")
    assert loaded.isdisjoint(names)
