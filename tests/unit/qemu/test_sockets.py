from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.sockets import PATH_MAX, connected, listening


def test_a_connection_made_before_the_server_runs_is_served_later(short_tmp: Path) -> None:
    path = short_tmp / "early"
    with listening(path) as server, connected(path) as client:
        client.send(b"early")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(10) == b"early"


def test_a_server_that_dies_unserved_is_heard_of_by_whoever_connected(short_tmp: Path) -> None:
    path = short_tmp / "dying"
    with listening(path) as server, connected(path) as client:
        client.setblocking(True)
        client.settimeout(5)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_longest_path_fits_and_one_byte_more_is_named(short_tmp: Path) -> None:
    longest = short_tmp / ("x" * (PATH_MAX - len(str(short_tmp)) - 1))
    with listening(longest), connected(longest):
        pass
    with (
        pytest.raises(HypervisorError, match=r"socket path too long: /tmp/.* has 108 bytes, a Unix socket's has 107"),
        listening(Path(f"{longest}x")),
    ):
        raise AssertionError("bound")


def test_paths_are_counted_in_bytes(short_tmp: Path) -> None:
    with pytest.raises(HypervisorError, match="socket path too long"), listening(short_tmp / ("ä" * 50)):
        raise AssertionError("bound")


def test_a_socket_that_cannot_be_bound_is_named(short_tmp: Path) -> None:
    path = short_tmp / "gone" / "socket"
    with pytest.raises(FileNotFoundError, match=f"'{path}'"), listening(path):
        raise AssertionError("bound")


def test_a_refused_connection_is_the_systems_error(short_tmp: Path) -> None:
    with pytest.raises(FileNotFoundError), connected(short_tmp / "nobody"):
        raise AssertionError("connected")
