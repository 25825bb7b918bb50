"""Sets of processors, or of memory nodes, as the kernel writes them: `0-3,7`. Source: cpuset(7), list format."""

from __future__ import annotations

from collections.abc import Iterable

_HIGHEST = 1 << 16  # above any kernel's CONFIG_NR_CPUS


def parse_cpuset(text: str) -> frozenset[int]:
    """The numbers of a list.

    Raises:
        ValueError: It is no such list.
    """
    numbers = set[int]()
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"{text[:80]!r} is no list of processors")
        low, high = int(first), int(last or first)
        if not low <= high < _HIGHEST:
            raise ValueError(f"{text[:80]!r} is no list of processors")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def format_cpuset(numbers: Iterable[int]) -> str:
    """The list of the numbers, as short as it can be."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in parts)
