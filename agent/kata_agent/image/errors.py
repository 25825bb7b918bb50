"""What can go wrong with an image that the guest pulls; every message names the image, the cause and the next step.

AgentError
└── PullError             registry, network, image or disk do not allow it
    ├── Stalled           no progress for too long
    └── DiskFull          there is no room for it
"""

from __future__ import annotations

from kata_agent.errors import AgentError


class PullError(AgentError):
    """An image could not be pulled."""


class Stalled(PullError):
    """A program made no progress for too long, and was killed."""


class DiskFull(PullError):
    """There is no room for an image."""
