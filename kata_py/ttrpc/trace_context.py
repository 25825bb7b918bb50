"""Whose trace a call belongs to: W3C's `traceparent`, which travels in the metadata of calls.

Sources: W3C Trace Context, level 1, section 3.2; containerd/otelttrpc, which calls the key so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

KEY = "traceparent"

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1


class TraceContext(NamedTuple):
    """A span, as others refer to it.

    Attributes:
        trace: The trace's id, 16 bytes.
        span: The span's id, 8 bytes.
        sampled: Whether somebody keeps it.
    """

    trace: bytes
    span: bytes
    sampled: bool = True

    @classmethod
    def root(cls) -> TraceContext:
        """The first span of a trace of its own."""
        return cls(os.urandom(16), os.urandom(8))

    @classmethod
    def of(cls, metadata: Mapping[str, Sequence[str]]) -> TraceContext | None:
        """The caller's span; None if it named none, or not in this form."""
        found = _FORM.fullmatch(next(iter(metadata.get(KEY, ())), ""))
        if found is None:
            return None
        trace, span, flags = found.groups()
        return cls(bytes.fromhex(trace), bytes.fromhex(span), bool(int(flags, 16) & _SAMPLED))

    def child(self) -> TraceContext:
        """A new span of the same trace."""
        return self._replace(span=os.urandom(8))

    def __str__(self) -> str:
        """As the header has it."""
        return f"00-{self.trace.hex()}-{self.span.hex()}-{int(self.sampled):02x}"
