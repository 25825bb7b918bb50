"""Hooks that the guest's image brings along: programs run at three points of every container's life.

They lie in `prestart/`, `poststart/` and `poststop/` below the directory that the host names. A hook gets the
container's state as runtime-spec has it (runtime.md, State) on stdin, an environment with PATH alone, and a bounded
time. What it fails at is logged and stops nothing. Source: `guest_hook_path` of kata-containers' agent.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_agent.container.reaper import Reaper
    from kata_py.oci.spec import Hook

_LOG = logging.getLogger(__name__)

_TIMEOUT = 10  # seconds for each
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_OUTPUT_LIMIT = 4096  # bytes of a failed hook's words that are logged

_BOUNDED = f"""\
timeout -s KILL {_TIMEOUT} "$0" prestart >>"$1" 2>&1 || echo "hook $0 ended with status $?" >>"$1"
"""


@dataclass(frozen=True, slots=True)
class GuestHooks:
    """The programs, each kind in the order of their names."""

    prestart: tuple[Path, ...] = ()
    poststart: tuple[Path, ...] = ()
    poststop: tuple[Path, ...] = ()

    @classmethod
    def found(cls, directory: Path) -> GuestHooks:
        """Those in the directory: regular files that can be executed, no links. Problems are logged."""
        return cls(*(_programs(directory / kind) for kind in ("prestart", "poststart", "poststop")))

    def prestart_entries(self, log: Path) -> list[Hook]:
        """The prestart hooks as entries of a config.json.

        The runtime has to run them, because only it stands still between the container's mounts and its root. It
        gives up at a hook that fails, and has no bound, so each is run within one that never fails.

        Args:
            log: Where the words of the hooks go.
        """
        environment = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
        return [
            {"path": "/bin/sh", "args": ["sh", "-c", _BOUNDED, str(hook), str(log)], "env": environment}
            for hook in self.prestart
        ]


async def run(reaper: Reaper, hooks: tuple[Path, ...], kind: str, state: Mapping[str, object]) -> None:
    """Run hooks one after another.

    Args:
        reaper: Who runs programs.
        hooks: Which.
        kind: Their second argument: `poststart` or `poststop`.
        state: The container's state.
    """
    if not hooks:
        return
    import json

    document = json.dumps(state).encode()
    for hook in hooks:
        await _run(reaper, hook, kind, document)


async def _run(reaper: Reaper, hook: Path, kind: str, state: bytes) -> None:
    with ExitStack() as stack:
        stdin, output = (os.memfd_create(name) for name in ("state", "output"))
        stack.callback(os.close, stdin)
        stack.callback(os.close, output)
        os.write(stdin, state)
        os.lseek(stdin, 0, os.SEEK_SET)
        try:
            code = await reaper.run(
                [hook.name, kind], program=str(hook), environment=_ENVIRONMENT, streams=(stdin, output, output),
                timeout=_TIMEOUT,
            )  # fmt: skip
        except (OSError, TimeoutError) as error:
            _LOG.warning("%s hook %s: %s", kind, hook, error)
            return
        if code != 0:
            said = os.pread(output, _OUTPUT_LIMIT, 0).decode(errors="replace").strip()
            _LOG.warning("%s hook %s ended with status %d: %s", kind, hook, code, said)


def _programs(directory: Path) -> tuple[Path, ...]:
    try:
        return tuple(path for path in sorted(directory.iterdir()) if _is_program(path))
    except FileNotFoundError:
        return ()
    except OSError as error:
        _LOG.warning("hooks of the guest: %s", error)
        return ()


def _is_program(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)
