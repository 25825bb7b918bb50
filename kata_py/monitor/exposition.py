"""Prometheus' text form: read from many sandboxes, told apart by labels, written as one text.

Much of a sandbox's text is its guest's, which is not trusted. One line that is none, or that has a label twice, makes
Prometheus refuse the whole answer, so each line is checked; and a guest may not speak for another sandbox, so a line
that has one of our labels already is left out. Source: Prometheus' "Exposition formats", text-based; names as kata
`src/runtime/pkg/kata-monitor/metrics.go`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABELS = ("sandbox_id", "cri_uid", "cri_name", "cri_namespace")
OWN = "kata_monitor_"  # what families of the monitor's own begin with
RECORDS = "kata_py_"  # and those of what it reads in the sandboxes' records
LINE_MAX = 2048  # characters
LINES_MAX = 5_000  # of a sandbox; with its guest's processors and disks it has some hundreds

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_PRINTED = r"[^\x00-\x1f\x7f]*"
_TEXT = r'[^"\\\x00-\x1f\x7f]*'
_LABEL = rf'[a-zA-Z_][a-zA-Z0-9_]*="{_TEXT}(?:\\[\\"n]{_TEXT})*"'
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI]nf)|NaN")
_TIME = re.compile(r"-?[0-9]+")
_SERIES = re.compile(rf"({_NAME})(?:{{((?:{_LABEL}(?:, ?{_LABEL})*,?)?)}})?")
_HELP = re.compile(rf"# HELP ({_NAME}) ({_PRINTED})")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram|summary|untyped)")
_LABEL_NAME = re.compile(rf'([a-zA-Z_][a-zA-Z0-9_]*)="{_TEXT}(?:\\[\\"n]{_TEXT})*"')

_PARTS = {"_bucket": ("histogram",), "_count": ("histogram", "summary"), "_sum": ("histogram", "summary")}


@dataclass(slots=True)
class _Family:
    help: str = ""
    types: Counter[str] = field(default_factory=Counter)  # by how many sandboxes say so
    samples: list[str] = field(default_factory=list)


def of_shim(name: str) -> str:
    """What a family or sample of a shim is called here; empty if it is none that a shim may tell of."""
    if name.startswith(("go_", "process_")):  # of upstream's shims
        return f"kata_shim_{name}"
    return name if name.startswith("kata_") and not name.startswith((OWN, RECORDS)) else ""


class Families:
    """Families of many texts.

    Args:
        named: What each is called here; empty for one that is left out.
    """

    def __init__(self, named: Callable[[str], str] = of_shim) -> None:
        self._named = named
        self._families: dict[str, _Family] = {}

    def add(self, text: str, labels: Mapping[str, str]) -> tuple[int, int]:
        """Take in a sandbox's text.

        Args:
            text: What its shim answered.
            labels: What tells its samples from others'; some of `LABELS`.

        Returns:
            How many samples were taken, and how many lines were left out.
        """
        own = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
        types: dict[str, str] = {}
        helps: dict[str, str] = {}
        places: dict[str, _Family] = {}  # by sample name
        seen: set[tuple[str, str]] = set()
        left_out = 0
        for line in text.split("\n", LINES_MAX):  # what is beyond is one line more, and none that is taken
            if len(line) > LINE_MAX:
                left_out += 1
            elif not line.startswith("#"):
                sample = _sample(line)
                name = self._named(sample[0]) if sample else ""
                if not sample or not name or (name, sample[1]) in seen:
                    left_out += bool(line)
                    continue
                _, pairs, value = sample
                seen.add((name, pairs))
                place = places.get(name)
                if place is None:
                    place = places[name] = self._families.setdefault(_family(name, types), _Family())
                both = f"{pairs},{own}" if pairs and own else pairs or own
                place.samples.append(f"{name}{{{both}}} {value}" if both else f"{name} {value}")
            elif (found := _TYPE.fullmatch(line)) is not None:
                types.setdefault(self._named(found[1]), found[2])
            elif (found := _HELP.fullmatch(line)) is not None:
                helps.setdefault(self._named(found[1]), found[2])
        for name, type in types.items():
            if name in self._families:
                self._families[name].types[type] += 1
        for name, help in helps.items():
            if name in self._families:
                self._families[name].help = self._families[name].help or help
        return len(seen), left_out

    def text(self, wanted: Collection[str] = ()) -> str:
        """All families, in the order of their names, or those that are wanted."""
        lines: list[str] = []
        for name in sorted(self._families):
            family = self._families[name]
            if wanted and name not in wanted:
                continue
            if family.help:
                lines.append(f"# HELP {name} {family.help}")
            if family.types:
                lines.append(f"# TYPE {name} {family.types.most_common(1)[0][0]}")
            lines += family.samples
        return "".join(f"{line}\n" for line in lines)


def escaped(value: str) -> str:
    """A label's value as it is written."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _family(name: str, types: Mapping[str, str]) -> str:
    """The family of a sample: a histogram's have names of their own."""
    if name not in types:
        for suffix, of in _PARTS.items():
            base = name.removesuffix(suffix)
            if base != name and types.get(base) in of:
                return base
    return name


def _sample(line: str) -> tuple[str, str, str] | None:
    """A sample's name, its labels, and its value; None if the line is none that can be passed on."""
    said, _, value = line.rpartition(" ")
    series = _series(said.rstrip(" "))
    if series is None and _TIME.fullmatch(value):  # the time at which it was taken, which is now
        said, _, value = said.rstrip(" ").rpartition(" ")
        series = _series(said.rstrip(" "))
    if series is None or _NUMBER.fullmatch(value) is None:
        return None
    return *series, value


@functools.lru_cache(maxsize=8192)  # most sandboxes have the same
def _series(said: str) -> tuple[str, str] | None:
    """A name and labels; None unless they are each there once, and none of them is ours, or Prometheus' own."""
    found = _SERIES.fullmatch(said)
    if found is None:
        return None
    name, pairs = found.groups(default="")
    names = _LABEL_NAME.findall(pairs)
    if len(set(names)) < len(names) or any(each in LABELS or each.startswith("__") for each in names):
        return None
    return name, pairs.removesuffix(",")
