"""What the configuration and a pod's annotations change, seen from inside a real guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bundle
from tests.integration.conftest import ON_QEMU
from tests.manager import Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean"), ON_QEMU]

_DROP_IN = """
[hypervisor.qemu]
enable_mem_prealloc = true
entropy_source = "/dev/urandom"
reclaim_guest_freed_memory = true
kernel_params = "kata.test=configured"

[agent.kata]
kernel_modules = ["virtio_net napi_tx=0"]
launch_process_timeout = 7
"""

_LOOK = """
cat /proc/cmdline /sys/class/misc/hw_random/rng_current
ls /sys/bus/virtio/drivers/virtio_balloon | grep virtio
cat /sys/module/virtio_net/parameters/napi_tx
"""


async def test_a_guest_has_the_devices_modules_and_parameters_that_were_asked_for(
    manager: Manager, config: Path, launcher: Path, rootfs: Path, short_tmp: Path
) -> None:
    place = short_tmp / "configured"
    (place / "config.d").mkdir(parents=True)
    (place / "configuration.toml").write_text(config.read_text())
    (place / "config.d" / "10.toml").write_text(_DROP_IN)
    ours = Manager(launcher, place, place / "configuration.toml", rootfs)
    spec = bundle.spec("configured", rootfs, bundle.process(["sh", "-c", _LOOK]))
    spec["annotations"] = {"io.katacontainers.config.hypervisor.kernel_params": "kata.test=annotated"}
    async with ours.container("configured", spec=spec) as container:
        await container.start()
        assert (await container.wait()).status == 0
        line, rng, balloon, napi = (await container.io.ended()).decode().splitlines()
    assert "agent.launch_process_timeout=7" in line
    assert line.endswith("kata.test=annotated")
    assert "kata.test=configured" not in line
    assert rng.startswith("virtio_rng")
    assert balloon.startswith("virtio")
    assert napi == "N"
