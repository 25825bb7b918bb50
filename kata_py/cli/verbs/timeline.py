"""`kata-ctl timeline`: the stages of a pod's start."""

from __future__ import annotations

from dataclasses import asdict

import click

from kata_py.cli import output as printed
from kata_py.cli.errors import CtlError
from kata_py.cli.parameters import Pod


@click.command(help="Print the stages of a pod's start with their times, of a pod that runs or has failed.")
@click.argument("pod", metavar="POD", type=Pod())
@printed.output_option
def command(pod: str, output: str) -> None:
    """Print a timeline."""
    from kata_py.diagnosis import evidence
    from kata_py.diagnosis.errors import NoSuchPod
    from kata_py.sandbox.paths import HostPaths
    from kata_py.sandbox.timeline import table

    try:
        spans = evidence.timeline_of(pod, HostPaths())
    except NoSuchPod as error:
        raise CtlError(str(error), "list what there is: kata-ctl ps") from error
    if output == "json":
        printed.print_json([asdict(span) | {"milliseconds": span.milliseconds} for span in spans])
    else:
        click.echo(table(spans))
