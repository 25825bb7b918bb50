"""Values in texts that have no form of their own: where one begins and ends, quoted or not.

A text in a text has a backslash before each quote, a text in that one three, and so on: a log line that tells of a
request in JSON has such. So a string ends at the quote that has as many before it as its first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

REDACTED = "<redacted>"

_OPENING = re.compile(r"""\\{0,15}"|'""")
_BARE = re.compile(r"""[^\s"',;&\[\](){}]+""")
_QUOTE_OR_END = {'"': re.compile('["\n]'), "'": re.compile("['\n]")}
_GAP = re.compile(r"(?:[\s,]|\\[nrt])*")  # between the strings of a list


@dataclass(frozen=True, slots=True)
class Literal:
    """A value's place in a text.

    Attributes:
        quote: What stands before it, backslashes among it; empty where it is bare.
        begin: Where it begins, behind the quote.
        end: Where it ends, before the quote.
        after: Where the text goes on, behind the quote.
    """

    quote: str
    begin: int
    end: int
    after: int


def literal(text: str, at: int) -> Literal | None:
    """The value that begins there: a string, or a bare word; None if neither does."""
    if found := string(text, at):
        return found
    bare = _BARE.match(text, at)
    return Literal("", at, bare.end(), bare.end()) if bare else None


def string(text: str, at: int) -> Literal | None:
    """The string in quotes that begins there; one that is not ended ends with its line."""
    opening = _OPENING.match(text, at)
    if opening is None:
        return None
    quote, begin = opening[0], opening.end()
    level = len(quote).bit_length() - 1  # of one in a text: 1, of one in a text in a text: 2
    for found in _QUOTE_OR_END[quote[-1]].finditer(text, begin):
        before = _backslashes(text, begin, found.start())
        if found[0] == "\n":
            return Literal(quote, begin, found.start(), found.start())
        if quote == "'" or _ends(before, level):
            own = len(quote) - 1
            ours = quote == "'" or (before >= own and before % 2 == own % 2)  # else the text that it is in ends
            return Literal(quote, begin, found.start() - own * ours, found.end() if ours else found.start())
    return Literal(quote, begin, len(text), len(text))


def strings(text: str, at: int) -> Iterator[Literal]:
    """The strings of a list of nothing else, from behind its bracket on."""
    while found := string(text, _gap(text, at)):
        yield found
        at = found.after


def _gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    assert gap is not None
    return gap.end()


def _backslashes(text: str, begin: int, at: int) -> int:
    first = at
    while first > begin and text[first - 1] == "\\":
        first -= 1
    return at - first


def _ends(backslashes: int, level: int) -> bool:
    """Whether a quote with so many before it ends a string of that level, or one that it is in."""
    for _ in range(level):
        if backslashes % 2 == 0:
            return True
        backslashes //= 2
    return backslashes % 2 == 0
