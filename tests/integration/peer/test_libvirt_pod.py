"""A peer pod in a real virtual machine: libvirtd boots the disk that `make podvms` builds, and all of it goes again.

Machines of either architecture run under emulation, where this host's own may not be faster.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests import registry as registries
from tests.adaptor import Adaptor
from tests.conftest import REPOSITORY
from tests.integration.peer.conftest import CONFIGURATION
from tests.integration.peer.pods import initdata, living, network
from tests.libvirt import BASE, NETWORK, POOL, Libvirtd, libvirtd
from tests.manager import Container, Manager
from tools import oci_image
from tools.oci_image import BUSYBOX

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

BUILT = REPOSITORY / "build" / "podvm"


@dataclass(frozen=True)
class Architecture:
    """What machines are.

    Attributes:
        name: As uname says.
        oci: As images say.
        busybox: A program for them, static.
    """

    name: str
    oci: str
    busybox: Path

    @property
    def disk(self) -> Path:
        """What they boot."""
        return BUILT / self.name / "podvm.qcow2"


X86_64 = Architecture("x86_64", "amd64", BUSYBOX)
S390X = Architecture("s390x", "s390x", BUILT / "s390x/cache/s390x/root/usr/bin/busybox")


@pytest.fixture(scope="module", params=[X86_64, S390X], ids=lambda each: each.name)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    """What this test's machines are."""
    found: Architecture = request.param
    assert found.disk.exists(), f"no {found.disk}: run `make podvms`"
    return found


@pytest.fixture(scope="module")
def host(architecture: Architecture) -> Iterator[Libvirtd]:
    """A libvirt host that has the disk."""
    with libvirtd() as daemon:
        daemon.virsh("vol-upload", "--pool", POOL, BASE, str(architecture.disk))
        yield daemon


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(host: Libvirtd, bridges: None) -> AsyncIterator[registries.Registry]:
    """A registry that machines reach, by TLS."""
    async with registries.serving(host.top / "registry", host=f"{host.subnet}.1", encrypted=True) as registry:
        yield registry


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def libvirt_adaptor(
    host: Libvirtd, served: registries.Registry, architecture: Architecture, short_tmp: Path
) -> AsyncIterator[Adaptor]:
    """The adaptor over that host."""
    adaptor = adaptor_over(host, served, architecture, short_tmp / architecture.name)
    await adaptor.start()
    yield adaptor
    await adaptor.end()
    print(adaptor.log.read_text())


@pytest_asyncio.fixture(loop_scope="session")
async def warm_adaptor(
    host: Libvirtd, served: registries.Registry, architecture: Architecture, short_tmp: Path
) -> AsyncIterator[Adaptor]:
    """Another one, which keeps a machine ready, until it is started anew without a pool; its machines encrypt."""
    directory = short_tmp / f"{architecture.name}-warm"
    adaptor = adaptor_over(host, served, architecture, directory, "-warm-pool", "default=1", "-enable-scratch-space")
    await adaptor.start()
    yield adaptor
    await adaptor.end()
    print(adaptor.log.read_text())


def adaptor_over(
    host: Libvirtd, served: registries.Registry, architecture: Architecture, directory: Path, *more: str
) -> Adaptor:
    """An adaptor, not started yet.

    Args:
        host: Where its machines run.
        served: Where they pull from.
        architecture: What they are.
        directory: For its files; its name is whose the machines are.
        more: Flags.
    """
    directory.mkdir(exist_ok=True)
    environ = {
        "LIBVIRT_URI": host.uri, "LIBVIRT_POOL": POOL, "LIBVIRT_NET": NETWORK, "LIBVIRT_VOL_NAME": BASE,
        "LIBVIRT_DOMAIN_TYPE": "qemu", "LIBVIRT_CPU": "2", "LIBVIRT_MEMORY": "1024", "LIBVIRT_ROOT_DISK_SIZE": "1",
        "LIBVIRT_ARCH": architecture.name, "INITDATA": initdata(served), "OWNER": directory.name,
    }  # fmt: skip
    flags = ["-firmware=", "-host-interface", host.bridge, "-log-level", "debug", "-proxy-timeout", "120s"]
    return Adaptor(directory, ["libvirt", *flags, *more], environ)


