"""Kubernetes' quantities: `500m`, `1Gi`, `1.5`, `2e3`.

Source: Kubernetes `apimachinery/pkg/api/resource/quantity.go`.
"""

from __future__ import annotations

import re
from decimal import Decimal

from kata_caa.errors import MalformedConfig

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?")
_SCALES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}  # fmt: skip


def parse(text: str) -> Decimal:
    """A quantity as a number of its base unit.

    Raises:
        MalformedConfig: It is none.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise MalformedConfig(f"{text!r:.40} is no quantity")
    return Decimal(match[1]) * (Decimal(10) ** int(match[3]) if match[3] else _SCALES[match[2] or ""])
