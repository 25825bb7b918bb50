"""The command line of `kata-ctl`. Spellings are those of kata's own `kata-ctl` and `kata-runtime`.

A verb is a module of `kata_py.cli.verbs`, imported when it is asked for; the table here is all that `--help` needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from kata_py.cli.errors import CtlError

NAME = "kata-ctl"
LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "critical")  # upstream's
VERBS = {
    "check": "whether this node can run sandboxes, and what to do where it cannot",
    "collect": "one archive for a bug report, without secrets",
    "completion": "print what makes a shell complete kata-ctl's words",
    "config": "what the configuration says, and what it comes to",
    "cp": "files into a container, and out of it",
    "direct-volume": "volumes handed to machines as disks",
    "doctor": "all that is wrong with this node, and what to do next",
    "env": "versions, paths and settings of what sandboxes are made of, and the host",
    "exec": "a shell in a guest, or a command behind --",
    "explain": "say why a pod failed, at which stage, and what to do next",
    "gc": "remove what sandboxes left behind whose shims died",
    "install": "tell containerd or CRI-O of our runtime handlers",
    "iptables": "packet filter rules in a guest",
    "loglevel": "how much a sandbox's shim and agent log",
    "metrics": "print a sandbox's figures, as Prometheus reads them",
    "policy": "what a guest's agent lets pass",
    "ps": "list the sandboxes on this node, with age and memory",
    "timeline": "print the stages of a pod's start, and how long each took",
    "uninstall": "take the runtime handlers away again",
    "upgrade": "which version new pods get, while those that run keep theirs",
    "version": "say what this is",
}  # in the order of `--help`; `direct-volume` is the module `direct_volume`


class Verbs(click.Group):
    """The verbs of the table, each imported when it is run, or completed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them; None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"kata_py.cli.verbs.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; a failure says on stderr what to do next.

    Codes: 0 done, 1 failed, 2 no such command line, 3 done but what was looked at is not well, 130 interrupted; and for
    `exec` the command's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = root().main(words, prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CtlError as error:
        return _failed(error.cause, error.hint)
    except BrokenPipeError:
        return 1
    except PermissionError as error:
        cause = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _failed(cause, "run it as root" if os.geteuid() else "")
    except (click.Abort, KeyboardInterrupt):
        return 130
    return code if isinstance(code, int) else 0


def _failed(cause: str, hint: str) -> int:
    sys.stderr.write(f"{NAME}: {cause}\n")
    if hint:
        sys.stderr.write(f"{NAME}: next: {hint}\n")
    return 1


def root() -> Verbs:
    """The command above all verbs."""
    places = click.Option(
        ["--show-default-config-paths"], is_flag=True, is_eager=True, expose_value=False, callback=_show_places,
        help="Print where the configuration is looked for, and exit.",
    )  # fmt: skip
    version = click.Option(
        ["-V", "--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
        help="Say what this is, as the verb does, and exit.",
    )  # fmt: skip
    level = click.Option(
        ["-l", "--log-level"], type=click.Choice(LOG_LEVELS),
        help="Log on stderr what the verb does, from this level on; warnings alone by default.",
    )  # fmt: skip
    form = click.Option(["-j", "--json-logging"], is_flag=True, help="Log in JSON, a line each.")
    return Verbs(
        NAME,
        callback=_log,
        help="Look at this node and at the sandboxes of kata-py that run on it, and reach them.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
        no_args_is_help=True,
        params=[places, version, level, form],
    )


@click.pass_context
def _log(context: click.Context, log_level: str | None, json_logging: bool) -> None:
    if log_level or json_logging:
        from kata_py.cli.log import logging_to_stderr

        context.with_resource(logging_to_stderr(log_level or "warn", as_json=json_logging))


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from kata_py.node.environment import version

        click.echo(f"{NAME} (kata-py) {version()}")
        context.exit()


def _show_places(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from kata_py.config.load import SEARCHED

        click.echo("\n".join(map(str, SEARCHED)))
        context.exit()
