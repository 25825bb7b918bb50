"""What can go wrong in the shim's own affairs. What goes wrong with a sandbox is in `kata_py.sandbox.errors`.

ShimError
├── UsageError        the command line, or a file of the bundle, is not what a manager writes
└── ListenerError     the shim's socket cannot be taken
"""

from __future__ import annotations


class ShimError(Exception):
    """The shim cannot do what it was started for; the message is one line for the manager's user."""


class UsageError(ShimError):
    """The command line or the bundle is not what a manager writes."""


class ListenerError(ShimError):
    """The socket cannot be listened on, or nobody listens where somebody should."""
