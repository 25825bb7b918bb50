"""The command line of kata-monitor."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kata_py.monitor import command


def parsed(*words: str) -> tuple[object, object, object]:
    found = command._parser().parse_args(words)
    return found.listen_address, found.runtime_endpoint, found.log_level


def test_the_defaults_are_upstreams_and_the_loopback() -> None:
    assert parsed() == (("127.0.0.1", 8090), Path("/run/containerd/containerd.sock"), "info")


def test_flags_may_be_written_as_go_programs_take_them() -> None:
    words = ("-listen-address=:8090", "-runtime-endpoint", "unix:///run/crio/crio.sock", "--log-level=trace")
    assert parsed(*words) == (("", 8090), Path("/run/crio/crio.sock"), "trace")
    assert parsed("--listen-address", "[::1]:0", "--runtime-endpoint=") == (("::1", 0), None, "info")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--listen-address", "8090"], "expected HOST:PORT, :PORT or [ADDRESS]:PORT, not '8090'"),
        (["--listen-address", "::1:8090"], "expected HOST:PORT"),
        (["--listen-address", "a:65536"], "expected HOST:PORT"),
        (["--runtime-endpoint", "tcp://127.0.0.1:1"], "expected the path of a Unix socket"),
        (["--log-level", "loud"], "invalid choice: 'loud'"),
        (["--log", "info"], "unrecognized arguments: --log"),
    ],
)
def test_a_command_line_that_is_none_is_told_why(
    words: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(words)
    assert left.value.code == 2
    assert cause in capsys.readouterr().err


@pytest.mark.parametrize("word", ["version", "--version"])
def test_it_says_what_it_is(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([word]) == 0
    assert capsys.readouterr().out.startswith("kata-monitor (kata-py) ")


def test_a_port_that_another_has_ends_it_with_words(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert command.main(["--listen-address", address]) == 1
    assert f"kata-monitor: {address} cannot be listened at: " in capsys.readouterr().err
