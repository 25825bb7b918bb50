"""What this agent can do beyond the protocol's minimum. Source: kata-containers' `src/agent/src/features.rs`."""

from __future__ import annotations

from importlib.util import find_spec

COUNTED_STREAMS = "kata-py-offset"
"""Of ours: calls for streams may say how many bytes went before, in metadata of this name."""


def extra() -> list[str]:
    """The features that are here, by upstream's names and ours, in order."""
    policy = ["agent-policy"] if find_spec("regorus") is not None else []
    return [*policy, COUNTED_STREAMS, "seccomp"]
