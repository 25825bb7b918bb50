"""The command `agent-protocol-forwarder`, with upstream's flags in Go's syntax.

Source: cloud-api-adaptor `cmd/agent-protocol-forwarder/main.go`; Go's package `flag`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from kata_caa import apf, flags
from kata_caa.errors import AdaptorError, SettingError

NAME: Final = "agent-protocol-forwarder"


def _flag(default: Any, name: str, meaning: str) -> Any:
    return field(default=default, metadata={"flag": name, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Options:
    """What the command's flags say; each field's flag and meaning stand with it."""

    config: str = _flag(apf.PATH, "config", "path of apf.json")
    listen: str = _flag("0.0.0.0:15150", "listen", "address to listen on")
    agent_socket: str = _flag("/run/kata-containers/agent.sock", "kata-agent-socket", "path of the agent's socket")
    pod_namespace: str = _flag("/run/netns/podns", "pod-namespace", "path of the pod's network namespace")
    host_interface: str = _flag("", "host-interface", "interface of the tunnel; the tunnel finds it by itself")
    ca_file: str = _flag("", "ca-cert-file", "file of the certificates that are trusted; default: apf.json says")
    cert_file: str = _flag("", "cert-file", "file of the own certificate; default: apf.json says")
    key_file: str = _flag("", "cert-key", "file of its key; default: apf.json says")
    skip_verify: bool = _flag(False, "tls-skip-verify", "trust every client; for tests only")
    disable_tls: bool = _flag(False, "disable-tls", "no TLS at all; for tests only")
    version: bool = _flag(False, "version", "say the version")


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line: `-x v`, `-x=v`, with one dash or two; a truth needs no value.

    Raises:
        SettingError: A flag is not known, or its value is missing or no truth.
    """
    known = {each.metadata["flag"]: each for each in fields(Options)}
    values, rest = flags.parse(
        arguments, known.keys(), {name for name, each in known.items() if isinstance(each.default, bool)}
    )
    if rest:
        raise SettingError(f"{NAME} takes flags alone, not {rest[0]!r:.100}")
    changes: dict[str, Any] = {}
    for name, (*_, text) in values.items():
        each = known[name]
        changes[each.name] = flags.truth(name, text) if isinstance(each.default, bool) else text
    return replace(Options(), **changes)


def usage() -> str:
    """The flags, for people."""
    lines = [f"Usage of {NAME}:"]
    for each in fields(Options):
        default = f" (default {each.default})" if each.default else ""
        lines.append(f"  -{each.metadata['flag']}\n        {each.metadata['meaning']}{default}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it until it is told to stop; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if any(word.lstrip("-") in ("h", "help") and word.startswith("-") for word in arguments):
        print(usage(), file=sys.stderr)  # noqa: T201 a command
        return 0
    try:
        options = parse(arguments)
    except SettingError as error:
        print(f"{NAME}: {error}\n{usage()}", file=sys.stderr)  # noqa: T201 a command
        return 2
    if options.version:
        from importlib.metadata import version

        print(f"{NAME} {version('kata-py')}")  # noqa: T201 a command
        return 0
    import logging

    from kata_caa.forwarder import daemon

    logging.basicConfig(level=logging.INFO, format="[forwarder] %(message)s")
    try:
        daemon.run(options)
    except AdaptorError as error:
        print(f"{NAME}: {error}", file=sys.stderr)  # noqa: T201 a command
        return 1
    return 0


def load(path: str) -> apf.ForwarderConfig:
    """Read `apf.json`.

    Raises:
        SettingError: It cannot be read.
        MalformedConfig: It has not its form.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    return apf.load(text)
