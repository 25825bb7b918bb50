"""The name of a pod's machine. Source: cloud-api-adaptor `src/cloud-providers/util/instance.go`."""

from __future__ import annotations

import re

NAME_MAX = 63  # characters: a DNS label
_ID = 8  # characters of the sandbox's id


def instance_name(pod: str, sandbox_id: str) -> str:
    """`podvm-<pod>-<first 8 of the sandbox's id>`: lower case, other characters than letters, digits and `-` as `-`."""
    suffix = f"-{_plain(sandbox_id[:_ID])}"
    return f"podvm-{_plain(pod)}"[: NAME_MAX - len(suffix)] + suffix


def machine_name(id: str) -> str:
    """The name of a machine that waited for a pod, `podvm-pool-<first 8 of its id>`: it keeps it when it is a pod's."""
    return instance_name("pool", id)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9-]", "-", text.lower())
