"""What verbs print: tables for people, JSON for programs.

A table is as wide as what it holds where nobody looks at it (a pipe, a file), so that no cell is ever cut.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")  # all but tab and the end of a line
_WIDE = 10_000  # columns of a "terminal" that is none


def output_option(function: F) -> F:
    """Give a verb the option `-o table|json`, as `output`."""
    kinds = click.Choice(["table", "json"])
    return click.option(
        "-o", "--output", type=kinds, default="table", show_default=True, help="for people, or programs"
    )(function)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
    """Print a table on stdout; cells are taken as they are, without markup.

    Args:
        columns: The headings.
        rows: The cells, row by row.
        empty: What is said instead where there are no rows.
    """
    if not rows and empty:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE).print(drawn)


def print_guests(data: bytes) -> None:
    """Print on stdout what a guest said, as it is; but a terminal gets no control characters, which command it."""
    click.echo(_CONTROL.sub(b"?", data) if sys.stdout.isatty() else data, nl=False)


def print_json(value: object) -> None:
    """Print a value on stdout as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def printable(text: str) -> str:
    """A text that a guest may have written, for a terminal: what could steer that is shown by its number."""
    return "".join(each if each.isprintable() or each == "\n" else f"\\x{ord(each):02x}" for each in text)
