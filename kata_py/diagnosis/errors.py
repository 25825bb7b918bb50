"""What a diagnosis can fail with."""

from __future__ import annotations


class DiagnosisError(Exception):
    """There is nothing to judge."""


class NoSuchPod(DiagnosisError):
    """Neither a sandbox on record nor a failure that is kept has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no sandbox and no failure on this node is called {name!r}")
