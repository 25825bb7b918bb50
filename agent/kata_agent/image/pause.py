"""The container that holds a pod together, of which the guest has the image itself: a bundle with `rootfs/`.

Source: kata-containers' agent, `confidential_data_hub/image.rs` (unpack_pause_image, get_process).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError

if TYPE_CHECKING:
    from kata_py.oci.spec import Process, Spec

_TYPE_KEYS = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")


def is_sandbox(metadata: Mapping[str, str]) -> bool:
    """Whether an image's metadata says that it is for the container that holds a pod together."""
    return any(metadata.get(key) == "sandbox" for key in _TYPE_KEYS)


def rootfs(bundle: Path) -> Path:
    """The root file system in the guest's pause bundle.

    Raises:
        AgentError: This guest has none.
    """
    place = bundle / "rootfs"
    if not place.is_dir():
        raise AgentError(f"this guest has no pause bundle: there is no {place}; use an image for peer pods")
    return place


def with_process(spec: Spec, bundle: Path) -> Spec:
    """The spec with the command, environment and directory of the guest's pause; user and rights stay the host's.

    Raises:
        AgentError: The bundle's config.json is missing, or has no process.
    """
    path = bundle / "config.json"
    try:
        process = json.loads(path.read_bytes())["process"]
        found: Process = {**spec["process"], "args": [*process["args"]], "cwd": process.get("cwd") or "/"}
        found["env"] = [*process.get("env", ())]
        if not found["args"]:
            raise ValueError("process.args is empty")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AgentError(f"this guest's pause bundle cannot be used: {path}: {error!r}") from error
    return {**spec, "process": found}
