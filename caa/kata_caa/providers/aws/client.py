"""EC2's API by boto3, off the event loop: one session, one client, so many calls at a time.

botocore's own retries are off, as they know neither our policy nor cancellation. It keeps the whole model of a
service in memory for each session (some 30 MiB for EC2), so there is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from kata_caa.errors import ProviderError
from kata_caa.faults import CALLS, RetryPolicy, retrying
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.errors import is_busy, is_missing, translate

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_TIMEOUT: Final = 10.0  # seconds
READ_TIMEOUT: Final = 60.0  # seconds; RunInstances takes up to some twenty


class Ec2:
    """EC2's calls, off the loop.

    Cancelling a call lets its caller go at once, but not the call: it may still make something. Calls that make
    things bear a group (the sandbox), and `quiet` waits until none of the group is under way any more.

    Attributes:
        api: The client; its methods block.
        session: Where further clients come from.
    """

    def __init__(
        self,
        api: EC2Client,
        session: boto3.session.Session,
        pool: ThreadPoolExecutor,
        policy: RetryPolicy = CALLS,
    ) -> None:
        self.api = api
        self.session = session
        self.policy = policy
        self._pool = pool
        self._running: dict[str, set[Future[Any]]] = {}

    async def once(self, function: Callable[[], T], *, group: str = "") -> T:
        """Call in a thread, once.

        Args:
            function: Blocks; calls `api`.
            group: For whom it makes something; empty for calls that change nothing.

        Raises:
            ProviderError: It failed.
        """
        job = self._pool.submit(function)
        jobs = self._running.setdefault(group, set()) if group else set()
        jobs.add(job)
        try:
            return await asyncio.wrap_future(job)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            raise translate(error) from error
        finally:
            if job.done():
                jobs.discard(job)
            if group and not jobs and self._running.get(group) is jobs:
                del self._running[group]

    async def call(self, stage: str, function: Callable[[], T], *, group: str = "") -> T:
        """Call in a thread, again by the policy. The call must be one that may be repeated.

        Args:
            stage: What it does, for the error.
            function: Blocks; calls `api`.
            group: For whom it makes something; empty for calls that change nothing.

        Raises:
            ProviderError: It failed for good.
        """
        return await self.retrying(stage, lambda: self.once(function, group=group))

    async def remove(self, stage: str, function: Callable[[], object]) -> None:
        """Call in a thread what removes something; that it is not there, or still busy, is no error.

        Raises:
            ProviderError: It failed for good.
        """

        async def attempt() -> None:
            try:
                await self.once(function)
            except ProviderError as error:
                if not (is_missing(error) or is_busy(error)):
                    raise

        await self.retrying(stage, attempt)

    async def retrying(self, stage: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try by the policy.

        Raises:
            ProviderError: It failed for good.
        """
        return await retrying(
            attempt,
            self.policy,
            stage=stage,
            noticed=lambda error, wait: logger.info("%s: %s; again in %.1f s", stage, error, wait),
        )

    async def quiet(self, group: str) -> None:
        """Wait until no call of a group is under way: those whose callers were cancelled, for example.

        It is bounded by the calls' own time limits.
        """
        while jobs := [job for job in self._running.get(group, ()) if not job.done()]:
            ends = [asyncio.wrap_future(job) for job in jobs]
            for end in ends:
                end.add_done_callback(_heeded)
            await asyncio.wait(ends)
        self._running.pop(group, None)


def _heeded(end: asyncio.Future[Any]) -> None:
    """Its caller has gone: a failure is nobody's news."""
    if not end.cancelled():
        end.exception()


@asynccontextmanager
async def open_ec2(config: AwsConfig, policy: RetryPolicy = CALLS) -> AsyncIterator[Ec2]:
    """Open EC2's API; leaving waits for the calls under way, and closes the connections.

    Args:
        config: What is set.
        policy: When a call is tried again.

    Raises:
        ProviderError: There is no region, or no such profile.
    """
    pool = ThreadPoolExecutor(max(1, config.connections), thread_name_prefix="ec2")
    try:
        try:
            session, api = await asyncio.wrap_future(pool.submit(_connect, config))
        except BotoCoreError as error:
            raise translate(error) from error
        try:
            yield Ec2(api, session, pool, policy)
        finally:
            await asyncio.shield(asyncio.to_thread(pool.shutdown, cancel_futures=True))
            api.close()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def settings_of_calls(connections: int) -> Config:
    """botocore's settings: no retries, bounded waits.

    Args:
        connections: How many are kept.
    """
    return Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=connections,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        tcp_keepalive=True,
        user_agent_extra="kata-py",
    )


def _connect(config: AwsConfig) -> tuple[boto3.session.Session, EC2Client]:
    static = bool(config.access_key_id and config.secret_key)
    session = boto3.session.Session(
        aws_access_key_id=config.access_key_id if static else None,
        aws_secret_access_key=config.secret_key if static else None,
        aws_session_token=(config.session_token or None) if static else None,
        region_name=config.region or None,
        profile_name=(config.profile or None) if not static else None,
    )
    return session, session.client(
        "ec2", config=settings_of_calls(config.connections), endpoint_url=config.endpoint_url or None
    )
