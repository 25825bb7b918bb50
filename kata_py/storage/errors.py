"""What can go wrong with storage."""

from __future__ import annotations


class StorageError(Exception):
    """A file system could not be given to the guest; says which, why, and where it was to appear."""


class MalformedVolume(StorageError):
    """What a snapshotter says of a root file system cannot be read; names the field."""


class UnsupportedMount(StorageError):
    """A kind of mount that this shim does not make."""
