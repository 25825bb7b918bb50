"""The shim's programs, run as a manager and an operator run them, but forked from this process: it has all imported."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

from kata_py.cli import command as ctl
from kata_py.shim import command as shim
from kata_py.shim import daemon, listener, process, start
from kata_py.shim.invocation import Invocation
from tests.crash.doom import Doom, Notes, armed

IDLE_TIMEOUT = 0.5  # seconds after which a shim that its manager has forgotten ends; two minutes otherwise


@dataclass(frozen=True, slots=True)
class Programs:
    """What runs the programs for one sandbox.

    Attributes:
        sandbox: Its id.
        doom: Who dies, and when.
        notes: Where that is noted.
        environment: What the manager gives.
        apart: Whether the shim has mounts of its own, as always; if not, those it leaves do not go by themselves.
    """

    sandbox: str
    doom: Doom
    notes: Notes
    environment: Mapping[str, str]
    apart: bool = True

    def spared(self) -> Programs:
        """The same of which none dies any more."""
        return replace(self, doom=Doom("none"))

    def start(self, program: str, words: Sequence[str], bundle: Path) -> tuple[int, str]:
        """Run `start`, as a program of this name; gives its exit status, and what it printed."""
        return self._run([*words, "start"], bundle, lambda: self._start(program, bundle))

    def delete(self, words: Sequence[str], bundle: Path) -> tuple[int, str]:
        """Run `delete`; likewise."""
        with armed(self.doom, "delete", self.sandbox, bundle, self.notes):
            return self._run([*words, "-bundle", str(bundle), "delete"], bundle, shim.main)

    def gc(self) -> tuple[int, str]:
        """Run `kata-ctl gc`; likewise."""
        with armed(self.doom, "gc", self.sandbox, Path("/"), self.notes):
            return self._run(["gc"], Path("/"), ctl.main)

    def _start(self, program: str, bundle: Path) -> int:
        """`start`, which forks the daemon instead of running the launcher again."""
        with ExitStack() as arms:

            def spawn(invocation: Invocation, listen_fd: int) -> int:
                pid = os.fork()
                if not pid:
                    arms.close()
                    _become(lambda: self._serve(invocation, listen_fd, bundle))
                return pid

            with patch.object(start, "_spawn", spawn):
                arms.enter_context(armed(self.doom, program, self.sandbox, bundle, self.notes))
                return shim.main()

    def _serve(self, invocation: Invocation, listen_fd: int, bundle: Path) -> int:
        """The daemon, with what `start` gives it."""
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.dup2(listen_fd, listener.LISTEN_FD)
        sys.argv = [sys.argv[0], *invocation.rest]
        if self.doom.program == "start":
            daemon.IDLE_TIMEOUT = IDLE_TIMEOUT
        with armed(self.doom, "shim", self.sandbox, bundle, self.notes), ExitStack() as stack:
            if not self.apart:
                stack.enter_context(patch.object(process, "separate", lambda: None))
            return shim.main()

    def _run(self, words: Sequence[str], directory: Path, main: Callable[[], int]) -> tuple[int, str]:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.chdir(directory)
            sys.argv = [shim.NAME, *words]
            os.environ.update(self.environment)
            _become(main)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            said = file.read()
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


def _become(main: Callable[[], int]) -> NoReturn:
    """Run to an end that is no one else's."""
    code = 70
    try:
        code = main()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
