"""All of a pod VM's start in one process, for our own image: its address, its user data, the pod's network, the agent's
forwarder. Upstream's image has a systemd unit for each.

May be run again after a failure: what is done already is found so. Source: cloud-api-adaptor
`podvm/files/etc/systemd/system`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from kata_caa.errors import AdaptorError, ForwarderError
from kata_caa.forwarder.console import tell

TIMEOUT: Final = 180.0
"""Seconds for user data, and for `apf.json`, to be there."""

_PAUSE: Final = 1.0  # seconds between two looks for a source of user data


def main() -> int:
    """Make this VM the pod's, and serve until told to stop; returns the exit status."""
    import logging

    logging.basicConfig(level=logging.INFO, format="forwarder: %(message)s", stream=sys.stderr)
    try:
        _run()
    except AdaptorError as error:
        os.write(2, f"forwarder: failed: {error}\n".encode())
        return 1
    return 0


def _run() -> None:
    from kata_caa.forwarder import dhcp

    dhcp.bring_up(meanwhile=_load)
    tell("network")
    provide(TIMEOUT)
    tell("user data")
    serve()


def serve() -> None:
    """Forward, until told to stop; the files are there. The agent runs already, so it is told of the pod's policy.

    Raises:
        AdaptorError: It cannot start.
    """
    import asyncio

    from kata_caa.forwarder import command, daemon, provision

    options = command.Options()
    asyncio.run(daemon.serve(options, command.load(options.config), policy=Path(provision.POLICY)))


def _load() -> None:
    """Load what will be needed: the time is free while a DHCP server is waited for."""
    import importlib

    for name in ("kata_caa.forwarder.daemon", "kata_caa.forwarder.tls", "kata_protos.agent_pb2"):
        importlib.import_module(name)


def provide(timeout: float, *, root: Path = Path("/"), pause: float = _PAUSE) -> None:
    """Bring the VM its files, `apf.json` among them. Nothing is done where an earlier run has done all of it.

    Args:
        timeout: Seconds.
        root: Where the machine's `/run`, `/media`, `/dev` and `/sys` are.
        pause: Seconds between two looks for a source of user data.

    Raises:
        ForwarderError: They have not come within that time.
        MalformedConfig: The initdata has not its form.
    """
    from kata_caa import apf
    from kata_caa.forwarder import provision, sources

    config = root / apf.PATH.lstrip("/")
    last = root / provision.DIGEST.lstrip("/")  # written when all else is
    deadline = time.monotonic() + timeout
    while not (config.exists() and last.exists()):
        # A disk may come late, and where nothing tells of a source somebody else may bring the files.
        source = sources.find(root)
        if source is not None or config.exists():
            provision.provision(source, max(0.0, deadline - time.monotonic()), root=root)
            if not config.exists():
                raise ForwarderError(f"user data brings no {apf.PATH}: is this VM an adaptor's?")
        elif time.monotonic() > deadline:
            raise ForwarderError(f"waited {timeout:g} s for {apf.PATH}, or for a source of user data")
        else:
            time.sleep(pause)
