"""Environment variables in texts: their names are told, their values never, in whatever form they stand.

The forms are those that managers log requests in: Go's structures, JSON, Protobuf's text, lists of `NAME=value` as in a
container's spec and in TOML, options of programs. Every step goes forward, so that a long line costs its length.
"""

from __future__ import annotations

import re

from kata_py.diagnosis.literals import REDACTED, literal, string, strings

_VALUE_MAX = 8192  # characters: what is cut off before a value's end hides so much
_LIST_MAX = 1 << 16

_Q = r"""(?:\\{0,15}["'])?"""
_PAIR = rf"""(?:key|name){_Q}\s{{0,8}}[:=]\s{{0,8}}{_Q}[^"'\s,={{}}\\]{{1,256}}{_Q}"""
_START = re.compile(
    rf"""(?<![a-z])(?:
    env(?:s|ironment)?(?P<quote>{_Q})\s{{0,8}}[:=]\s{{0,8}}(?P<many>(?:map)?[\[{{]) |
    {_PAIR}(?:[\s,]|\\[nrt]){{1,64}}{_Q}value(?P<pair>{_Q})\s{{0,8}}[:=]\s{{0,8}} |
    (?:(?<!-)-e|env(?:ironment)?){_Q}[\s=:,]{{1,4}}(?=(?P<one>{_Q}\w{{1,256}}=))
    )""",
    re.I | re.X,
)
_PAIRS = re.compile(rf"[\s\[\]{{&*\w.\\]{{0,80}}{_Q}\b{_PAIR}", re.I)  # a list of them begins
_BRACKET = re.compile(r'\\{0,15}"|[\[\]{}\n]')
_SPACE = re.compile(r"\s{1,256}")
_ASSIGNED = re.compile(r"[^\S\n]{0,8}\w{1,256}=")
_NAMED = re.compile(r"[\w.-]{1,256}=")
# What follows a bare value in Go's structures, by what separates their fields.
_FIELD_END = {",": re.compile(r",\}|,ValueFrom:"), " ": re.compile(r" ValueFrom:|\}(?=[\s\]}\\\"]|\Z)")}


def concealed(entry: str) -> str:
    """An entry `NAME=value` without the value; nothing of one that has another form."""
    name = _NAMED.match(entry)
    return f"{name[0] if name else ''}{REDACTED}"


def conceal(text: str) -> str:
    """A text without the values of environment variables."""
    told: list[str] = []
    at = 0
    while found := _START.search(text, at):
        told.append(text[at : found.end()])
        at = found.end()
        if found["many"]:
            at = _many(text, at, found, told)
        elif found["pair"] is not None:
            at = _value(text, at, found["pair"], told)
        else:
            at = _assignments(text, at, told)
    return "".join(told) + text[at:]


def _many(text: str, at: int, found: re.Match[str], told: list[str]) -> int:
    """Behind the bracket of a list or a map; returns where the text goes on."""
    if text[at : at + 1] in ("]", "}") or _PAIRS.match(text, at):  # nothing, or what is found one by one
        return at
    if found["many"] == "[":
        for each in strings(text, at):
            told += [text[at : each.begin], concealed(text[each.begin : each.end])]
            at = each.end
        if at != found.end():
            return at
    end = _closing(text, at)
    if found["many"] == "{":  # as a string, so that JSON stays JSON
        told[-1] = told[-1].removesuffix("{") + found["quote"]
        told.append(REDACTED + found["quote"])
        return end + (text[end : end + 1] == "}")
    told.append(REDACTED)
    return end


def _closing(text: str, at: int) -> int:
    """Where a bracket ends that was opened before; a line does where no string is in it."""
    space = _SPACE.match(text, at)
    depth, place, quoted = 1, space.end() if space else at, False
    while found := _BRACKET.search(text, place, at + _LIST_MAX):
        place = found.end()
        if found[0][-1] == '"':
            within = string(text, found.start())
            assert within is not None
            place, quoted = within.after, True
        elif found[0] == "\n":
            if not quoted:
                return found.start()
        else:
            depth += 1 if found[0] in "[{" else -1
            if not depth:
                return found.start()
    return min(max(place, at + _LIST_MAX), len(text))


def _value(text: str, at: int, quote: str, told: list[str]) -> int:
    """A value behind its name's; returns where the text goes on."""
    if text.startswith("Value:", at - 6) and string(text, at) is None and text[at - 7] in _FIELD_END:
        end = _FIELD_END[text[at - 7]].search(text, at, at + _VALUE_MAX)
        line = text.find("\n", at, at + _VALUE_MAX)
        last = end.start() if end else line if line >= 0 else min(at + _VALUE_MAX, len(text))
        told.append(REDACTED if last > at else "")
        return last
    return _literal(text, at, told, quote)


def _assignments(text: str, at: int, told: list[str]) -> int:
    """What is `NAME=value`, one after the other; returns where the text goes on."""
    while True:
        if quoted := string(text, at):
            told += [text[at : quoted.begin], concealed(text[quoted.begin : quoted.end])]
            return quoted.end
        name = _ASSIGNED.match(text, at)
        if name is None:
            return at
        told.append(name[0])
        at = _literal(text, name.end(), told)


def _literal(text: str, at: int, told: list[str], quote: str = "") -> int:
    """A value, which gets such quotes where it has none: so JSON stays JSON."""
    found = literal(text, at)
    if found is None:
        return at
    own = found.quote or quote
    told += [own, REDACTED if found.end > found.begin else "", text[found.end : found.after] if found.quote else own]
    return found.after
