"""What `kata-monitor` can fail with.

MonitorError
├── PodsError         the CRI's runtime does not tell of its pods
├── ShimError         a sandbox's shim does not answer as it should
└── UnknownSandbox    there is no such sandbox on this node
"""

from __future__ import annotations


class MonitorError(Exception):
    """Something cannot be told; the words are for whoever asked."""


class PodsError(MonitorError):
    """The CRI's runtime does not tell of its pods."""


class ShimError(MonitorError):
    """A sandbox's shim does not answer, or not with what was asked for."""


class UnknownSandbox(MonitorError):
    """There is no such sandbox on this node."""
