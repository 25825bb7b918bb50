"""Many pods at once on EC2 (`tests.moto`): the adaptor's control plane alone, in a process of its own that is measured.

Pods have no network: that is ready at once. So are their agents, unless they are to be connected: then one, in a
process of its own, is that of all, which each pod has a proxy to, with TLS, and a runtime at the proxy that stays.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from kata_caa import apf, orphans
from kata_caa.config import AdaptorConfig
from kata_caa.daemon import tags_of
from kata_caa.errors import Fault
from kata_caa.faults import Backoff, RetryPolicy
from kata_caa.gateway import Gateway
from kata_caa.peer import Parts, Proxy
from kata_caa.pods import Pods
from kata_caa.pool.machine import MachineRecords
from kata_caa.providers.api import InstanceSpec
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.metadata import MetadataError
from kata_caa.providers.aws.provider import Aws, Pace
from kata_caa.record import PodRecord, PodRecords
from kata_caa.request import PodRequest
from kata_caa.surroundings import Alone
from kata_caa.turns import Turns
from kata_protos.health_pb2 import CheckRequest
from kata_protos.health_ttrpc import HealthClient
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from tests.agents import agents_apart

OWNER = "storm"
POLICY = RetryPolicy(
    {
        Fault.TRANSIENT: Backoff(again=5, first=0.2, ceiling=1.0),
        Fault.THROTTLE: Backoff(again=10, first=0.5, ceiling=4.0),
    }
)
"""The adaptor's, with shorter waits."""


@dataclass(frozen=True, slots=True)
class Storm:
    """What became of many pods.

    Attributes:
        served: How many ran.
        errors: What the others met.
        seconds: From each pod's announcement to its running, or to its agent's answer to its runtime; in order.
        up: Seconds until all were so far.
        down: Seconds until all were deleted.
        left: How many objects were the owner's then.
        records: How many pods were on record then.
        cpu: Seconds of processor time, from the first announcement to the last deletion.
        memory: The most memory that was resident, in bytes: with the cloud open, with all pods.
    """

    served: int
    errors: dict[str, int]
    seconds: list[float]
    up: float
    down: float
    left: int
    records: int
    cpu: float
    memory: list[int]


class _Nothing:
    """A network, and an agent, that are there; and no machine that waits."""

    @asynccontextmanager
    async def taken(self, spec: InstanceSpec, user_data: str) -> AsyncIterator[None]:
        yield None

    def refill(self) -> None:
        pass

    async def inspect(self, netns: Path) -> apf.PodNetwork:
        return apf.PodNetwork(pod_ip="10.0.0.2/24", vxlan_id=555000)

    async def set_up(self, record: PodRecord) -> None:
        pass

    async def tear_down(self, record: PodRecord) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def proxy(self, record: PodRecord) -> AbstractAsyncContextManager[Proxy]:
        return self._proxy()

    @asynccontextmanager
    async def _proxy(self) -> AsyncIterator[Proxy]:
        yield self


async def _no_metadata(path: str) -> str:
    raise MetadataError(path)


async def storm(config: AwsConfig, directory: Path, count: int, connected: bool) -> Storm:
    """Have many pods started and deleted at once.

    Args:
        config: The cloud.
        directory: For the records; of a short path.
        count: How many.
        connected: Whether their agents are there, and a runtime at the proxy of each.
    """
    (directory / "netns").mkdir()
    async with (
        Aws(config, fetch=_no_metadata, policy=POLICY, pace=Pace(0.2, 2.0)) as cloud,
        agents_apart(directory / "tls") as port,
        AsyncExitStack() as runtimes,
    ):
        settings = AdaptorConfig(
            socket=str(directory / "hypervisor.sock"), pods_dir=str(directory / "pods"), forwarder_port=port
        )
        records, nothing = PodRecords(directory / "pods"), _Nothing()
        gateway = Gateway(settings, records)

        async def proxy(record: PodRecord) -> AbstractAsyncContextManager[Proxy]:
            if not connected:
                return await nothing.proxy(record)
            return await gateway.proxy(replace(record, addresses=("127.0.0.1",)))

        turns = Turns(settings.concurrent_creates)
        parts = Parts(cloud, nothing, proxy, records, turns, Alone(), partial(tags_of, OWNER), nothing, POLICY)
        on_record = partial(orphans.on_record, records, MachineRecords(settings.pool_dir))
        pods = Pods(parts, gateway, Alone(), owner=OWNER, on_record=on_record)
        await cloud.owned(OWNER)  # what a client needs at all is there now
        memory = [_resident()]
        cpu = time.process_time()
        errors: Counter[str] = Counter()
        seconds: list[float] = []

        async def start(number: int) -> None:
            name, asked = f"pod-{number:03}", time.monotonic()
            netns = directory / "netns" / name
            netns.touch()
            request = PodRequest(f"{number:08x}-storm", name, "default", str(netns))
            try:
                await pods.create(request)
                await pods.start(request.sandbox_id)
                if connected:
                    address = UnixAddress(str(records.socket(request.sandbox_id)))
                    runtime = await runtimes.enter_async_context(connect(address, timeout=5))
                    await HealthClient(runtime).Check(CheckRequest(), timeout=60)
            except Exception as error:
                errors[f"{type(error).__name__}: {error}"] += 1
            else:
                seconds.append(time.monotonic() - asked)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(start(number), name=f"start {number}")
        up = time.monotonic() - began
        memory.append(_resident())
        ending = [pods._pods[id].stop() for id in list(pods._pods)]
        down = time.monotonic()
        await asyncio.wait(ending)
        down = time.monotonic() - down
        cpu = time.process_time() - cpu
        left = len(await cloud.owned(OWNER))
        return Storm(len(seconds), dict(errors), sorted(seconds), up, down, left, len(list(records.ids())), cpu, memory)


def _resident() -> int:
    """The most memory that was resident so far, in bytes; getrusage(2) would tell that of whoever started us, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def in_process(config: AwsConfig, directory: Path, count: int, timeout: float, *, connected: bool = False) -> Storm:
    """`storm` in a process of its own.

    Args:
        config: The cloud.
        directory: For the records, and the process's log; of a short path.
        count: How many pods.
        timeout: Seconds that it may take.
        connected: As of `storm`.
    """
    with (directory / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "tests.storm", str(directory), str(count), *["connected"] * connected],
            input=json.dumps(asdict(config)), stdout=subprocess.PIPE, stderr=log, text=True, timeout=timeout,
            cwd=Path(__file__).parent.parent, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (directory / "log").read_text()[-4000:]
    return Storm(**json.loads(done.stdout))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    read = json.loads(sys.stdin.read())
    tuples = {name: tuple(value) for name, value in read.items() if isinstance(value, list)}
    asked = AwsConfig(**{**read, **tuples})
    done = asyncio.run(storm(asked, Path(sys.argv[1]), int(sys.argv[2]), connected="connected" in sys.argv[3:]))
    print(json.dumps(asdict(done)))
