"""Quantities in the words of people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    for unit, length, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} {int(seconds % length // part)} {below}"
    return f"{seconds:.0f} s"


def size(amount: int) -> str:
    """Bytes, in powers of 1024."""
    value, units = float(amount), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1024 and (larger := next(units, "")):
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
