"""The pod VM's side of a tunnel, in a process of its own: its network is that of the machine.

Usage: python -m tests.functional.caa.podvm APF.JSON NAMESPACE TIMEOUT [CHANGES]

With CHANGES it ends, with status 9, after so many changes to links, addresses, routes and neighbours.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from kata_caa import apf
from kata_caa.errors import TunnelError
from kata_caa.tunnel import pod
from kata_py.netlink.rtnetlink import Rtnetlink

CHANGE = Rtnetlink.change


def end_after(changes: int) -> None:
    left = [changes]

    def counted(self: Rtnetlink, *arguments: Any) -> None:
        CHANGE(self, *arguments)
        left[0] -= 1
        if not left[0]:
            os._exit(9)

    Rtnetlink.change = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    configuration, namespace, timeout, *changes = sys.argv[1:]
    if changes:
        end_after(int(changes[0]))
    network = apf.load(Path(configuration).read_text()).network
    try:
        asyncio.run(pod.set_up(network, Path(namespace), timeout=float(timeout)))
    except TunnelError as error:
        sys.exit(str(error))
