"""What this agent can do beyond the protocol's minimum. Source: kata-containers' `src/agent/src/features.rs`."""

from __future__ import annotations

from importlib.util import find_spec


def extra() -> list[str]:
    """Upstream's names of the features that are here, in order."""
    return ["agent-policy", "seccomp"] if find_spec("regorus") is not None else ["seccomp"]
