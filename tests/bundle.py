"""Bundles for tests: an OCI runtime spec for busybox, as a manager would write it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID"]

_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]


def process(
    args: Sequence[str],
    *,
    terminal: bool = False,
    env: Sequence[str] = (),
    cwd: str = "/",
    uid: int = 0,
    new_privileges: bool = False,
) -> dict[str, Any]:
    """The `process` of a spec, also what Exec is given."""
    return {
        "terminal": terminal,
        "user": {"uid": uid, "gid": uid},
        "args": list(args),
        "env": ["PATH=/bin:/usr/bin", *env],
        "cwd": cwd,
        "capabilities": {name: [*_CAPABILITIES] for name in ("bounding", "effective", "permitted")},
        "noNewPrivileges": not new_privileges,
    }


def spec(
    container_id: str, rootfs: str | Path, process: Mapping[str, Any], *, mounts: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """A whole config.json for a container of its own sandbox."""
    return {
        "ociVersion": "1.0.2",
        "process": dict(process),
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": container_id[:63],
        "mounts": [*_MOUNTS, *mounts],
        "linux": {
            "cgroupsPath": f"/kata-py-tests-{os.getpid()}/{container_id}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def write(bundle: Path, spec: Mapping[str, Any]) -> Path:
    """Write the spec into a new bundle directory and return it."""
    bundle.mkdir(parents=True, mode=0o700)
    (bundle / "config.json").write_text(json.dumps(spec))
    return bundle


def in_pod(spec: Mapping[str, Any], sandbox_id: str, *, sandbox: bool = False) -> dict[str, Any]:
    """The spec as CRI-O writes it for a container of a pod, or for the sandbox itself."""
    prefix = "io.kubernetes.cri-o."
    annotations = {
        **spec.get("annotations", {}),
        "io.container.manager": "cri-o",
        f"{prefix}ContainerType": "sandbox" if sandbox else "container",
        f"{prefix}SandboxID": sandbox_id,
    }
    return {**spec, "annotations": annotations, "hostname": sandbox_id}
