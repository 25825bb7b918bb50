"""Makes the node's end of a tunnel, and kills itself before its last step.

Usage: python -m tests.functional.caa.doomed NETNS VNI REMOTE
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from kata_caa.tunnel import inspection, vxlan
from kata_py.netlink import traffic


def kill(*_arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(netns: str, number: str, remote: str) -> None:
    network = await inspection.inspect(Path(netns))
    traffic.redirect = kill
    await vxlan.set_up(vxlan.Tunnel(netns, int(number), remote), network)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
