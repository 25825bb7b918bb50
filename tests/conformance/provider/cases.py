"""The providers that pass the suite, each with a cloud to try it on."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from kata_caa.providers.api import Provider
from kata_caa.providers.azure.client import Connection
from kata_caa.providers.azure.provider import open_provider
from kata_caa.providers.libvirt import binding
from kata_caa.providers.libvirt.config import LibvirtConfig
from kata_caa.providers.libvirt.provider import LibvirtProvider
from tests.arm import config as azure_config
from tests.arm import tls
from tests.arm.cloud import IMAGE
from tests.arm.server import Broken, Credential, Server, serve_aside
from tests.aws_cloud import aws_cloud
from tests.drivers.cloud import Calls, MemoryConfig, MemoryProvider, MemoryStore, Thing
from tests.drivers.file_cloud import FileStore
from tests.functional.qemu import stub
from tests.libvirt import GIVING_HOOK, NETWORK, POOL, Libvirtd, libvirtd
from tests.libvirt_calls import watched


class Cloud(Protocol):
    """A cloud to try a provider on.

    Attributes:
        calls: What is done around each call to the cloud's interface; maybe in another thread.
        missing_image: The name of an image that it does not have.
    """

    calls: Calls
    missing_image: str

    def open(self, *, image: str = "") -> AbstractAsyncContextManager[Provider]:
        """A provider, as of an adaptor that has just started; with an image that is configured."""

    def broken(self) -> Exception:
        """What a call raises when the cloud's interface breaks down."""

    def objects(self) -> Sequence[str]:
        """Whatever can be made for a machine and is there, whoever made it; not asked of the provider."""

    def stranger(self, name: str) -> AbstractContextManager[Sequence[str]]:
        """Make what a machine of that name would have, as another tool does it, without our tags; gives the objects."""


@dataclass
class MemoryCloud:
    """The one in memory."""

    store: MemoryStore
    missing_image: str = "image-2"

    @property
    def calls(self) -> Calls:
        return self.store.calls

    @calls.setter
    def calls(self, calls: Calls) -> None:
        self.store.calls = calls

    @asynccontextmanager
    async def open(self, *, image: str = "") -> AsyncIterator[Provider]:
        async with MemoryProvider.open(MemoryConfig(image or "image-1"), self.store) as provider:
            yield provider

    def broken(self) -> Exception:
        return OSError(104, "Connection reset by peer")

    def objects(self) -> Sequence[str]:
        return sorted(self.store.things)

    @contextmanager
    def stranger(self, name: str) -> Iterator[Sequence[str]]:
        self.store.things["instance-0"] = Thing("instance", "instance-0", name, "", (("Name", name),))
        yield ["instance-0"]
        del self.store.things["instance-0"]


@dataclass
class LibvirtCloud:
    """A libvirtd of the test's own, whose machines are given an address when they start."""

    daemon: Libvirtd
    kernel: Path
    calls: Calls
    missing_image: str = "other.qcow2"

    @property
    def config(self) -> LibvirtConfig:
        return LibvirtConfig(
            uri=self.daemon.uri, pool=POOL, network=NETWORK, domain_type="qemu", memory=64, vcpus=1, root_disk_size=1,
            kernel=str(self.kernel),
        )  # fmt: skip

    def open(self, *, image: str = "") -> AbstractAsyncContextManager[Provider]:
        config = replace(self.config, image=image) if image else self.config
        return LibvirtProvider(config, lambda uri: watched(binding.open_host(uri), self._around))

    @contextmanager
    def _around(self, call: str) -> Iterator[None]:
        self.calls.before(call)
        yield
        self.calls.after(call)

    def broken(self) -> Exception:
        import libvirt

        error = libvirt.libvirtError("broken")
        error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, "broken", 2, None, None, None, -1, -1)
        return error  # type: ignore[no-any-return] # it has no types

    def objects(self) -> Sequence[str]:
        self.daemon.virsh("pool-refresh", POOL)
        machines = self.daemon.virsh("list", "--all", "--name").split()
        return [*machines, *sorted(path.name for path in self.daemon.pool.iterdir())]

    @contextmanager
    def stranger(self, name: str) -> Iterator[Sequence[str]]:
        volume = f"{name}-root.qcow2"
        self.daemon.virsh("vol-create-as", POOL, volume, "1M", "--format", "qcow2")
        yield [volume]
        self.daemon.virsh("vol-delete", volume, POOL)


@contextmanager
def _memory(top: Path) -> Iterator[Cloud]:
    yield MemoryCloud(MemoryStore())


@dataclass
class FilesCloud(MemoryCloud):
    """The one in files."""

    store: FileStore

    def objects(self) -> Sequence[str]:
        return self.store.ids()

    @contextmanager
    def stranger(self, name: str) -> Iterator[Sequence[str]]:
        self.store.put(Thing("instance", "instance-0", name, "", (("Name", name),)))
        yield ["instance-0"]
        self.store.drop("instance-0")


@contextmanager
def _files(top: Path) -> Iterator[Cloud]:
    yield FilesCloud(FileStore(directory=top))


@contextmanager
def _libvirt(top: Path) -> Iterator[Cloud]:
    with libvirtd(hook=GIVING_HOOK) as daemon:
        yield LibvirtCloud(daemon, stub.write(top / "kernel", "up"), Calls())


@dataclass
class AzureCloud:
    """An Azure Resource Manager of ours; a call is a request, and one that breaks ends its connection."""

    arm: Server
    trust: ssl.SSLContext
    missing_image: str = IMAGE.replace("1.0.0", "9.9.9")

    @property
    def calls(self) -> Calls:
        return Calls(self.arm.before, self.arm.after)

    @calls.setter
    def calls(self, calls: Calls) -> None:
        self.arm.before, self.arm.after = calls.before, calls.after

    def open(self, *, image: str = "") -> AbstractAsyncContextManager[Provider]:
        config = replace(azure_config.CONFIG, endpoint=self.arm.url, image=image or IMAGE, use_public_ip=True)
        return open_provider(config, Connection(Credential(), self.trust, backoff=0.001))

    def broken(self) -> Exception:
        return Broken()

    def objects(self) -> Sequence[str]:
        return sorted(f"{kind}/{name}" for kind, trees in self.arm.cloud.resources.items() for name in trees)

    @contextmanager
    def stranger(self, name: str) -> Iterator[Sequence[str]]:
        parts = {"creationData": {"createOption": "Empty"}, "provisioningState": "Succeeded"}
        self.arm.cloud.add("virtualMachines", name, {"properties": {"provisioningState": "Succeeded"}})
        self.arm.cloud.add("disks", f"{name}-disk", {"properties": parts})
        yield [f"disks/{name}-disk", f"virtualMachines/{name}"]
        del self.arm.cloud.resources["virtualMachines"][name], self.arm.cloud.resources["disks"][f"{name}-disk"]


@contextmanager
def _azure(top: Path) -> Iterator[Cloud]:
    context, trust = tls.make(top)
    with serve_aside(context) as arm:
        yield AzureCloud(arm, trust)


@dataclass(frozen=True)
class Case:
    """A provider: its name, and a cloud for all of its tests, which they leave as it was."""

    name: str
    cloud: Callable[[Path], AbstractContextManager[Cloud]]
    marks: tuple[pytest.MarkDecorator, ...] = ()


CASES = {
    case.name: case
    for case in (
        Case("memory", _memory),
        Case("files", _files),
        Case("azure", _azure),
        Case("aws", lambda top: aws_cloud()),
        Case("libvirt", _libvirt, (pytest.mark.root, pytest.mark.qemu)),
    )
}
