"""The tables of settings in the documents, rendered from the dataclasses that declare them.

`python -m tools.settings_docs` renders them into the marked regions of the documents; `--check` compares. A region
begins with `<!-- settings of NAME: begin -->` and ends with `<!-- settings of NAME: end -->`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from kata_caa.config import AdaptorConfig
from kata_caa.k8s.webhook import WebhookConfig
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.libvirt.config import LibvirtConfig
from kata_caa.settings import Duration, Setting, settings_of

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
COMMAND = ".venv/bin/python -m tools.settings_docs"

_COLUMNS = ("Variable", "Flag", "Default", "Meaning", "")
_NONE = "–"


class SettingsDocsError(Exception):
    """A document has no place for its table; says what to write into it."""


@dataclass(frozen=True, slots=True)
class Page:
    """A document with a table.

    Attributes:
        path: The document, in `docs/`.
        name: What the region's marks call the settings.
        config: Whose settings they are.
    """

    path: str
    name: str
    config: type

    @property
    def marks(self) -> tuple[str, str]:
        """Between which lines the table is."""
        return f"<!-- settings of {self.name}: begin -->\n", f"<!-- settings of {self.name}: end -->\n"


PAGES = (
    Page("peer-pods-settings.md", "the adaptor", AdaptorConfig),
    Page("aws.md", "aws", AwsConfig),
    Page("azure.md", "azure", AzureConfig),
    Page("libvirt.md", "libvirt", LibvirtConfig),
    Page("peer-pods-kubernetes.md", "peerpods-webhook", WebhookConfig),
)


def main(arguments: list[str] | None = None) -> int:
    """Render the tables, or compare them; 1 when a document is not what the dataclasses say."""
    parser = argparse.ArgumentParser(prog="python -m tools.settings_docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args(arguments)
    try:
        stale = update(DOCUMENTS, PAGES, write=not options.check)
    except SettingsDocsError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check and stale:
        print(f"not what the settings are: {', '.join(stale)}; run {COMMAND}", file=sys.stderr)
        return 1
    return 0


def update(directory: Path, pages: Iterable[Page], *, write: bool) -> list[str]:
    """Put the tables where they belong; returns the documents that had another one.

    Args:
        directory: Where the documents are.
        pages: Which.
        write: Whether they are changed.

    Raises:
        SettingsDocsError: A document is not there, or has no marks.
    """
    stale = []
    for page in pages:
        path = directory / page.path
        begin, end = page.marks
        text = path.read_text() if path.exists() else ""
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise SettingsDocsError(f"docs/{page.path} needs the lines {begin.strip()} and {end.strip()}")
        if (rendered := f"{head}{begin}{table(page.config)}{end}{tail}") != text:
            stale.append(f"docs/{page.path}")
            if write:
                path.write_text(rendered)
    return stale


def table(config: type) -> str:
    """All settings of a dataclass, a line each, with an empty line before and after."""
    types = get_type_hints(config)
    lines = [_row(_COLUMNS), _row("---" for _ in _COLUMNS)]
    lines += [_row(_cells(field, how, types)) for field, how in settings_of(config)]
    return "\n" + "".join(f"{line}\n" for line in lines) + "\n"


def _cells(field: dataclasses.Field[Any], how: Setting, types: Mapping[str, object]) -> tuple[str, ...]:
    meaning, ours = _whose(how.meaning)
    notes = [word for word, holds in (("ours", ours), ("secret", how.secret)) if holds]
    flag = f"-{how.flag}" if how.flag else ""
    return _code(how.environment), _code(flag), _code(_default(field, types)), meaning, ", ".join(notes)


def _whose(meaning: str) -> tuple[str, bool]:
    """A meaning without the mark that upstream does not have the setting, and whether it had the mark."""
    plain = meaning.removeprefix("extension: ").removesuffix("; ours")
    return plain, plain != meaning


def _default(field: dataclasses.Field[Any], types: Mapping[str, object]) -> str:
    """A default as one would write it; empty is none."""
    value: Any = field.default
    if types[field.name] is Duration:
        return _duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join("=".join(each) if isinstance(each, tuple) else each for each in value)
    return str(value)


def _duration(seconds: float) -> str:
    for length, unit in ((3600, "h"), (60, "m")):
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def _code(text: str) -> str:
    return f"`{text}`" if text else _NONE


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
