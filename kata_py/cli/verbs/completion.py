"""`kata-ctl completion`: what makes a shell complete kata-ctl's words, and sandboxes' ids."""

from __future__ import annotations

import click


@click.command(help='Print a script for SHELL: eval "$(kata-ctl completion bash)".')
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "fish", "zsh"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a shell's script."""
    from click.shell_completion import get_completion_class

    root = context.find_root()
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(root.command, {}, root.info_name or "", "_KATA_CTL_COMPLETE").source())
