"""What can go wrong with a pod's network."""

from __future__ import annotations


class NetworkError(Exception):
    """A pod's network could not be given to its guest; says which link of which namespace, and why.

    NetworkError
    ├── HostNetwork
    └── UnsupportedLink
    """


class HostNetwork(NetworkError):
    """The pod is to share the host's network, which a virtual machine cannot."""


class UnsupportedLink(NetworkError):
    """A kind of link that cannot be connected to a guest."""
