"""`kata-ctl ps`: the sandboxes on this node."""

from __future__ import annotations

from dataclasses import asdict

import click

from kata_py.cli import output as printed


@click.command(help="List the sandboxes on this node: pod, state, age, and resident memory by part.")
@printed.output_option
def command(output: str) -> None:
    """List sandboxes."""
    from kata_py.diagnosis import overview
    from kata_py.diagnosis.quantity import duration, size
    from kata_py.sandbox.sockets import ROOTS

    found = overview.gather(ROOTS)
    if output == "json":
        printed.print_json([{k: v for k, v in asdict(each).items() if k != "timeline"} for each in found])
        return
    printed.table(
        ["sandbox", "pod", "state", "age", *overview.PARTS],
        [
            (
                each.id,
                str(each.pod),
                each.state,
                "-" if each.age is None else duration(each.age),
                *(size(each.memory[part]) if part in each.memory else "-" for part in overview.PARTS),
            )
            for each in found
        ],
        "no sandbox is on this node",
    )
