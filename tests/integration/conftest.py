"""Real shims under both drivers: namespaces of the host, and QEMU.

One running sandbox per driver is shared by all tests that only exec into it; what ends a sandbox makes its own.
"""

from __future__ import annotations

import itertools
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_py.resource import mount
from tests.conftest import REPOSITORY
from tests.crio import Crio
from tests.manager import Container, Manager
from tools import configuration, oci_image
from tools.footprint import SHARED_PARENTS, Footprint

DRIVERS = [pytest.param("namespace", id="namespace"), pytest.param("qemu", id="qemu", marks=pytest.mark.qemu)]
ON_NAMESPACES = pytest.mark.parametrize("driver", DRIVERS[:1], indirect=True)
ON_QEMU = pytest.mark.parametrize("driver", DRIVERS[1:], indirect=True)

# Like an installed launcher, plus the drivers that only tests have.
_LAUNCHER = """\
#!{python} -I
import sys
sys.path[:0] = [{repository!r}, {drivers!r}]
from kata_py.shim.command import main
sys.exit(main())
"""

_crios = itertools.count(1)
_SHARED_PARENTS = frozenset(f"run: {path}" for path in SHARED_PARENTS)


def left_behind(before: Footprint) -> list[str]:
    """What a test left on the machine since then."""
    return [line for line in Footprint.take().added_since(before) if line not in _SHARED_PARENTS]


@pytest.fixture(scope="session")
def launcher(short_tmp: Path) -> Path:
    """The shim's program, able to find the namespace driver."""
    path = short_tmp / "bin" / "containerd-shim-kata-v2"
    path.parent.mkdir()
    drivers = REPOSITORY / "tests" / "drivers"
    path.write_text(_LAUNCHER.format(python=sys.executable, repository=str(REPOSITORY), drivers=str(drivers)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


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
    yield crio
    for container in list(crio.containers.values()):
        if container.id == container.pod:
            await crio.remove_pod(container)
    mount.unmount(str(directory))
    directory.rmdir()


@pytest.fixture
def clean() -> Iterator[None]:
    """The machine afterwards is the machine before."""
    before = Footprint.take()
    yield
    assert left_behind(before) == []