def manager_of(adaptor: Adaptor, launcher: Path, rootfs: Path) -> Manager:
    """A manager of pods that run there."""
    directory = adaptor.socket.parent
    path = directory / "remote.toml"
    path.write_text(CONFIGURATION.format(socket=adaptor.socket).replace("timeout = 60", "timeout = 180"))
    return Manager(launcher, directory / "manager", path, rootfs)


@pytest.fixture(scope="module")
def files(architecture: Architecture, short_tmp: Path) -> Path:
    """A root file system for that architecture."""
    path = short_tmp / f"rootfs-{architecture.name}"
    path.mkdir()
    oci_image.rootfs(path)
    (path / "bin/busybox").write_bytes(architecture.busybox.read_bytes())  # in place: all applets are links to it
    return path


def left(host: Libvirtd) -> list[str]:
    """What libvirt has of machines, and the addresses that its network has leased."""
    return [*host.virsh("list", "--all", "--name").split(), *host.virsh("vol-list", POOL).split(), *leases(host)]


def leases(host: Libvirtd) -> list[str]:
    """The addresses that libvirt's network has leased."""
    return sorted(row.split()[4] for row in host.virsh("net-dhcp-leases", NETWORK).splitlines() if row)


async def write(app: Container) -> bytes:
    """Have a container write what nobody else does, down to its machine's disk; gives that."""
    words = secrets.token_hex(32)
    code, said = await app.run("sh", "-c", f"echo {words} > /written && sync", timeout=60)
    assert code == 0, said
    return words.encode()


def on_disk(host: Libvirtd, written: bytes) -> list[str]:
    """The volumes in which that stands as it was written; none is packed."""
    return [path.name for path in host.pool.iterdir() if written in path.read_bytes()]


@pytest.mark.usefixtures("clean")
async def test_a_peer_pod_runs_in_a_domain_of_libvirt_and_nothing_of_it_stays(
    launcher: Path,
    rootfs: Path,
    host: Libvirtd,
    served: registries.Registry,
    files: Path,
    libvirt_adaptor: Adaptor,
    architecture: Architecture,
) -> None:
    machines = manager_of(libvirt_adaptor, launcher, rootfs)
    image = await served.push("lib/busybox:1", registries.layer_of(files), architecture=architecture.oci)
    before = left(host)
    with network() as net, network() as other:
        async with living(machines, net, other, image, architecture.name) as app:
            assert len(left(host)) > len(before)
            assert set(leases(host)) - set(before)
            assert len(on_disk(host, await write(app))) == 1
    async with asyncio.timeout(60):
        while any(libvirt_adaptor.pods.iterdir()):  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.2)
    assert left(host) == before


@pytest.mark.usefixtures("clean")
async def test_a_peer_pod_runs_in_a_domain_that_waited_and_encrypts_and_the_next_one_waits_for_another(
    launcher: Path,
    rootfs: Path,
    host: Libvirtd,
    served: registries.Registry,
    files: Path,
    warm_adaptor: Adaptor,
    architecture: Architecture,
) -> None:
    image = await served.push("lib/busybox:1", registries.layer_of(files), architecture=architecture.oci)
    (waited,) = await waiting(warm_adaptor)
    with network() as net, network() as other:
        async with living(manager_of(warm_adaptor, launcher, rootfs), net, other, image, architecture.name) as app:
            record = json.loads((warm_adaptor.pods / "peer" / "pod.json").read_text())
            assert record["machine"] == waited
            code, said = await app.run("sh", "-c", "ls /sys/fs/ext4 && cat /sys/block/dm-0/dm/uuid && cat /proc/crypto")
            assert code == 0, said
            assert said.startswith(b"dm-0\nfeatures\nCRYPT-PLAIN-kata-images\n")
            assert re.search(rb"name +: xts\(aes\)\n", said)
            assert on_disk(host, await write(app)) == []
            assert await waiting(warm_adaptor, but=waited)
    emptying = adaptor_over(host, served, architecture, warm_adaptor.socket.parent)
    await warm_adaptor.end()
    await emptying.start()
    async with asyncio.timeout(60):
        while "podvm-p" in "".join(left(host)):  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.2)
    await emptying.end()


async def waiting(adaptor: Adaptor, but: str = "") -> list[str]:
    """Wait until machines wait for a pod; their ids."""
    async with asyncio.timeout(120):
        while True:
            records = [json.loads(path.read_text()) for path in adaptor.socket.parent.glob("pool/*.json")]
            if found := [each["id"] for each in records if each["phase"] == "waiting" and each["id"] != but]:
                return found
            await asyncio.sleep(0.2)
