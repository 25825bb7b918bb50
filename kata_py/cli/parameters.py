"""Parameters that several verbs have, and what their words may be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from kata_py.cli.errors import CtlError

F = TypeVar("F", bound=Callable[..., Any])


class Sandbox(click.types.StringParamType):
    """A sandbox, by its id or the beginning of it; a shell completes those that are served."""

    name = "sandbox"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that begin so."""
        from kata_py.cli import shim

        return [CompletionItem(each.sandbox_id) for each in shim.running() if each.sandbox_id.startswith(incomplete)]


def sandbox_argument(function: F) -> F:
    """Give a verb the argument SANDBOX, as `sandbox`."""
    return click.argument("sandbox", metavar="SANDBOX", type=Sandbox())(function)


def sandbox_option(function: F) -> F:
    """Give a verb the option `--sandbox-id`, which is required, as `sandbox`."""
    help = "its id, or the beginning of it"
    return click.option("--sandbox-id", "sandbox", metavar="SANDBOX", type=Sandbox(), required=True, help=help)(
        function
    )


def content(file: str) -> bytes:
    """What a file holds; `-` is stdin.

    Raises:
        CtlError: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CtlError(f"{file} cannot be read: {error.strerror}") from error
