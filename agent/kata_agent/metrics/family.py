"""Families of samples, and their text form. Source: Prometheus' "Exposition formats", text-based."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Number = int | float
Samples = dict[tuple[str, ...], Number]


class Family(NamedTuple):
    """Samples of one name.

    Attributes:
        name: Theirs.
        help: What they are, in a few words.
        labels: Names of the labels.
        samples: A number for each combination of the labels' values.
        type: `gauge` or `counter`.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Samples
    type: str = "gauge"


def single(name: str, help: str, value: Number, type: str = "gauge") -> Family:
    """A family of one sample without labels."""
    return Family(name, help, (), {(): value}, type)


def render(families: Iterable[Family]) -> str:
    """The families' text; one without samples is left out."""
    return "".join(line for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {family.help}\n"
    yield f"# TYPE {family.name} {family.type}\n"
    for values, number in family.samples.items():
        pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, values, strict=True))
        yield f"{family.name}{{{pairs}}} {number}\n" if pairs else f"{family.name} {number}\n"


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value.encode(errors="replace").decode()  # a path may hold bytes that are no text
