from __future__ import annotations

import subprocess
import sys

import pytest

from kata_agent import __version__
from tests.conftest import REPOSITORY


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = ":".join(str(REPOSITORY / name) for name in ("agent", "protos", "."))
    return subprocess.run(
        [sys.executable, "-m", "kata_agent", *arguments],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"}, timeout=20,
    )  # fmt: skip


def test_the_version_is_told() -> None:
    assert _run("--version").stdout == f"kata-agent {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--log", "debug"], "one of the arguments --server-addr --listen-fd --config is required"),
        (["--server-addr", "carrier-pigeon://x"], "unknown scheme 'carrier-pigeon'"),
        (["--server-addr", "unix:///no/such/directory/socket"], "No such file or directory"),
        (["--config", "/no/such/file"], "No such file or directory: '/no/such/file'"),
        (["--server-addr", "unix://@x", "--log", "loud"], "agent.log=loud: expected one of"),
    ],
)
def test_what_it_cannot_do_is_said_and_is_a_failure(arguments: list[str], complaint: str) -> None:
    done = _run(*arguments)

    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
