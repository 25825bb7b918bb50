from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from kata_py.shim import listener
from kata_py.shim.errors import ListenerError


@pytest.fixture
def path(short_tmp: Path) -> Iterator[str]:
    path = short_tmp / "root" / "s" / "socket"
    yield str(path)
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("address", "hashed"),
    [
        ("", "default/pod"),
        ("/run/containerd/containerd.sock", "/run/containerd/containerd.sock/default/pod"),
        ("//run/./containerd//containerd.sock/", "/run/containerd/containerd.sock/default/pod"),
    ],
)
def test_the_name_is_containerds_hash_of_the_cleaned_path(address: str, hashed: str) -> None:
    expected = f"/run/containerd/s/{sha256(hashed.encode()).hexdigest()}"
    assert listener.path_of(address, "default", "pod") == expected


def test_a_taken_socket_listens_and_is_private(path: str) -> None:
    taken = listener.take(path)
    assert taken is not None
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116
    assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
    assert listener.is_listening(taken.fileno())
    assert listener.probe(path) == os.getpid()
    taken.close()


def test_a_dead_socket_is_replaced_and_a_live_one_is_left(path: str) -> None:
    first = listener.take(path)
    assert first is not None
    assert listener.take(path) is None
    listener.remove_dead(path)
    assert listener.probe(path) == os.getpid()
    first.close()
    assert listener.probe(path) is None
    second = listener.take(path)
    assert second is not None
    assert listener.probe(path) == os.getpid()
    second.close()
    listener.remove_dead(path)
    assert not Path(path).exists()
    listener.remove_dead(path)


def test_a_live_listener_with_a_full_backlog_counts_as_live(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.connect(path)
        assert listener.probe(path) == 0
        assert listener.take(path) is None


def test_a_path_too_long_is_said_with_its_length(short_tmp: Path) -> None:
    longest = f"{short_tmp}/".ljust(106, "x")
    taken = listener.take(longest)
    assert taken is not None
    taken.close()
    Path(longest).unlink()
    with pytest.raises(ListenerError, match="socket path of 107 bytes, at most 106 fit: /tmp"):
        listener.take(longest + "x")


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(OSError, match="/proc/none") as caught:
        listener.take("/proc/none/s/socket")
    assert caught.value.filename == "/proc/none"


def test_only_a_listening_socket_is_one(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as idle:
        assert not listener.is_listening(idle.fileno())
    read, write = os.pipe()
    assert not listener.is_listening(read)
    os.close(read)
    os.close(write)
    assert not listener.is_listening(read)
