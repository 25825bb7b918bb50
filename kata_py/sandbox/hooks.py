"""Hooks of a container's spec that run on the host, where managers and devices' vendors have their programs.

`prestart` and `createRuntime` run once the machine's process is there and before anything is made in the guest;
`poststart` after the start, `poststop` after the end. They are told the pid of the machine's process, whose network
namespace is the pod's.
Source: OCI runtime-spec `config.md` (POSIX-platform Hooks), `runtime.md` (State, Lifecycle); kata `katautils/hook.go`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kata_py.oci.spec import Hook, Hooks, Spec
from kata_py.resource import process
from kata_py.resource.journal import Journal
from kata_py.sandbox.errors import InvalidArgument, SandboxError

logger = logging.getLogger(__name__)

TIMEOUT = 10  # seconds, where the hook has none of its own
EXCERPT = 1024  # bytes of what a hook said last that are told with its failure

When = Literal["prestart", "createRuntime", "poststart", "poststop"]
_BEFORE: tuple[When, ...] = ("prestart", "createRuntime")


class HookFailed(SandboxError):
    """A hook could not be run, ran out of time, or exited with a status other than 0.

    Attributes:
        budget: Seconds that it was given.
    """

    def __init__(self, cause: str, budget: float) -> None:
        super().__init__(cause)
        self.budget = budget


@dataclass(frozen=True, slots=True)
class HostHooks:
    """A container's hooks on the host, and what they are told of it.

    Attributes:
        id: The container.
        bundle: Its bundle directory.
        annotations: Its annotations.
        version: The version of the specification that its spec keeps to.
        hooks: The hooks.
    """

    id: str
    bundle: Path
    annotations: Mapping[str, str]
    version: str
    hooks: Hooks

    @asynccontextmanager
    async def around(self, pid: int, journal: Journal) -> AsyncIterator[None]:
        """The container's life between the hooks before it and those after it, which run even if the former fail.

        Args:
            pid: The machine's process.
            journal: Where the hooks' processes are written down.

        Raises:
            HookFailed: Of the first that fails before it; those after it are only logged.
        """
        try:
            for when in _BEFORE:
                for hook in self.hooks.get(when, []):
                    await _run(when, hook, self._state("creating", pid), journal)
            yield
        finally:
            await self._run_all("poststop", "stopped", 0, journal)

    async def poststart(self, pid: int, journal: Journal) -> None:
        """Run the hooks after the start. A failure is only logged: the container runs."""
        await self._run_all("poststart", "running", pid, journal)

    async def _run_all(self, when: When, status: str, pid: int, journal: Journal) -> None:
        for hook in self.hooks.get(when, []):
            try:
                await _run(when, hook, self._state(status, pid), journal)
            except HookFailed as error:
                logger.warning("container %s: %s", self.id, error)

    def _state(self, status: str, pid: int) -> bytes:
        state: dict[str, object] = {"ociVersion": self.version, "id": self.id, "status": status}
        if pid:
            state["pid"] = pid
        state |= {"bundle": str(self.bundle), "annotations": dict(self.annotations)}
        return json.dumps(state).encode()


def host_hooks(spec: Spec, container_id: str, bundle: Path) -> HostHooks | None:
    """The hooks of a spec; None if there are none.

    Raises:
        InvalidArgument: One has no absolute path.
    """
    hooks = spec.get("hooks", {})
    kinds: tuple[When, ...] = get_args(When)
    for when in kinds:
        for number, hook in enumerate(hooks.get(when, [])):
            if not hook["path"].startswith("/"):
                raise InvalidArgument(f"hooks.{when}[{number}].path is {hook['path']!r}, which is not absolute")
    if not any(hooks.values()):
        return None
    return HostHooks(container_id, bundle, spec.get("annotations", {}), spec["ociVersion"], hooks)


async def _run(when: When, hook: Hook, state: bytes, journal: Journal) -> None:
    """Run one hook, which leads a session of its own; out of time, all of that is killed.

    Raises:
        HookFailed: It failed.
    """
    name = f"hook {when} {hook['path']}"
    seconds = hook.get("timeout", 0)
    timeout = seconds if seconds > 0 else TIMEOUT
    environment = dict(variable.partition("=")[::2] for variable in hook.get("env", []))
    told = os.memfd_create("state")  # files, not pipes: a hook need not read, and what it starts may keep its outputs
    said = os.memfd_create("output")
    try:
        os.write(told, state)
        os.lseek(told, 0, os.SEEK_SET)
        command = [hook["path"], *hook.get("args", [])[1:]]
        async with process.spawn(
            journal, name, command, env=environment, stdin=told, stdout=said, stderr=said
        ) as child:
            try:
                async with asyncio.timeout(timeout):
                    status = await child.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                raise
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            raise HookFailed(f"{name} {how}{_excerpt(said)}", timeout)
    except TimeoutError:
        raise HookFailed(f"{name} did not end within {timeout} s{_excerpt(said)}", timeout) from None
    except (OSError, process.KillError) as error:
        raise HookFailed(f"{name}: {error}", timeout) from error
    finally:
        os.close(told)
        os.close(said)


def _excerpt(output: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, EXCERPT, max(size - EXCERPT, 0)).decode(errors="replace").strip()
    return f": {' | '.join(text.splitlines())}" if text else ""
