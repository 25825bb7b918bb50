"""What stands before every call: the policy in force, if there is one."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from google.protobuf.message import Message

    from kata_agent.policy.engine import Engine

DEFAULT_FILE = Path("/etc/kata-opa/default-policy.rego")

_LOG = logging.getLogger(__name__)


class Guard:
    """Decides on requests, one after another. Without a policy it lets all pass, and loads nothing."""

    def __init__(self) -> None:
        self._engine: Engine | None = None  # made, used and dropped by the worker, as it has to be
        self._worker: ThreadPoolExecutor | None = None

    @classmethod
    def from_file(cls, path: str, default: Path = DEFAULT_FILE) -> Guard:
        """A guard with the policy of a file; or of the guest's own, if it has one.

        Raises:
            AgentError: The file is not there, or no policy; nothing may be served then.
        """
        guard = cls()
        file = Path(path) if path else default
        if not path and not file.exists():
            return guard
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise AgentError(f"cannot read the policy {file}: {error}") from error
        failure = guard._started().submit(guard._install, text).result()
        if failure is not None:
            raise AgentError(f"the policy {file} cannot be put in force: {failure}")
        _LOG.info("the policy of %s is in force", file)
        return guard

    async def check(self, request: Message) -> None:
        """Decide on a request.

        Raises:
            PermissionDenied: The policy denies it.
            AgentError: The policy has no rule for it, or cannot be evaluated.
        """
        if self._engine is None:
            return
        failure = await asyncio.get_running_loop().run_in_executor(self._worker, self._decide, request)
        if failure is not None:
            raise failure

    async def replace(self, text: str) -> None:
        """Put another policy in force, with a state of its own; the one before stays if it is none.

        Raises:
            InvalidArgument: The text is no policy.
            Unimplemented: This guest has no evaluator.
        """
        failure = await asyncio.get_running_loop().run_in_executor(self._started(), self._install, text)
        if failure is not None:
            raise failure
        _LOG.info("a policy was set and is in force")

    def close(self) -> None:
        """Drop the policy and end the worker."""
        if self._worker is not None:
            self._worker.submit(self._drop).result()
            self._worker.shutdown()

    def _started(self) -> ThreadPoolExecutor:
        if self._worker is None:
            from concurrent.futures import ThreadPoolExecutor

            self._worker = ThreadPoolExecutor(1, "policy")
        return self._worker

    # In the worker. Errors are returned afresh: their traces would carry the engine to another thread.

    def _install(self, text: str) -> AgentError | None:
        from kata_agent.policy.engine import Engine

        try:
            self._engine = Engine(text)
        except AgentError as error:
            return type(error)(str(error))
        return None

    def _decide(self, request: Message) -> AgentError | None:
        from kata_agent.policy import document

        assert self._engine is not None, "a policy is replaced, never taken away"
        try:
            self._engine.check(request.DESCRIPTOR.name, document.of(request))
        except AgentError as error:
            return type(error)(str(error))
        except Exception as error:
            return AgentError(f"{request.DESCRIPTOR.name}: internal error: {error}")
        return None

    def _drop(self) -> None:
        self._engine = None
