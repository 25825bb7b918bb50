"""User data: the files that the adaptor gives a pod VM at its birth, as a cloud-config text.

The writer makes what any YAML parser reads back exactly. The reader is strict: `write_files` with `path` and
`content` and nothing else, in the form that upstream's writer and this one have; it is no YAML parser.
Source: cloud-api-adaptor `src/cloud-providers/util/cloudinit/cloudconfig.go`, `pkg/userdata/provision.go`; YAML 1.1,
sections 5.7, 8.1 and 8.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from kata_caa.errors import MalformedConfig

DIRECTORY: Final = "/run/peerpod"
APF: Final = f"{DIRECTORY}/apf.json"
AUTH: Final = f"{DIRECTORY}/auth.json"
INITDATA: Final = f"{DIRECTORY}/initdata"
SCRATCH_MARKER: Final = f"{DIRECTORY}/scratch-space.marker"
AA: Final = f"{DIRECTORY}/aa.toml"
CDH: Final = f"{DIRECTORY}/cdh.toml"

PATHS: Final = frozenset({APF, AUTH, INITDATA, SCRATCH_MARKER, AA, CDH})
"""The only files that a pod VM takes from its user data."""

AUTH_MAX: Final = 12_288
"""Bytes that `auth.json` may have to be sent at all."""

LENGTH_MAX: Final = 256 << 10
"""Bytes that a pod VM reads: four times of what any cloud takes."""

_HEADER: Final = "#cloud-config"
_KEYS: Final = ("path", "content")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
# What a literal block keeps as it is; the rest is taken for the end of a line, or not taken at all.
_LITERAL: Final = re.compile("[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_ITEM: Final = re.compile(r"( *)- (?=[^ ])")
_PAIR: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*):(?: +(.*?))? *")
_BLOCK: Final = re.compile(r"\|(?:([1-9])?([+-])?|([+-])([1-9]))")
_ESCAPE: Final = re.compile(r"\\(?:([\\\"nrtbf0])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPES: Final = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}
_ESCAPED: Final = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


class File(NamedTuple):
    """A file to be written.

    Attributes:
        path: Where, absolute.
        content: All of it.
    """

    path: str
    content: str


def render(files: Iterable[File]) -> str:
    """The cloud-config text that writes the files.

    Raises:
        MalformedConfig: A path has another form than `/a/b.c`, or comes twice; or a content is no Unicode text.
    """
    lines = [_HEADER]
    seen: set[str] = set()
    for path, content in files:
        if not _PATH.fullmatch(path):
            raise MalformedConfig(f"user data: {path!r:.100} is no path of a file")
        if path in seen:
            raise MalformedConfig(f"user data: {path} comes twice")
        if not seen:
            lines += ["", "write_files:"]
        seen.add(path)
        lines.append(f"  - path: {path}")
        if not content:
            continue  # as upstream does
        if not _LITERAL.fullmatch(content):
            lines.append(f"    content: {_quote(path, content)}")
            continue
        # Parsers guess the indentation from the first line, and some refuse a tab there.
        indicator = "2" if content[0] in " \t\n" else ""
        body = content.removesuffix("\n")
        chomping = "-" if body == content else "+" if not body or body.endswith("\n") else ""
        lines.append(f"    content: |{indicator}{chomping}")
        lines += [f"      {line}" if line else "" for line in body.split("\n")]
    return "\n".join(lines) + "\n"


def parse(data: str | bytes, paths: Iterable[str] | None = None) -> tuple[File, ...]:
    """Read a cloud-config text.

    Args:
        data: The text.
        paths: The only paths there may be; None takes any. A pod VM takes any, and leaves alone those that are not
            in `PATHS`, as upstream's does.

    Raises:
        MalformedConfig: It has another form, another key, or one twice; names the line and the key.
    """
    return _Reader(_decode(data), None if paths is None else frozenset(paths)).files()


def _decode(data: str | bytes) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MalformedConfig(f"user data, line {line}: not UTF-8") from None


def _quote(path: str, content: str) -> str:
    out = []
    for character in content:
        code = ord(character)
        if code in _ESCAPED:
            out.append(_ESCAPED[code])
        elif 0x20 <= code < 0x7F:
            out.append(character)
        elif 0xD800 <= code < 0xE000:
            raise MalformedConfig(f"user data: the content of {path} is no Unicode text")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(out)}"'


class _Reader:
    """Reads one text, line by line."""

    def __init__(self, text: str, paths: frozenset[str] | None) -> None:
        self._ended = text.endswith("\n")  # a last line without its end counts otherwise in a literal block
        self._lines = text.removesuffix("\n").split("\n")
        self._at = 0
        self._paths = paths

    def files(self) -> tuple[File, ...]:
        for number, line in enumerate(self._lines, 1):
            if not _LITERAL.fullmatch(line):
                raise MalformedConfig(f"user data, line {number}: a control character or another kind of line end")
        if self._lines[0].rstrip(" ") != _HEADER:
            raise self._fault(f"the first line is not {_HEADER}")
        self._at = 1
        files: list[File] = []
        seen = False
        while self._skip():
            pair = _PAIR.fullmatch(self._line)
            if pair is None:
                raise self._fault("neither a key nor a comment")
            if pair[1] != "write_files":
                raise self._fault(f"{pair[1]} is no key that is taken; only write_files is")
            if seen:
                raise self._fault("write_files comes twice")
            seen = True
            value = pair[2]
            self._at += 1
            if value is None:
                files = self._items()
            elif value != "[]":
                self._at -= 1
                raise self._fault("write_files is no list")
        return tuple(files)

    @property
    def _line(self) -> str:
        return self._lines[self._at]

    def _skip(self) -> bool:
        """Go to the next line that says something; False at the end."""
        while self._at < len(self._lines):
            line = self._line.lstrip(" ")
            if line and not line.startswith("#"):
                return True
            self._at += 1
        return False

    def _items(self) -> list[File]:
        files: list[File] = []
        indent = None
        while self._skip():
            item = _ITEM.match(self._line)
            if item is None:
                break  # a key of the top level, or a fault that is found there
            if indent not in (None, item[1]):
                raise self._fault("write_files[]: another indentation than the items before")
            indent = item[1]
            file = self._item(item.end())
            if any(file.path == other.path for other in files):
                self._at -= 1
                raise self._fault(f"path: {file.path} comes twice")
            files.append(file)
        return files

    def _item(self, indent: int) -> File:
        """Read an item whose keys have that indentation."""
        values: dict[str, str] = {}
        first = self._at
        rest = self._line[indent:]
        while True:
            pair = _PAIR.fullmatch(rest)
            if pair is None:
                raise self._fault("write_files[]: not a key with a value")
            key, value = pair[1], pair[2] or ""
            if key not in _KEYS:
                raise self._fault(f"{key} is no key that is taken in write_files; only path and content are")
            if key in values:
                raise self._fault(f"{key} comes twice")
            values[key] = self._path(value) if key == "path" else self._content(value, indent)
            if not self._skip() or len(self._line) - len(self._line.lstrip(" ")) != indent:
                break
            rest = self._line[indent:]
            if rest.startswith("- "):
                break
        if "path" not in values:
            self._at = first
            raise self._fault("write_files[]: path is missing")
        return File(values["path"], values.get("content", ""))

    def _path(self, value: str) -> str:
        if not _PATH.fullmatch(value):
            raise self._fault(f"path: {value!r:.100} is no path of a file")
        if self._paths is not None and value not in self._paths:
            raise self._fault(f"path: {value} is not one that may be written")
        self._at += 1
        return value

    def _content(self, value: str, indent: int) -> str:
        if block := _BLOCK.fullmatch(value):
            width, chomping = block[1] or block[4], block[2] or block[3] or ""
            return self._block(indent, int(width) if width else 0, chomping)
        quoted = _QUOTED.fullmatch(value)
        if quoted is None or "\\" in _ESCAPE.sub("", quoted[1]):
            raise self._fault("content: neither a literal block nor a text in double quotes with known escapes")
        try:
            text = _ESCAPE.sub(_unescape, quoted[1])
            text.encode()
        except (ValueError, OverflowError):
            raise self._fault("content: an escape that is no character") from None
        self._at += 1
        return text

    def _block(self, parent: int, width: int, chomping: str) -> str:
        self._at += 1
        start = end = self._at
        indent = parent + width if width else 0
        widest = 0  # of the blank lines before the first other one
        while end < len(self._lines):
            line = self._lines[end]
            spaces = len(line) - len(line.lstrip(" "))
            if len(line) == spaces:
                if not indent:
                    widest = max(widest, spaces)
            elif spaces < (indent or parent + 1):
                break
            elif not indent:
                if widest > spaces:
                    raise self._fault("content: blank lines that are indented more than the text after them")
                indent = spaces
            end += 1
        indent = indent or max(widest, parent + 1)
        lines = [line[indent:] for line in self._lines[start:end]]
        self._at = end
        text = "".join(f"{line}\n" for line in lines)
        if end == len(self._lines) and not self._ended and lines:
            text = text[:-1]
        body = text.rstrip("\n")
        if chomping == "+":
            return text
        return body if chomping == "-" or not body else text[: len(body) + 1]

    def _fault(self, what: str) -> MalformedConfig:
        return MalformedConfig(f"user data, line {min(self._at, len(self._lines) - 1) + 1}: {what}")


def _unescape(found: re.Match[str]) -> str:
    if found[1]:
        return _ESCAPES[found[1]]
    return chr(int(found[2] or found[3] or found[4], 16))
