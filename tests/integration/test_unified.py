"""On a host with cgroup v2 alone, and with WireGuard, whatever this one has.

The host is a machine of ours: a privileged container of it has this host's own files, read-only, and the guest's
cgroups. In it run tests that also run here, down to a whole shim with containers under the namespace driver; and some
of those that need WireGuard in the kernel, which hosts of tests need not have. The others take too long in an emulated
machine: `pytest -m wireguard` runs all of them on a host that has it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from kata_agent.linux import CAPABILITIES
from tests import bundle as bundles
from tests.conftest import REPOSITORY
from tests.integration.conftest import ON_QEMU
from tests.manager import Manager
from tools import configuration

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean"), ON_QEMU]

MEMORY = 2048  # MiB
TIMEOUT = 300.0  # seconds
PACE = 10  # times as long that a step may take in an emulated machine
# As in a host's root cgroup, controllers can be handed down: the container's own is its namespace's root.
APART = 'mkdir /sys/fs/cgroup/init; echo 0 > /sys/fs/cgroup/init/cgroup.procs; "$0" "$@"; exit $?'
MOUNTS: list[dict[str, Any]] = [
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]},
    *(
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
        for place in ("/tmp", "/run", "/var/lib/containerd")
    ),
    {"destination": str(REPOSITORY), "type": "bind", "source": str(REPOSITORY), "options": ["rbind", "ro"]},
]


@pytest.fixture
def large(short_tmp: Path, manager: Manager, guest: Path) -> Manager:
    """A manager whose machines are large enough to be a host."""
    path = configuration.write(
        short_tmp / "host.toml", guest, program="the tests", memory=MEMORY, extra="default_vcpus = 2\n"
    )  # fmt: skip
    return manager.using(config=path)


def spec(*args: str) -> dict[str, Any]:
    """A container that may do all in its machine."""
    environ = ["CI=true", f"TESTS_PACE={PACE}", f"PATH={os.environ['PATH']}"]
    process = bundles.process(args, cwd=str(REPOSITORY), new_privileges=True, env=environ)
    process["capabilities"] = {key: [*CAPABILITIES] for key in ("bounding", "effective", "permitted", "inheritable")}
    content = bundles.spec("host", "/", process, mounts=MOUNTS)
    content["root"]["readonly"] = True
    content["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    return content


@pytest.mark.timeout(TIMEOUT + 100)
@pytest.mark.parametrize(
    "tests",
    [
        "tests/unit/resource/test_cgroup.py tests/unit/resource/test_device_filter.py "
        "tests/unit/sandbox/test_placement.py tests/functional/test_room.py",
        "tests/functional/agent/test_resources.py -k 'limits_are_raised or devices_are_denied or each_kill or figures'",
        "tests/integration/test_container.py -k 'namespace and (runs_from_create or kill_ends or statistics)'",
    ],
    ids=["cgroups", "agent", "shim"],
)
async def test_it_is_the_same(large: Manager, tests: str) -> None:
    await pass_there(large, tests)


@pytest.mark.timeout(2 * TIMEOUT + 100)
async def test_tunnels_are_encrypted_by_a_kernel_that_can(large: Manager) -> None:
    chosen = "watches or forged and IPv6 or next_adaptor"
    await pass_there(large, f"tests/functional/caa/test_tunnel.py -m wireguard -k '{chosen}'", 2 * TIMEOUT)


async def pass_there(large: Manager, tests: str, timeout: float = TIMEOUT) -> None:
    """Have tests pass in the machine.

    Args:
        large: Makes it.
        tests: What pytest is told.
        timeout: Seconds.
    """
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=120")
    async with large.container("host", spec=spec("/bin/sh", "-ec", APART, *pytest_, *shlex.split(tests))) as container:
        await container.start()
        exit = await container.wait(timeout=timeout)
        told = (await container.io.ended()).decode()
        print(told, container.io.output("stderr").decode())
        assert exit.status == 0
        assert " passed" in told
