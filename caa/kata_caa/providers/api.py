"""What a cloud must offer, and the frozen values it is given. A new cloud is one module and one entry point.

Providers are found by entry point (group `kata_caa.providers`), named as the first word of the command line. They
pass one conformance suite (tests/conformance/provider).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from kata_caa.disk import Disk, Progress

OWNER_TAG = "kata-py-owner"  # the node whose adaptor made it
SANDBOX_TAG = "kata-py-sandbox"
POD_TAG = "kata-py-pod"
NAMESPACE_TAG = "kata-py-namespace"
IMAGE_TAG = "kata-py-image"  # SHA-256 of the file that an image was uploaded from


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """How large a machine is wanted, as the pod's annotations say; zero and empty leave it to the provider.

    Attributes:
        instance_type: A type (AWS), a size (Azure); libvirt has none.
        vcpus: Virtual processors.
        memory: MiB.
        gpus: Graphics processors.
        image: An AMI, image id or volume, in the place of the configured one.
        multi_nic: Whether the machine gets a second interface, for the pod's external traffic.
    """

    instance_type: str = ""
    vcpus: int = 0
    memory: int = 0
    gpus: int = 0
    image: str = ""
    multi_nic: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Whose machine it is: enough to find all of it in the cloud, though nothing else is known of it.

    Attributes:
        sandbox_id: The sandbox's id, in `SANDBOX_TAG` of all that is made for it; empty for a machine that upstream's
            adaptor made, of which the cloud's id is all that is known.
        name: The machine's name, `podvm-<pod>-<first 8 of the sandbox's id>`.
        instance_id: The cloud's id of the machine; empty where it is not known (yet).
    """

    sandbox_id: str
    name: str
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """A machine that is wanted.

    Attributes:
        target: Whose it is.
        token: The same for every try at the same machine; the cloud makes one machine of it at most.
        user_data: What the machine reads when it boots, a cloud-config.
        spec: How large it is.
        tags: What is attached to all that is made, among them the owner's and the sandbox's.
    """

    target: Target
    token: str
    user_data: str = field(repr=False)  # it holds a private key
    spec: InstanceSpec = InstanceSpec()
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine that was made.

    Attributes:
        id: The cloud's id of it.
        addresses: Where the node reaches it, the first one for the agent; the second one carries the pod's traffic
            where there is a second interface.
        instance_type: What was taken, where a choice was.
    """

    id: str
    addresses: tuple[str, ...]
    instance_type: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """An object in the cloud that an adaptor of this owner made.

    Attributes:
        kind: What it is, in the cloud's word: `instance`, `network-interface`, `volume`, `domain` …
        id: The cloud's id of it.
        sandbox_id: Whose it is.
        name: Its name there; may be empty.
    """

    kind: str
    id: str
    sandbox_id: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check looked at.

    Attributes:
        subject: What was looked at: `image ami-0abc`, `subnet`, `quota of vCPUs`.
        passed: Whether a pod can start with it, as far as is known.
        detail: What was seen, and if it did not pass, what to do.
        seen: Whether it could be looked at; what is unseen may be well, and keeps nothing from starting.
    """

    subject: str
    passed: bool
    detail: str = ""
    seen: bool = True

    @property
    def verdict(self) -> str:
        """In a word: ok, MISSING, or UNSEEN for what could not be looked at."""
        if not self.passed:
            return "MISSING"
        return "ok" if self.seen else "UNSEEN"


class Provider(Protocol):
    """A cloud. Any number of calls may be under way at a time.

    Every object that `create` makes bears the request's tags (or what the cloud has in their place) from its first
    moment, so that `owned` and `delete` find it whatever is interrupted.
    """

    async def create(self, request: InstanceRequest) -> Instance:
        """Make a machine and start it; returns when its addresses are known. Again with the same token is safe.

        Cancelled or failed, it may leave objects behind: whoever called deletes the target then.

        Raises:
            ProviderError: It cannot be made.
        """

    async def delete(self, target: Target) -> None:
        """Delete all that was made for a sandbox; returns when the cloud confirms it. What is not there is no error.

        Raises:
            ProviderError: Something is still there, or it cannot be told what is to be deleted.
        """

    async def owned(self, owner: str) -> Sequence[Owned]:
        """All objects, of every kind, that bear the owner's tag.

        Raises:
            ProviderError: They cannot be listed.
        """

    async def check(self) -> Sequence[Finding]:
        """Look, without changing anything, whether machines can be made: image, network, permissions, quota."""


@runtime_checkable
class Resolves(Protocol):
    """What a provider may be besides: able to say what a pod's wishes lead to, so that it may have a machine that
    waits already. Without it, machines are for pods whose wishes are the very same."""

    async def resolve(self, spec: InstanceSpec) -> InstanceSpec:
        """The machine that `create` would try first, in full: two wishes that lead to the same one are alike.

        Raises:
            ProviderError: No machine is large enough, or the cloud does not tell.
        """


ConfigT = TypeVar("ConfigT", contravariant=True)


class ProviderFactory(Protocol[ConfigT]):
    """What an entry point names.

    Attributes:
        config: The dataclass of its settings (`kata_caa.settings.setting`).
    """

    config: type

    def __call__(self, config: ConfigT) -> AbstractAsyncContextManager[Provider]:
        """Open the cloud: what the configuration names is looked up; leaving closes connections.

        Raises:
            ProviderError: The cloud cannot be reached, or does not have what is configured.
        """


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that was uploaded.

    Attributes:
        value: What the provider's setting of the image is to be.
        name: Its name in the cloud.
        digest: SHA-256 of the file, as far as the cloud keeps it; in hexadecimal digits.
        found: Whether it was there already.
    """

    value: str
    name: str
    digest: str
    found: bool = False


class ImageStore(Protocol):
    """Where a cloud keeps images.

    Attributes:
        setting: The environment variable that names the image of pod VMs.
    """

    setting: str

    async def upload(self, disk: Disk, stem: str, progress: Progress) -> StoredImage:
        """Upload a disk, or find that it was uploaded before. Failed or cancelled, it takes back what it has made.

        Args:
            disk: What is uploaded.
            stem: What the image's name begins with.
            progress: Told on the event loop how many bytes went, of how many.

        Raises:
            ProviderError: The cloud refuses.
            DiskError: The cloud takes no such disk.
        """

    async def stored(self) -> Sequence[StoredImage]:
        """The images that were uploaded so.

        Raises:
            ProviderError: They cannot be listed.
        """


@runtime_checkable
class UploadsImages(Protocol):
    """What a factory's product may be besides: the way to the cloud's images, for which machines need not be set."""

    def images(self) -> AbstractAsyncContextManager[ImageStore]:
        """Open it; leaving closes connections.

        Raises:
            ProviderError: The cloud cannot be reached.
            SettingError: A setting that it needs is missing.
        """
