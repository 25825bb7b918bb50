"""The command line of `kata-ctl`. Spellings are those of kata's own `kata-ctl` and `kata-runtime`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kata_py.cli.errors import CtlError

NAME = "kata-ctl"

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; a failure says on stderr what to do next."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    if "--" in words:  # argparse would take options behind it for its own
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    parser = _parser()
    parsed = parser.parse_args(words)
    if command and parsed.run is not _exec:
        parser.error("only exec takes a command behind --")
    parsed.command = command
    try:
        code: int = parsed.run(parsed)
    except CtlError as error:
        sys.stderr.write(f"{NAME}: {error.cause}\n")
        if error.hint:
            sys.stderr.write(f"{NAME}: next: {error.hint}\n")
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        NAME, allow_abbrev=False, description="Reach the sandboxes of kata-py that run on this node."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    volume = _group(commands, "direct-volume", "volumes handed to machines as disks")
    add = _command(volume, "add", "describe a volume, as storage drivers do", _volume_add)
    _volume_path(add)
    add.add_argument("mount_info", nargs="?", metavar="MOUNT_INFO", help="its disk and file system, in JSON")
    add.add_argument("--mount-info", dest="mount_info_flag", metavar="MOUNT_INFO", help="the same")
    _volume_path(_command(volume, "remove", "forget a volume", _volume_remove))
    _volume_path(_command(volume, "stats", "how full a volume in use is, in JSON", _volume_stats))
    resize = _command(volume, "resize", "make a volume in use larger", _volume_resize)
    _volume_path(resize)
    resize.add_argument("size", nargs="?", type=_size, metavar="SIZE", help="bytes")
    resize.add_argument("--size", dest="size_flag", type=_size, metavar="SIZE", help="the same")

    rules = _group(commands, "iptables", "packet filter rules in a guest")
    for name, help, run in (
        ("get", "print a guest's rules, as iptables-save does", _rules_get),
        ("set", "replace a guest's rules", _rules_set),
    ):
        each = _command(rules, name, help, run)
        _sandbox_flag(each)
        each.add_argument("--v6", action="store_true", help="those of IPv6")
        if name == "set":
            each.add_argument("file", metavar="FILE", help="rules as iptables-save writes them; - is stdin")

    policy = _command(_group(commands, "policy", "what a guest's agent lets pass"), "set", "replace it", _policy_set)
    _sandbox_flag(policy)
    policy.add_argument("file", metavar="FILE", help="Rego; - is stdin")

    metrics = _command(commands, "metrics", "print a sandbox's figures, as Prometheus reads them", _metrics)
    metrics.add_argument("sandbox", metavar="SANDBOX", help="its id, or the beginning of it")

    shell = _command(commands, "exec", "a shell in a guest, or a command behind --", _exec)
    shell.add_argument("sandbox", metavar="SANDBOX", help="its id, or the beginning of it")
    shell.add_argument(
        "-p", "--kata-debug-port", dest="port", type=_port, default=1026, metavar="PORT",
        help="vsock port of the debug console (default: 1026)",
    )  # fmt: skip

    version = _command(commands, "version", "say what this is", _version)
    version.add_argument("--json", action="store_true", help="for programs")
    return parser


Subparsers = argparse._SubParsersAction  # noqa: SLF001 argparse has no other name for it


def _group(commands: Subparsers[argparse.ArgumentParser], name: str, help: str) -> Subparsers[argparse.ArgumentParser]:
    group = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    return group.add_subparsers(metavar="COMMAND", required=True)


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, help: str, run: Command
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _volume_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume_path", nargs="?", metavar="VOLUME_PATH", help="what pods name the volume by")
    parser.add_argument("--volume-path", dest="volume_path_flag", metavar="VOLUME_PATH", help="the same")


def _sandbox_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sandbox-id", dest="sandbox", required=True, metavar="SANDBOX", help="its id, or the beginning of it"
    )


def _size(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected a number of bytes, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 1 << 32:
        raise argparse.ArgumentTypeError(f"expected a port number, not {text!r}")
    return int(text)


def _either(parsed: argparse.Namespace, name: str) -> str:
    """An argument that stands by itself, as kata-ctl has it, or behind its flag, as kata-runtime has."""
    bare, flag = getattr(parsed, name), getattr(parsed, f"{name}_flag")
    spelling = f"--{name.replace('_', '-')}"
    if bare is not None and flag is not None:
        # With the flag for what comes first, the first bare word is what comes next.
        raise CtlError(f"{name.replace('_', ' ')} is given twice: {bare} and {spelling} {flag}", "give one of them")
    value = flag if bare is None else bare
    if value is None:
        raise CtlError(f"{name.replace('_', ' ')} is missing", f"give it by itself, or as {spelling}")
    return str(value)


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CtlError(f"{file} cannot be read: {error.strerror}") from error


# ---- the commands; what each needs is imported by it alone


def _volume_add(parsed: argparse.Namespace) -> int:
    from kata_py.cli import direct_volume

    direct_volume.add(_either(parsed, "volume_path"), _either(parsed, "mount_info"))
    return 0


def _volume_remove(parsed: argparse.Namespace) -> int:
    from kata_py.cli import direct_volume

    direct_volume.remove(_either(parsed, "volume_path"))
    return 0


def _volume_stats(parsed: argparse.Namespace) -> int:
    from kata_py.cli import direct_volume

    print(direct_volume.stats(_either(parsed, "volume_path")))
    return 0


def _volume_resize(parsed: argparse.Namespace) -> int:
    from kata_py.cli import direct_volume

    direct_volume.resize(_either(parsed, "volume_path"), int(_either(parsed, "size")))
    return 0


def _rules_get(parsed: argparse.Namespace) -> int:
    from kata_py.cli import shim

    sys.stdout.buffer.write(shim.find(parsed.sandbox).request("GET", _rules_target(parsed)))
    sys.stdout.buffer.flush()
    return 0


def _rules_set(parsed: argparse.Namespace) -> int:
    from kata_py.cli import shim

    shim.find(parsed.sandbox).request("PUT", _rules_target(parsed), _content(parsed.file))
    return 0


def _rules_target(parsed: argparse.Namespace) -> str:
    return "/ip6tables" if parsed.v6 else "/iptables"


def _policy_set(parsed: argparse.Namespace) -> int:
    from kata_py.cli import shim

    shim.find(parsed.sandbox).request("PUT", "/policy", _content(parsed.file))
    return 0


def _metrics(parsed: argparse.Namespace) -> int:
    from kata_py.cli import shim

    sys.stdout.buffer.write(shim.find(parsed.sandbox).request("GET", "/metrics"))
    sys.stdout.buffer.flush()
    return 0


def _exec(parsed: argparse.Namespace) -> int:
    import asyncio

    from kata_py.cli import console, shim

    url = shim.find(parsed.sandbox).request("GET", "/agent-url").decode()
    return asyncio.run(
        console.run(
            console.address_of(url, parsed.port),
            parsed.command,
            write=console.to_stdout,
            stdin=sys.stdin.fileno(),
            size=shutil.get_terminal_size(),
        )
    )


def _version(parsed: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("kata-py")
    except PackageNotFoundError:
        found = "unknown (not installed as a distribution)"
    print(json.dumps({"name": NAME, "version": found}) if parsed.json else f"{NAME} (kata-py) {found}")
    return 0
