"""Namespaces that the containers of a sandbox share: made once, kept by a bind mount."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from kata_agent import linux

_KINDS = {"ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS}


def persist(directory: Path, hostname: str) -> dict[str, str]:
    """Make new ipc and uts namespaces, each kept under its name in the directory. Blocks for a moment.

    Args:
        directory: Where; made if missing.
        hostname: What the machine is called in the uts namespace; empty leaves the name.

    Returns:
        The paths by namespace type.

    Raises:
        OSError: The kernel refuses.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = {kind: str(directory / kind) for kind in _KINDS}
    failures: list[OSError] = []

    def make() -> None:
        try:
            linux.unshare(sum(_KINDS.values()))
            if hostname:
                socket.sethostname(hostname)
            for kind, path in paths.items():
                Path(path).touch()
                linux.mount(f"/proc/thread-self/ns/{kind}", path, flags=linux.MS_BIND)
        except OSError as error:
            failures.append(error)

    # A thread of its own: namespaces belong to threads, and this one ends here.
    thread = threading.Thread(target=make, name="namespaces")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return paths
