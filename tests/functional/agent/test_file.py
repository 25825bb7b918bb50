"""Files that the host sends into the share."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from kata_protos import agent_pb2 as agent
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import GUEST_SHARE, TIMEOUT, Pod

pytestmark = pytest.mark.root

PIECE = 1 << 20  # bytes, as hosts send them


async def _send(pod: Pod, name: str, content: bytes, mode: int = stat.S_IFREG | 0o600) -> None:
    pieces = range(0, len(content), PIECE) if stat.S_ISREG(mode) else (0,)
    for offset in pieces:
        request = agent.CopyFileRequest(
            path=f"{GUEST_SHARE}/{name}", file_mode=mode, dir_mode=0o755, offset=offset,
            data=content[offset : offset + PIECE], file_size=len(content),
        )  # fmt: skip
        await pod.calls.CopyFile(request, timeout=TIMEOUT)


async def test_files_sent_side_by_side_are_read_by_a_container(pod: Pod) -> None:
    one, two = os.urandom(3 * PIECE + 17), os.urandom(2 * PIECE)

    await asyncio.gather(_send(pod, "ctr-files/data.x", one), _send(pod, "ctr-files/data.y", two))
    await _send(pod, "ctr-files/link", b"data.x", stat.S_IFLNK | 0o777)

    files = pod.share / "ctr-files"
    assert ((files / "link").read_bytes(), (files / "data.y").read_bytes()) == (one, two)
    assert sorted(path.name for path in files.iterdir()) == ["data.x", "data.y", "link"]


async def test_a_path_out_of_the_share_is_refused(pod: Pod) -> None:
    with pytest.raises(StatusError, match="is not below") as refusal:
        await pod.calls.CopyFile(
            agent.CopyFileRequest(path="/etc/no-such-name", data=b"x", file_size=1), timeout=TIMEOUT
        )

    assert refusal.value.code is Code.INTERNAL
    assert not pod.path("/etc/no-such-name").exists()
