"""Whose machines are: a name that no other node has, of this cluster or another one in the same account."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from kata_caa.errors import SettingError

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"), Path("/sys/class/dmi/id/product_uuid"))


def owner_of_this_node(configured: str, environ: Mapping[str, str] | None = None) -> str:
    """What the owner's tag says: what is configured, else the node's name with a digest of its machine id.

    The sweep deletes whatever bears it and has no sandbox here, so two nodes must never share one.

    Raises:
        SettingError: The machine has no id.
    """
    if configured:
        return configured
    name = (os.environ if environ is None else environ).get("NODE_NAME") or socket.gethostname()
    for path in _MACHINE_IDS:
        try:
            identity = path.read_text().strip()
        except OSError:
            continue
        if identity:
            return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    raise SettingError(
        "-owner: this machine has no /etc/machine-id to tell its VMs from others' by; name one that no other node has"
    )
