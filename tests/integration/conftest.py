"""Real shims under both drivers: namespaces of the host, and QEMU.

One running sandbox per driver is shared by all tests that only exec into it; what ends a sandbox makes its own.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_py.resource import mount
from tests.crio import Crio
from tests.launcher import write as write_launcher
from tests.leftovers import left_behind
from tests.manager import Container, Manager
from tools import configuration, oci_image
from tools.footprint import Footprint

DRIVERS = [pytest.param("namespace", id="namespace"), pytest.param("qemu", id="qemu", marks=pytest.mark.qemu)]
ON_NAMESPACES = pytest.mark.parametrize("driver", DRIVERS[:1], indirect=True)
ON_QEMU = pytest.mark.parametrize("driver", DRIVERS[1:], indirect=True)

_crios = itertools.count(1)


@pytest.fixture(scope="session")
def launcher(short_tmp: Path) -> Path:
    """The shim's program, able to find the namespace driver."""
    return write_launcher(short_tmp / "bin")


@pytest.fixture(scope="session")
def rootfs(short_tmp: Path) -> Path:
    """A busybox root file system."""
    path = short_tmp / "rootfs"
    path.mkdir()
    oci_image.rootfs(path)
    return path


@pytest.fixture(scope="session", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """A hypervisor driver's name."""
    return str(request.param)


@pytest.fixture(scope="session")
def config(driver: str, request: pytest.FixtureRequest, short_tmp: Path) -> Path:
    """A configuration.toml for the driver."""
    guest = request.getfixturevalue("guest") if driver == "qemu" else None
    return configuration.write(short_tmp / f"{driver}.toml", guest, program="the tests", hypervisor=driver)


@pytest.fixture(scope="session")
def manager(driver: str, config: Path, launcher: Path, rootfs: Path, short_tmp: Path) -> Manager:
    """A manager for the driver's sandboxes."""
    return Manager(launcher, short_tmp / driver, config, rootfs)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(manager: Manager, driver: str) -> AsyncIterator[Container]:
    """A sandbox whose container sleeps; for tests that exec into it and leave it as it was."""
    async with manager.container(f"shared-{driver}", "sleep", "100000") as container:
        await container.start()
        yield container


@pytest_asyncio.fixture(loop_scope="session")
async def crio(
    launcher: Path, driver: str, rootfs: Path, short_tmp: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Crio]:
    """A CRI-O with directories of its own; afterwards all pods are removed that still are there."""
    directory = short_tmp / f"crio-{next(_crios)}"
    directory.mkdir()
    mount.mount("tmpfs", str(directory), "tmpfs")
    mount.mount("", str(directory), flags=mount.MS_SHARED)  # as systemd makes /, on a node
    config = configuration.write(
        directory / "configuration.toml", request.getfixturevalue("guest") if driver == "qemu" else None,
        program="the tests", hypervisor=driver, extra='enable_annotations = ["default_memory"]',
    )  # fmt: skip
    crio = Crio(launcher, config, directory, rootfs)
    home = crio.places["<lib>"]
    home.mkdir()
    mount.mount(str(home), str(home), flags=mount.MS_BIND)
    mount.mount("", str(home), flags=mount.MS_PRIVATE)  # as its storage makes its home
    yield crio
    for container in list(crio.containers.values()):
        if container.id == container.pod:
            await crio.remove_pod(container)
    mount.unmount(str(home))
    mount.unmount(str(directory))
    directory.rmdir()


@pytest.fixture
def clean() -> Iterator[None]:
    """The machine afterwards is the machine before."""
    before = Footprint.take()
    yield
    assert left_behind(before) == []
