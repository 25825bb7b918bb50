"""`kata-ctl config`: what the configuration says, and what it comes to."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from kata_py.cli.errors import CtlError
from kata_py.cli.output import output_option, print_json
from kata_py.cli.parameters import source

FILE = click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), required=False)


@click.group(help="What the configuration says, and what it comes to. Without FILE it is the one that the shim takes.")
def command() -> None:
    """The group."""


@command.command(
    help="Tell all that keeps the shim from taking the configuration with its drop-ins; exits with 3 where it cannot."
)
@FILE
@output_option
def check(file: Path | None, output: str) -> int:
    """Check the configuration; returns 0, or 3 where the shim would refuse it."""
    from kata_py.config.load import locate, problems

    found = problems(file)
    if output == "json":
        print_json(
            [
                {"file": each.file and str(each.file), "line": each.line, "key": each.key, "problem": each.cause}
                | {"next": each.hint}
                for each in found
            ]
        )
    elif not found:
        click.echo(f"{locate(file, os.environ)}: good")
    for each in found if output == "table" else ():
        click.echo(each)
    return 3 if found else 0


@command.command(
    help="Print every key with the value that counts; a comment says where it was said, if not by default."
)
@FILE
@click.option("--effective", is_flag=True, help="the keys that have their default as well")
@output_option
def show(file: Path | None, effective: bool, output: str) -> None:
    """Print what the configuration comes to, as TOML or JSON."""
    from kata_py.config import effective as whole
    from kata_py.config.bind import excerpt
    from kata_py.config.errors import ConfigurationError

    try:
        entries = [each for each in whole.effective(source(file)) if effective or each.origin != whole.DEFAULT]
    except ConfigurationError as error:
        raise CtlError(str(error)) from error
    if output == "json":
        print_json([asdict(entry) for entry in entries])
        return
    table = ""
    for entry in entries:
        if entry.table != table:
            click.echo(f"{table and chr(10)}[{entry.table}]")
            table = entry.table
        origin = "" if entry.origin == whole.DEFAULT else f"  # {entry.origin}"
        click.echo(f"{entry.key} = {excerpt(entry.value, None)}{origin}")


@command.command(help="Explain a key: `default_memory`, or `runtime.enable_debug` where several tables have it.")
@click.argument("key")
@FILE
@output_option
def explain(key: str, file: Path | None, output: str) -> None:
    """Explain a key."""
    from kata_py.config import effective as whole
    from kata_py.config.bind import excerpt
    from kata_py.config.errors import ConfigurationError

    try:
        found = whole.explain(key, source(file))
    except ConfigurationError as error:
        raise CtlError(error.cause, error.hint) from error
    if output == "json":
        print_json([asdict(each) for each in found])
        return
    for number, each in enumerate(found):
        lines = {
            "meaning": each.meaning,
            "may be": each.type,
            "default": excerpt(each.default),
            "is": f"{excerpt(each.entry.value)} ({each.entry.origin})",
            "pods say": ", ".join(each.annotations) or "nothing: there is no annotation for it",
        }
        lines["upstream"] = "knows the key" if each.upstream else "does not know the key: it is ours"
        if not each.honoured:
            lines["note"] = "accepted, and without effect yet"
        click.echo(f"{chr(10) if number else ''}[{each.entry.table}] {each.entry.key}")
        for name, text in lines.items():
            click.echo(f"  {name:9} {text}")
