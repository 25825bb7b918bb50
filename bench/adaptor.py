"""How fast the adaptor is without a cloud, and what a burst of pods costs it.

A pod's life goes through the real runtime's driver, adaptor and tunnel, in a room of its own (root); its machine is a
record, and its agent answers at once, with TLS. The burst has EC2 by moto, which is what limits it, and neither network
nor agents; those are there where proxies are said to be.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kata_protos import hypervisor_pb2 as hv
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect

Figure = tuple[str, str, str]

LIVES = 40
FEW, BURST = 10, 200
ROOM = Path(__file__).parent.parent / "tools" / "room"


def figures() -> list[Figure]:
    """Measure; takes about a minute."""
    line = [ROOM, sys.executable, "-m", "bench.adaptor", "lives"]
    told = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=120).stdout
    lives = sorted(json.loads(told.splitlines()[-1]))
    return [
        (
            "adaptor: a pod created, started and stopped, without the cloud",
            f"{median(lives):.0f} ms (of {LIVES}: {lives[0] * 1e3:.0f}–{lives[-1] * 1e3:.0f})",
            "≤ 300 ms",
        ),
        *burst(),
    ]


def median(ordered: list[float]) -> float:
    """In milliseconds."""
    return ordered[len(ordered) // 2] * 1e3


def burst() -> list[Figure]:
    """Many pods at once; and few and many whose agents are there, each in a process of its own."""
    from tests.aws_cloud import config_of
    from tests.moto import ec2_server
    from tests.storm import Storm, in_process

    def measured(count: int, connected: bool) -> Storm:
        with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as directory:
            storm = in_process(config_of(ec2), Path(directory), count, timeout=180, connected=connected)
        assert storm.served == count, storm.errors
        return storm

    with ec2_server() as ec2:
        storm, few, many = measured(BURST, False), measured(FEW, True), measured(BURST, True)
    p95 = storm.seconds[int(len(storm.seconds) * 0.95)]
    memory = [*few.memory, many.memory[-1]]
    return [
        (f"adaptor: {BURST} pods at once, EC2 by moto: started", f"{BURST / storm.up:.0f} /s, p95 {p95:.1f} s", ""),
        (f"adaptor: {BURST} pods at once, EC2 by moto: deleted", f"{BURST / storm.down:.0f} /s", ""),
        ("adaptor: processor time for a pod's life on EC2", f"{storm.cpu / BURST * 1e3:.0f} ms", ""),
        (f"adaptor: memory of those {BURST} pods' control plane", f"{storm.memory[-1] >> 20} MiB", "≤ 150 MiB"),
        (
            f"adaptor: memory with EC2 open / {FEW} / {BURST} pods, with their proxies",
            f"{' / '.join(f'{each >> 20}' for each in memory)} MiB",
            "",
        ),
    ]


async def lives() -> list[float]:
    """Seconds of each of some pods' lives, deletion included."""
    from tests.integration.peer.pods import bridged
    from tests.integration.peer.world import BYSTANDER, worlds

    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as top, bridged():
        async with (
            worlds(Path(top), tls=True) as world,
            connect(UnixAddress(str(world.adaptor.socket)), timeout=5) as client,
        ):
            adaptor, found = HypervisorClient(client), []
            for number in range(LIVES):
                id = f"pod-{number}"
                spec = world.spec(id, world.net)
                request = hv.CreateVMRequest(
                    id=id, annotations=spec.annotations, networkNamespacePath=str(spec.network_namespace)
                )
                began = time.perf_counter()
                await adaptor.CreateVM(request, timeout=20)
                await adaptor.StartVM(hv.StartVMRequest(id=id), timeout=20)
                await adaptor.StopVM(hv.StopVMRequest(id=id), timeout=20)
                while (world.adaptor.pods / id).exists():  # noqa: ASYNC110 StopVM answers at once
                    await asyncio.sleep(0.001)
                found.append(time.perf_counter() - began)
                assert world.wrong(BYSTANDER) == []
            return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(lives())))
    else:
        for name, value, bar in figures():
            print(f"{name:65} {value:>25}   {bar}")
