"""Reaching the agent of a machine that boots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from kata_py.hypervisor.api import Vm
from kata_py.sandbox.agent import REPEATABLE, Agent, probe
from kata_py.sandbox.errors import DeadlineExceeded, Unavailable
from kata_py.ttrpc.address import Address
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.errors import ConnectError
from kata_py.ttrpc.redial import RedialingClient, redialling

INTERVAL = 0.05  # seconds between attempts: nothing tells when a guest begins to listen


@asynccontextmanager
async def dial(vm: Vm, timeout: float, patience: float = 0.0) -> AsyncIterator[Agent]:
    """Connect to the machine's agent once it answers; leaving closes the connection, and so does the machine's end.

    So whoever waits for the agent need not watch the machine too: its calls fail with `Unavailable`.

    Args:
        vm: The machine.
        timeout: Seconds it is given to answer.
        patience: Seconds that a lost connection may take to come back, for an agent behind somebody who may be
            started anew; without any its loss is the agent's.

    Raises:
        DeadlineExceeded: No answer in time.
        Unavailable: The machine ended first.
    """
    async with AsyncExitStack() as connection:
        dialling = asyncio.create_task(_dial(vm, timeout, patience, connection), name="dial")
        ended = asyncio.create_task(vm.wait(), name="end of the machine")
        try:
            await asyncio.wait([dialling, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (dialling, ended):
                task.cancel()  # nothing happens to one that is done
            await asyncio.wait([dialling, ended])
        if dialling.cancelled():
            raise Unavailable("the machine has ended")
        agent = dialling.result()
        hanging_up = asyncio.create_task(_hang_up(vm, agent), name="end of the machine")
        try:
            yield agent
        finally:
            hanging_up.cancel()
            await asyncio.wait([hanging_up])


def _connect(
    address: Address, timeout: float, patience: float
) -> AbstractAsyncContextManager[Client | RedialingClient]:
    if patience:
        return redialling(address, probe, timeout=timeout, patience=patience, repeatable=REPEATABLE)
    return connect(address, timeout=timeout)


async def _hang_up(vm: Vm, agent: Agent) -> None:
    await vm.wait()
    await agent.close()


async def _dial(vm: Vm, timeout: float, patience: float, connection: AsyncExitStack) -> Agent:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        remaining = max(deadline - loop.time(), 0.001)
        try:
            async with AsyncExitStack() as attempt:
                agent = Agent(await attempt.enter_async_context(_connect(vm.agent, remaining, patience)))
                await agent.check(remaining)
                await agent.learn(max(deadline - loop.time(), 0.001))
                await connection.enter_async_context(attempt.pop_all())
                return agent
        except (ConnectError, Unavailable, DeadlineExceeded) as error:
            if loop.time() + INTERVAL > deadline:
                raise DeadlineExceeded(f"no answer from {vm.agent}: {error}") from error
        await asyncio.sleep(INTERVAL)
