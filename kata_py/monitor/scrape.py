"""The figures of all sandboxes, each asked of its shim, at once.

Collected when somebody asks, and at no other time. Who asks while that is under way gets the same answer: so a shim
that hangs costs its bound once, and a scrape's memory is there once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

from kata_py.diagnosis import overview
from kata_py.diagnosis.overview import Sandbox
from kata_py.http import client
from kata_py.http.client import ClientError, Gone
from kata_py.http.debug import SECONDS_MAX
from kata_py.monitor.errors import ShimError, UnknownSandbox
from kata_py.monitor.exposition import Families
from kata_py.monitor.figures import Figures
from kata_py.resource.blocking import off_loop
from kata_py.sandbox import boots, sockets
from kata_py.sandbox.boots import Turns
from kata_py.sandbox.failure import Pod

logger = logging.getLogger(__name__)

SHIM_TIMEOUT = 3.0  # seconds; upstream's
ANSWER_MAX = 1 << 20  # bytes; upstream tells of 144 KB
DEBUG_MAX = 4 << 20  # bytes; a profile of a shim in Go is some 100 KB

Labels = Mapping[str, str]


class Namer(Protocol):
    """Who knows which pods the sandboxes are: `kata_py.monitor.pods.Pods`."""

    async def labels(self, sandboxes: list[str]) -> Mapping[str, Labels]:
        """The labels that name the pods of these sandboxes, which are all that there are."""


class Scraper:
    """Asks the shims.

    Args:
        figures: Where it is counted.
        pods: Who knows the sandboxes' pods; None is nobody.
        roots: Where the sandboxes' sockets are.
        tickets: Where the tickets of those that are to boot are.
    """

    def __init__(
        self,
        figures: Figures,
        pods: Namer | None = None,
        roots: tuple[Path, ...] = sockets.ROOTS,
        tickets: Path = boots.ROOT,
    ) -> None:
        self._figures = figures
        self._pods = pods
        self._roots = roots
        self._tickets = tickets
        self._under_way: asyncio.Task[Families] | None = None
        self._failing: dict[str, str] = {}

    async def sandboxes(self) -> dict[str, Path]:
        """The sandboxes there are, by their ids, and the sockets of their shims."""
        return await off_loop(sockets.serving, self._roots)

    async def overview(self) -> list[Sandbox]:
        """The sandboxes as a person wants to see them, by the names of their pods."""
        labels = await self._named(list(await self.sandboxes()))
        pods = {id: Pod(each["cri_namespace"], each["cri_name"], each["cri_uid"]) for id, each in labels.items()}
        return await off_loop(overview.gather, self._roots, pods)

    async def agent_url(self, sandbox: str) -> str:
        """Where a sandbox's agent listens.

        Raises:
            UnknownSandbox: There is no such sandbox.
            ShimError: Its shim does not tell.
        """
        return (await self._asked(sandbox, await self.sandboxes(), "/agent-url")).strip()

    async def debug(self, sandbox: str, target: str) -> client.Reply:
        """What a sandbox's shim tells of itself, whatever its status.

        Args:
            sandbox: The sandbox's id.
            target: Path and query, encoded; below `/debug`.

        Raises:
            UnknownSandbox: There is no such sandbox.
            ShimError: Its shim does not answer.
        """
        timeout = SHIM_TIMEOUT + SECONDS_MAX  # as long as a profile may take
        with _told(sandbox):
            return await client.get(
                str(_there(sandbox, await self.sandboxes())), target, timeout=timeout, limit=DEBUG_MAX
            )

    async def one(self, sandbox: str) -> Families:
        """A sandbox's families.

        Raises:
            UnknownSandbox: There is no such sandbox.
            ShimError: Its shim does not tell.
        """
        there = await self.sandboxes()
        text = await self._asked(sandbox, there, "/metrics")
        return await off_loop(_merged, {sandbox: text}, await self._named(list(there)))

    async def all(self) -> Families:
        """The families of all sandboxes whose shims answer in time."""
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._all(), name="scrape")
            self._under_way.add_done_callback(self._over)
        return await asyncio.shield(self._under_way)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """What is under way ends with the context."""
        try:
            yield
        finally:
            if self._under_way is not None:
                self._under_way.cancel()
                await asyncio.wait([self._under_way])

    async def _all(self) -> Families:
        there = await self.sandboxes()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._note_node(), name="what the records tell")
            naming = group.create_task(self._named(list(there)))
            asking = {id: group.create_task(self._answer(id, path)) for id, path in there.items()}
        answers = {id: task.result() for id, task in asking.items()}
        self._figures.running = sum(answer is not None for answer in answers.values())
        self._note({id: str(answer) for id, answer in answers.items() if isinstance(answer, ShimError)})
        texts = {id: answer for id, answer in answers.items() if isinstance(answer, str)}
        return await off_loop(_merged, texts, naming.result())

    async def _answer(self, id: str, path: Path) -> str | ShimError | None:
        """A shim's text, or what is wrong; None if it has ended."""
        try:
            return await _ask(path, "/metrics")
        except Gone as error:
            logger.debug("sandbox %s has gone: %s", id, error)
            return None
        except ClientError as error:
            return ShimError(str(error))

    async def _asked(self, sandbox: str, there: Mapping[str, Path], target: str) -> str:
        with _told(sandbox):
            return await _ask(_there(sandbox, there), target)

    async def _named(self, sandboxes: list[str]) -> Mapping[str, Labels]:
        return {} if self._pods is None else await self._pods.labels(sandboxes)

    async def _note_node(self) -> None:
        try:
            sandboxes = await off_loop(overview.gather, self._roots)
            self._figures.node.note(sandboxes, await off_loop(Turns.of, self._tickets, boots.places()))
        except OSError as error:  # not root's, say; it was warned of at the start
            logger.debug("the sandboxes' records cannot be read: %s", error)

    def _note(self, failing: dict[str, str]) -> None:
        """Count the shims that fail, and log what is new of them: one that hangs does so in each scrape."""
        for id, cause in failing.items():
            self._figures.failed()
            if self._failing.get(id) != cause:
                logger.warning("the shim of sandbox %s: %s", id, cause)
        self._failing = failing

    def _over(self, task: asyncio.Task[Families]) -> None:
        self._under_way = None
        if not task.cancelled():
            task.exception()  # told to those who wait, if anybody still does


