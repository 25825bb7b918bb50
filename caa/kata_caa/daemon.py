"""The adaptor's process: what it opens, in which order, and how it ends.

Pods are taken up before the runtime can ask for new ones, and are left running when the adaptor ends.
Source: cloud-api-adaptor `cmd/cloud-api-adaptor/main.go`, `pkg/adaptor/server.go`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from kata_caa import examination
from kata_caa.config import AdaptorConfig
from kata_caa.errors import AdaptorError, ProviderError
from kata_caa.examination import pool_of
from kata_caa.gateway import Gateway
from kata_caa.node import NodeTunnel
from kata_caa.notice import notify
from kata_caa.orphans import claimed, on_record
from kata_caa.owner import owner_of_this_node
from kata_caa.peer import Parts
from kata_caa.pods import Pods
from kata_caa.pool.machine import MachineRecords
from kata_caa.pool.parts import PoolParts
from kata_caa.pool.pool import Pool
from kata_caa.providers.api import NAMESPACE_TAG, OWNER_TAG, POD_TAG, SANDBOX_TAG, Provider
from kata_caa.record import PodRecord, PodRecords
from kata_caa.service import PodVMInfo, RemoteHypervisor
from kata_caa.surroundings import Alone, Surroundings
from kata_caa.tenure import tenure
from kata_caa.turns import Turns
from kata_caa.usage import UsageLog
from kata_py.resource.blocking import off_loop
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.server import Server, same_user

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0  # seconds that calls under way are given when the adaptor ends


class CheckFailed(AdaptorError):
    """The cloud does not have what pods need; names each thing."""


@asynccontextmanager
async def serving(
    config: AdaptorConfig,
    provider: AbstractAsyncContextManager[Provider],
    surroundings: Surroundings | None = None,
) -> AsyncIterator[Pods]:
    """An adaptor that serves; leaving ends it, and leaves its pods running.

    Args:
        config: Its settings.
        provider: The cloud, not opened yet.
        surroundings: What the node is a part of; None is a node alone.

    Raises:
        AdaptorError: It cannot start; says why, and what to do.
    """
    around = surroundings or Alone()
    await off_loop(examination.require, config)  # before the cloud: what cannot be is told at once
    wanted, budget = await off_loop(pool_of, config)
    owner = owner_of_this_node(config.owner)
    async with AsyncExitStack() as stack:
        alone = await stack.enter_async_context(tenure(Path(config.pods_dir)))
        records = PodRecords(Path(config.pods_dir))
        tunnel = await off_loop(NodeTunnel, config, records)
        cloud = await stack.enter_async_context(provider)
        if config.cloud_config_verify:
            await require(cloud)
        gateway = await off_loop(Gateway, config, records)
        turns = Turns(config.concurrent_creates)
        usage = UsageLog(Path(config.usage_file), around) if config.usage_file else None
        machines = MachineRecords(config.pool_dir)
        pool = Pool(
            PoolParts(
                provider=cloud,
                records=machines,
                credentials=gateway,
                endpoint=gateway.endpoint,
                turns=turns,
                tags=lambda machine: ((OWNER_TAG, owner), (SANDBOX_TAG, machine.id)),
                observer=usage or around,
                timeout=config.proxy_timeout,
                settings=config.cloud_settings,
                scratch=config.enable_scratch_space,
            ),
            wanted,
            budget,
        )
        parts = Parts(
            provider=cloud,
            tunnel=tunnel,
            proxy=gateway.proxy,
            records=records,
            turns=turns,
            observer=usage or around,
            tags=partial(tags_of, owner),
            pool=pool,
        )
        pods = Pods(
            parts,
            gateway,
            around,
            owner=owner,
            on_record=partial(on_record, records, machines),
            initdata=config.initdata,
            scratch=config.enable_scratch_space,
        )
        stack.push_async_callback(pool.aclose)
        stack.push_async_callback(pods.aclose)
        await pods.restore(alone=alone.is_set())
        if alone.is_set():
            await _begin(pool, records)
        else:
            logger.info("another adaptor serves this node still; what it has not done yet is taken up when it ends")
            succession = asyncio.create_task(_succeed(alone, pods, pool, records), name="succession")
            stack.push_async_callback(_cancelled, succession)
        await stack.enter_async_context(around.joined(pods))
        server = await _listening(Path(config.socket), pods)
        stack.push_async_callback(_closed, server)
        logger.info("pods are served at %s, their VMs are %s's", config.socket, owner)
        if config.sweep_interval > 0:
            task = asyncio.create_task(sweeping(pods, config.sweep_interval), name="sweep")
            stack.push_async_callback(_cancelled, task)
        notify("READY=1")
        yield pods


async def run(
    config: AdaptorConfig, provider: AbstractAsyncContextManager[Provider], surroundings: Surroundings | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends the process at once.

    Raises:
        AdaptorError: It cannot start.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if ended.is_set():
            os._exit(1)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    async with serving(config, provider, surroundings):
        await ended.wait()
        notify("STOPPING=1")


async def require(provider: Provider) -> None:
    """See to it that the cloud has what pods need.

    Raises:
        CheckFailed: It has not; unlike upstream's, this is never passed over.
    """
    missing = [each for each in await provider.check() if not each.passed]
    if missing:
        raise CheckFailed("; ".join(f"{each.subject}: {each.detail}" for each in missing))


def tags_of(owner: str, record: PodRecord) -> tuple[tuple[str, str], ...]:
    """What all that is made for a pod bears."""
    return (
        (OWNER_TAG, owner),
        (SANDBOX_TAG, record.sandbox_id),
        (POD_TAG, record.name),
        (NAMESPACE_TAG, record.namespace),
    )


async def _begin(pool: Pool, records: PodRecords) -> None:
    known, damaged = await off_loop(records.known)
    await pool.restore(claimed(known), is_whole=not damaged)
    pool.begin()


async def _succeed(alone: asyncio.Event, pods: Pods, pool: Pool, records: PodRecords) -> None:
    """Take up what an earlier adaptor leaves, as soon as it has ended: until then it may make and bind machines."""
    await alone.wait()
    logger.info("the other adaptor has ended")
    try:
        await pods.restore()
        await _begin(pool, records)
    except AdaptorError as error:
        logger.error("not all that the other adaptor had can be taken up: %s", error)
    except Exception:
        logger.exception("not all that the other adaptor had can be taken up")


async def _listening(path: Path, pods: Pods) -> Server:
    server = Server(admit=same_user)
    server.add(RemoteHypervisor(pods))
    server.add(PodVMInfo(pods))
    await off_loop(_make_room, path)
    await server.listen(UnixAddress(str(path)))
    return server


def _make_room(path: Path) -> None:
    """Remove the socket of an adaptor that has ended, or that we take the place of."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
    except OSError as error:
        raise AdaptorError(f"{path} cannot be listened at: {error.strerror}") from error


async def _closed(server: Server) -> None:
    server.close()
    await server.wait_closed(CLOSE_TIMEOUT)


async def sweeping(pods: Pods, interval: float) -> None:
    """Sweep now and then without end, whatever becomes of a single sweep.

    Args:
        pods: The node's.
        interval: Seconds from one to the next.
    """
    while True:
        try:
            await pods.sweep()
        except ProviderError as error:
            logger.warning("the cloud cannot be looked through: %s", error)
        except Exception:
            logger.exception("the cloud cannot be looked through")  # and will be the next time
        await asyncio.sleep(interval)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
