"""What the runtime can do, as managers ask it: CRI-O by the word `features`, containerd in the answer to `-info`.

By the option `rro` they learn that a pod's volumes can be made read-only with all that is mounted below them.
Source: OCI runtime specification 1.2, `features.md`; CRI-O `pkg/config/config.go`.
"""

from __future__ import annotations

import json

TYPE = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"  # containerd `core/runtime/typeurl.go`

_MOUNT_OPTIONS = (
    "async", "atime", "bind", "dev", "diratime", "dirsync", "exec", "lazytime", "noatime", "nodev", "nodiratime",
    "noexec", "nolazytime", "norelatime", "nostrictatime", "nosuid", "private", "rbind", "relatime", "ro", "rprivate",
    "rro", "rshared", "rslave", "rw", "shared", "slave", "strictatime", "suid", "sync",
)  # fmt: skip

# Of those that run in the container's own place, the programs would have to be in the machine.
_HOOKS = ("prestart", "createRuntime", "poststart", "poststop")


def document() -> bytes:
    """The features document: JSON in UTF-8."""
    features = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": _HOOKS,
        "mountOptions": _MOUNT_OPTIONS,
    }
    return json.dumps(features).encode()
