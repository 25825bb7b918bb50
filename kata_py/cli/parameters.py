"""Parameters that several verbs have, and what their words may be."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from kata_py.cli.errors import CtlError

if TYPE_CHECKING:
    from kata_py.config.model import Source

F = TypeVar("F", bound=Callable[..., Any])


class Sandbox(click.types.StringParamType):
    """A sandbox, by its id or the beginning of it, or its pod's name; a shell completes the ids of those served."""

    name = "sandbox"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that begin so."""
        from kata_py.cli import shim

        with contextlib.suppress(OSError):  # a user who may see none is offered none
            return [
                CompletionItem(each.sandbox_id) for each in shim.running() if each.sandbox_id.startswith(incomplete)
            ]
        return []


class Pod(click.types.StringParamType):
    """A pod, by its name or its sandbox's id; a shell completes the ids on record, and those of kept failures."""

    name = "pod"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that begin so."""
        from kata_py.diagnosis import evidence
        from kata_py.sandbox.paths import HostPaths

        with contextlib.suppress(OSError):
            return [CompletionItem(id) for id in evidence.ids(HostPaths()) if id.startswith(incomplete)]
        return []


class CopyPlace(Sandbox):
    """One side of a copy; a shell completes sandboxes, and where none begins so, this host's files."""

    name = "place"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The beginnings of places, or that it is a file."""
        found = super().shell_complete(ctx, param, incomplete)
        return [CompletionItem(f"{each.value}:") for each in found] or [CompletionItem(incomplete, type="file")]


def sandbox_argument(function: F) -> F:
    """Give a verb the argument SANDBOX, as `sandbox`."""
    return click.argument("sandbox", metavar="SANDBOX", type=Sandbox())(function)


def sandbox_option(function: F) -> F:
    """Give a verb the option `--sandbox-id`, which is required, as `sandbox`."""
    help = "its id or the beginning of it, or its pod's name"
    return click.option("--sandbox-id", "sandbox", metavar="SANDBOX", type=Sandbox(), required=True, help=help)(
        function
    )


def source(file: Path | None) -> Source:
    """The configuration to look at: where there is none, the defaults, which is said on stderr.

    Raises:
        CtlError: The environment names one that is not to be trusted.
    """
    from kata_py.config.errors import ConfigurationError, NoConfiguration
    from kata_py.config.load import DEFAULTS, locate

    try:
        return locate(file, os.environ)
    except NoConfiguration as error:
        click.echo(f"{error.cause}; these are the defaults", err=True)
        return DEFAULTS
    except ConfigurationError as error:
        raise CtlError(str(error), error.hint) from error


def content(file: str) -> bytes:
    """What a file holds; `-` is stdin.

    Raises:
        CtlError: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CtlError(f"{file} cannot be read: {error.strerror}") from error
