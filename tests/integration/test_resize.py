"""The machine follows what a pod's containers may use; the shim's log tells of it, and the guest feels it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import bundle as bundles
from tests import cgroups
from tests.integration.conftest import ON_QEMU
from tests.manager import Container, Manager
from tools import configuration

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean"), ON_QEMU]

MIB = 1 << 20
LARGE = {"cpu": {"quota": 200_000, "period": 100_000}, "memory": {"limit": 512 * MIB}}


@asynccontextmanager
async def running(
    manager: Manager,
    id: str,
    *,
    pod: str = "",
    resources: Mapping[str, Any] | None = None,
    mounts: list[dict[str, Any]] | None = None,
) -> AsyncIterator[Container]:
    """A container of a pod, or the pod's first, that sleeps."""
    spec = bundles.in_pod(
        bundles.spec(id, manager.rootfs, bundles.process(["sleep", "100000"]), mounts=mounts or []),
        pod or id,
        sandbox=not pod,
    )
    spec["linux"]["resources"] = {**spec["linux"]["resources"], **(resources or {})}
    async with manager.container(id, spec=spec) as container:
        await container.start()
        yield container


async def guest_size(container: Container) -> tuple[int, int]:
    """Processors and MiB of memory that the guest has."""
    status, cpus = await container.run("grep", "-c", "^processor", "/proc/cpuinfo")
    assert status == 0
    status, memory = await container.run("sed", "-n", "s/^MemTotal: *\\([0-9]*\\) kB/\\1/p", "/proc/meminfo")
    assert status == 0
    return int(cpus), int(memory) // 1024


# Pages of files in the zone that only memory above 4 GiB is in: all of it was plugged in.
FILE_PAGES = r"""
sed -n '/zone *Normal/,/pagesets/p' /proc/zoneinfo | awk '/nr_zone_(in)?active_file/ { sum += $2 } END { print sum }'
"""


async def test_a_container_has_the_processors_and_the_memory_it_asks_for(manager: Manager, short_tmp: Path) -> None:
    content = random.Random(0).randbytes(64 * MIB)
    (short_tmp / "data").write_bytes(content)
    bind = {"destination": "/file", "type": "bind", "source": str(short_tmp / "data"), "options": ["bind", "ro"]}
    async with running(manager, "pod") as first:
        cpus, memory = await guest_size(first)
        assert cpus == 1
        assert 400 < memory < 512
        async with running(manager, "app", pod="pod", resources=LARGE, mounts=[bind]) as app:
            grown = await guest_size(app)
            assert grown[0] == 2
            assert memory + 490 < grown[1] <= 1024
            # What virtiofsd reads for the guest goes right into that memory.
            assert await app.run("md5sum", "/file") == (0, f"{hashlib.md5(content).hexdigest()}  /file\n".encode())
            status, pages = await app.run("sh", "-c", FILE_PAGES)
            assert (status, int(pages) > 64 * MIB // 4096 // 2) == (0, True)
            assert (await first.usage()).processes == 1
    (short_tmp / "data").unlink()


@pytest.fixture
def configured(short_tmp: Path, manager: Manager, request: pytest.FixtureRequest) -> Callable[..., Manager]:
    """A manager with further lines in its configuration; those for `[runtime]` come last in the file."""

    built = request.getfixturevalue("guest")

    def make(extra: str = "", runtime: str = "") -> Manager:
        path = configuration.write(short_tmp / "resize.toml", built, program="the tests", memory=256, extra=extra)
        path.write_text(path.read_text() + runtime)
        return manager.using(config=path)

    return make


async def test_with_virtio_mem_a_machine_gives_memory_back(configured: Callable[..., Manager]) -> None:
    manager = configured(extra="enable_virtio_mem = true\n")
    async with running(manager, "pod") as first:
        _, before = await guest_size(first)
        async with running(manager, "app", pod="pod", resources=LARGE):
            assert (await guest_size(first))[1] > before + 490
        async with asyncio.timeout(20):
            while (await guest_size(first))[1] > before + 200:
                pass  # asking takes a while


async def test_an_update_makes_room_first(manager: Manager) -> None:
    async with running(manager, "pod") as first, running(manager, "app", pod="pod") as app:
        cpus, memory = await guest_size(first)
        await app.update(LARGE)
        grown = await guest_size(first)
        assert grown[0] == cpus + 1
        assert grown[1] > memory + 490
        assert (await app.usage()).memory_limit == 512 * MIB


async def test_shim_and_machine_live_apart_from_the_pod_where_threads_can_be_without_their_process(
    manager: Manager,
) -> None:
    pod = f"/kata-py-tests-{os.getpid()}/kata_pod"
    async with running(manager, "pod") as first:
        [qemu] = await first.pids()
        if cgroups.unified():
            assert cgroups.of(qemu) == cgroups.of(first.shim_pid) == {pod}
        else:
            assert cgroups.of(qemu) == cgroups.of(first.shim_pid) == {"/kata_overhead/pod"}
            [apart] = (cgroups.directory("cpu", pod) / "tasks").read_text().split()
            assert Path(f"/proc/{qemu}/task/{apart}").is_dir()


async def test_or_all_in_it(configured: Callable[..., Manager]) -> None:
    manager = configured(runtime="sandbox_cgroup_only = true\n")
    async with running(manager, "pod") as first, running(manager, "app", pod="pod"):
        [qemu] = await first.pids()
        assert cgroups.of(qemu) == cgroups.of(first.shim_pid) == {f"/kata-py-tests-{os.getpid()}/kata_pod"}


@pytest.mark.alone
async def test_what_a_pods_containers_use_is_what_its_cgroup_on_the_host_counts(
    configured: Callable[..., Manager],
) -> None:
    manager = configured(runtime="sandbox_cgroup_only = true\n")

    def counted() -> tuple[int, int]:
        """Nanoseconds of processor time and bytes of memory, by the host."""
        name = f"/kata-py-tests-{os.getpid()}/kata_pod"
        return cgroups.cpu_time(name), cgroups.memory(name)

    async with running(manager, "pod") as first, running(manager, "app", pod="pod") as app:

        async def told() -> tuple[int, int]:
            """The same by the containers' statistics, together."""
            used = [await container.usage() for container in (first, app)]
            return sum(each.cpu_time for each in used), sum(each.memory for each in used)

        before, host_before = await told(), counted()
        work = "head -c 50331648 /dev/zero > /dev/shm/ballast; md5sum /dev/shm/ballast"
        assert (await app.run("sh", "-c", work))[0] == 0
        after, host_after = await told(), counted()
        assert after[1] - before[1] >= 48 * MIB
        assert host_after[1] - host_before[1] >= 48 * MIB
        assert after[1] <= host_after[1]
        # Processors of the guest are threads of the host; a guest takes a pause of such a thread for work.
        assert after[0] - before[0] > 0
        assert host_after[0] - host_before[0] > (after[0] - before[0]) / 2
