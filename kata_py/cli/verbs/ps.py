"""`kata-ctl ps`: the sandboxes on this node."""

from __future__ import annotations

from dataclasses import asdict

import click

from kata_py.cli import output as printed


@click.command(help="List the sandboxes on record on this node: pod, state, age, and resident memory by part.")
@printed.output_option
def command(output: str) -> None:
    """List sandboxes."""
    from kata_py.diagnosis import evidence
    from kata_py.sandbox.paths import HostPaths

    found = evidence.present(HostPaths())
    if output == "json":
        printed.print_json([{k: v for k, v in asdict(each).items() if k != "timeline"} for each in found])
        return
    printed.table(
        ["sandbox", "pod", "state", "age", "memory MiB"],
        [
            (
                each.id,
                str(each.pod),
                each.state,
                _age(each.age),
                ", ".join(f"{name} {size / (1 << 20):.0f}" for name, size in each.memory.items()) or "-",
            )
            for each in found
        ],
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