def _there(sandbox: str, there: Mapping[str, Path]) -> Path:
    if sandbox not in there:
        raise UnknownSandbox(f"there is no sandbox {sandbox!r:.100} on this node; /sandboxes lists those there are")
    return there[sandbox]


@contextmanager
def _told(sandbox: str) -> Iterator[None]:
    """Turn what is wrong with a shim's answer into the monitor's errors."""
    try:
        yield
    except Gone as error:
        raise UnknownSandbox(f"sandbox {sandbox} has gone: {error}") from error
    except ClientError as error:
        raise ShimError(f"the shim of sandbox {sandbox}: {error}") from error


async def _ask(path: Path, target: str) -> str:
    reply = await client.get(str(path), target, timeout=SHIM_TIMEOUT, limit=ANSWER_MAX)
    text = reply.body.decode(errors="replace")
    if reply.status != 200:
        raise ClientError(f"it answered {reply.status}: {text.strip()[:200]}")
    return text


def _merged(texts: Mapping[str, str], pods: Mapping[str, Labels]) -> Families:
    families = Families()
    for sandbox, text in texts.items():
        _, left_out = families.add(text, {"sandbox_id": sandbox, **pods.get(sandbox, {})})
        if left_out:
            logger.debug("sandbox %s: %d lines of its figures cannot be passed on", sandbox, left_out)
    return families
