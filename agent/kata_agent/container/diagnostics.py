"""What a container leaves for those who ask why it ended: its termination message.

Source: kata-containers' `rpc.rs` (get_diagnostic_data); the path is Kubernetes' `terminationMessagePath`.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError

if TYPE_CHECKING:
    from kata_py.oci.spec import Spec

_PATH = "io.kubernetes.container.terminationMessagePath"
_LIMIT = 4096  # bytes, as the kubelet's


def termination_message(spec: Spec) -> str:
    """The message; empty if there is no such file. What is no UTF-8 in it is replaced.

    Raises:
        AgentError: The spec names no path for it, or mounts nothing there, or the file is none.
    """
    path = spec.get("annotations", {}).get(_PATH)
    if not path:
        raise AgentError(f"the container has no annotation {_PATH}")
    source = next((mount.get("source") for mount in spec.get("mounts", ()) if mount["destination"] == path), None)
    if source is None:
        raise AgentError(f"no mount of the container is for its termination message at {path}")
    try:
        # The container writes there: what it has made of the file must not stop us.
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise AgentError(f"cannot read the termination message: {error}") from error
    with open(fd, "rb") as file:  # noqa: PTH123 a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise AgentError(f"cannot read the termination message: {source} is no regular file")
        return file.read(_LIMIT).decode(errors="replace")
