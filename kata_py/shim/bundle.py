"""A bundle's files as far as the shim's commands touch them, and which sandbox its container belongs to.

On the start path: the standard library's cheap part only.
"""
# pathlib would cost the start path 5 ms.
# ruff: noqa: PTH108, PTH118, PTH123

from __future__ import annotations

import fcntl
import json
import os

from kata_py.resource import file
from kata_py.sandbox import pod
from kata_py.sandbox.pod import Role
from kata_py.shim.errors import UsageError

ADDRESS = "address"
LOG = "log"
MONITOR_ADDRESS = "monitor_address"
PID = "shim.pid"
ROOTFS = "rootfs"

ID_LIMIT = 76  # characters; containerd's own limit (`containerd: pkg/identifiers/validate.go`)


def check_id(what: str, value: str) -> None:
    """Refuse an id or namespace that could not be part of a path.

    Raises:
        UsageError: It is empty, too long, or has a character other than ASCII letters, digits, `-`, `_`, `.`,
            or does not begin with a letter or digit.
    """
    if not value:
        raise UsageError(f"no {what} given; a manager passes -{what}")
    if len(value) > ID_LIMIT:
        raise UsageError(f"{what} of {len(value)} characters, at most {ID_LIMIT} are allowed: {value!r}")
    plain = value.replace("-", "0").replace("_", "0").replace(".", "0")
    if not (plain.isascii() and plain.isalnum() and value[0].isalnum()):
        raise UsageError(
            f"{what} {value!r} is not valid: only letters, digits, '-', '_' and '.' after a first letter or digit"
        )


def membership(bundle: str, container_id: str) -> tuple[Role, str]:
    """The role of the bundle's container, and the id of the sandbox it belongs to.

    Raises:
        UsageError: config.json is missing, garbled, or its annotations contradict themselves.
    """
    path = os.path.join(bundle, "config.json")
    try:
        role, sandbox_id = pod.membership(_annotations(path), container_id)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    check_id("sandbox id", sandbox_id)
    return role, sandbox_id


def _annotations(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as opened:
            spec = json.loads(opened.read().decode())
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: the manager writes it before it starts the shim") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8; nesting without end
        raise UsageError(f"{path}: not JSON that can be read: {error}") from None
    annotations = (spec.get("annotations") if isinstance(spec, dict) else spec) or {}
    if not isinstance(annotations, dict):
        raise UsageError(f"{path}: annotations are not an object of strings")
    return annotations


def write(bundle: str, name: str, text: str) -> None:
    """Write one of the shim's files; a reader sees all of it or none.

    Raises:
        OSError: It cannot be written, with its path.
    """
    file.replace(os.path.join(bundle, name), text)


def remove(bundle: str, *names: str) -> None:
    """Remove files of the shim's from a bundle, which may be gone itself."""
    for name in names:
        try:
            os.unlink(os.path.join(bundle, name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            pass  # a directory is none of ours


def lock(bundle: str) -> bool:
    """Keep other starts and deletes off the bundle until this process ends; whether none was at it already.

    Between bind and listen a socket looks dead, and a dead one is replaced: two starters must not meet there.
    """
    try:
        fcntl.flock(os.open(bundle, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
