from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from kata_py.network.tap import attach_queues, open_tap, open_vhost


def test_vhost_is_opened_once_for_each_queue_and_closed_with_the_rest(tmp_path: Path) -> None:
    node = tmp_path / "vhost-net"
    node.touch()
    with ExitStack() as stack:
        opened = open_vhost(2, stack, node=node)
        assert [Path(f"/proc/self/fd/{fd}").readlink() for fd in opened] == [node] * 2
        assert not any(os.get_inheritable(fd) for fd in opened)
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_host_without_vhost_has_none(tmp_path: Path) -> None:
    with ExitStack() as stack:
        assert open_vhost(2, stack, node=tmp_path / "vhost-net") == ()


def test_vhost_that_cannot_be_opened_is_told_by_its_path(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(IsADirectoryError, match=str(tmp_path)):
        open_vhost(1, stack, node=tmp_path)


@pytest.mark.root
def test_a_taps_name_is_taken_once() -> None:
    with ExitStack() as stack:
        name = f"kp{os.getpid()}"
        open_tap(name, 2, stack)
        with pytest.raises(OSError, match=name) as error:
            open_tap(name, 2, stack)
        assert error.value.errno == errno.EBUSY


@pytest.mark.root
def test_queues_that_were_detached_take_part_again() -> None:
    import fcntl
    import struct

    with ExitStack() as stack:
        queues = open_tap(f"kp{os.getpid()}", 2, stack)
        detach = struct.pack("16xH22x", 0x400)  # IFF_DETACH_QUEUE
        fcntl.ioctl(queues[1], 0x400454D9, detach)
        attach_queues(queues)
        fcntl.ioctl(queues[1], 0x400454D9, detach)  # which fails on one that does not take part
