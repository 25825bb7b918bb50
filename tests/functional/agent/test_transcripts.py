"""The agent driven as upstream's two runtimes drive theirs: their order of calls, arguments, tolerances."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from kata_py.ttrpc.client import connect
from tests.drivers.pod import TIMEOUT, Pod, machine
from tests.transcript import DATA, Mismatch, Player, Step, load
from tools import oci_image

pytestmark = pytest.mark.root

CONTAINERS = ("pause", "app")
LINK = "link add eth9 address 02:00:00:00:00:09 type veth peer name far9"


@pytest.mark.parametrize("host", ["go", "rust"])
async def test_a_pods_whole_life_as_upstreams_runtime_drives_it(host: str, top: Path, rootfs: Path) -> None:
    async with machine(top) as (vm, share), connect(vm.agent, timeout=TIMEOUT) as client:
        for id in CONTAINERS:
            oci_image.copy(rootfs, share / id / "rootfs")
        plugging: list[asyncio.Task[None]] = []

        async def plug() -> None:
            async with asyncio.timeout(TIMEOUT):
                await player.refused.wait()  # and the host asks again
            pid = Path(f"/proc/{vm.pid}/task/{vm.pid}/children").read_text().split()[0]
            command = ["nsenter", "-t", pid, "-n", "ip", *LINK.split()]
            await asyncio.to_thread(subprocess.run, command, check=True)

        async def plug_soon() -> None:
            plugging.append(asyncio.create_task(plug(), name="plug"))

        player = Player(client, {"a link appears soon": plug_soon})
        await player.play(load(DATA / f"{host}.jsonl"))
        await asyncio.gather(*plugging)
        async with asyncio.timeout(TIMEOUT):
            await vm.wait()  # DestroySandbox ends the machine


@pytest.mark.parametrize(
    "expected",
    [
        {"status": "NOT_SERVING"},
        {"status": None},
        {"code": "NOT_FOUND"},
        [{"status": "UNKNOWN"}, {"code": "INTERNAL", "text": "serving"}],
    ],
)
async def test_an_answer_that_a_host_would_not_understand_is_found(expected: object, pod: Pod) -> None:
    step = Step(1, {"call": "Check", "expect": expected})
    with pytest.raises(Mismatch, match="SERVING"):
        await Player(pod.client, {}).play([step])
