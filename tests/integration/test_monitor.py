"""kata-monitor as it is started on a node, over a real containerd, real pods and their shims."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import REPOSITORY
from tests.cri import client
from tests.cri.pods import Pods
from tests.integration.conftest import ON_NAMESPACES
from tests.leftovers import left_behind
from tests.monitor import BOUND, Monitor
from tools.cri import CriContainerd
from tools.footprint import Footprint

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, ON_NAMESPACES]

PROGRAM = "import sys; from kata_py.monitor.command import main; sys.exit(main())"


@pytest.fixture
def containerd(launcher: Path, config: Path, short_tmp: Path) -> Iterator[CriContainerd]:
    """A private containerd with the CRI; afterwards the machine is as before."""
    before = Footprint.take()
    with CriContainerd(short_tmp / "monitored", launcher, {"namespace": config}) as containerd:
        yield containerd
    assert left_behind(before) == []


@asynccontextmanager
async def program(*words: str) -> AsyncIterator[Monitor]:
    """The program as long as the context lasts; it ends well when it is told to."""
    line = (sys.executable, "-c", PROGRAM, "--listen-address", "127.0.0.1:0", *words)
    process = await asyncio.create_subprocess_exec(*line, cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(BOUND):
            told = await process.stderr.readline()
        found = re.search(rb"kata-monitor \S+ listens at 127\.0\.0\.1:(\d+)$", told.strip())
        assert found is not None, told
        yield Monitor(int(found[1]))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND):
            _, last = await process.communicate()
        assert process.returncode == 0, last
        assert b"Traceback" not in last
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_figures_of_running_pods_are_told_under_the_pods_names(
    containerd: CriContainerd, short_tmp: Path
) -> None:
    async with program("--runtime-endpoint", f"unix://{containerd.address}") as monitor:
        others = set((await monitor.get("/sandboxes")).text.split())  # of tests before; there may be no /run/vc/sbs yet
        assert (await monitor.get("/metrics")).value("kata_monitor_running_shim_count") == len(others)
        async with client.connected(containerd.address) as cri:
            await client.serving(cri)
            pods = Pods(cri, "namespace", short_tmp / "monitored-logs")
            async with pods.run("first") as first, pods.run("second") as second:
                assert set((await monitor.get("/sandboxes")).text.split()) == others | {first.id, second.id}
                reply = await monitor.get("/metrics")
                families = {family.name: family for family in text_string_to_metric_families(reply.text)}
                assert {"kata_shim_fds", "kata_hypervisor_threads", "kata_guest_load"} <= set(families)
                for pod in (first, second):
                    named = {
                        "sandbox_id": pod.id, "cri_uid": f"uid-{pod.config.metadata.name}",
                        "cri_name": pod.config.metadata.name, "cri_namespace": "tests",
                    }  # fmt: skip
                    for of_shim in ("kata_shim_fds", "kata_shim_process_resident_memory_bytes"):
                        assert named in [sample.labels for sample in families[of_shim].samples]
                    assert {"item": "load1", **named} in [s.labels for s in families["kata_guest_load"].samples]
                assert reply.value("kata_monitor_running_shim_count") == len(others) + 2
                assert reply.value("kata_monitor_scrape_failed_count") == 0
                one = await monitor.get(f"/metrics?sandbox={first.id}")
                assert first.id in one.text
                assert second.id not in one.text
                assert (await monitor.get(f"/agent-url?sandbox={first.id}")).text.strip()
        assert (await monitor.get("/metrics")).value("kata_monitor_running_shim_count") == len(others)
