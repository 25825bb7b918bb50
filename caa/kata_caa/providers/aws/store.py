"""A disk's way into EC2: a snapshot by the EBS direct API, and an AMI of it.

Upstream puts the disk into S3 and has it imported, for which a bucket and the role `vmimport` are needed; this needs
neither, and sends only what is not zero. The identity needs ebs:StartSnapshot, PutSnapshotBlock and CompleteSnapshot,
and ec2:RegisterImage, CreateTags, DescribeImages, DescribeSnapshots and DeleteSnapshot.

Source: Amazon EBS User Guide, "EBS direct APIs"; EC2's RegisterImage.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final

from kata_caa.disk import BLOCK, RAW, Disk, Progress, read_block
from kata_caa.errors import DiskError, Fault, ProviderError
from kata_caa.faults import Backoff, RetryPolicy
from kata_caa.providers.api import IMAGE_TAG, ImageStore, StoredImage
from kata_caa.providers.aws import metadata
from kata_caa.providers.aws.client import Ec2, open_ec2, settings_of_calls
from kata_caa.providers.aws.config import AwsConfig

if TYPE_CHECKING:
    from mypy_boto3_ebs.client import EBSClient
    from mypy_boto3_ec2.literals import ArchitectureValuesType
    from mypy_boto3_ec2.type_defs import ImageTypeDef, RegisterImageRequestTypeDef, TagTypeDef

logger = logging.getLogger(__name__)

ROOT_DEVICE: Final = "/dev/xvda"
UPLOADS: Final = RetryPolicy(
    {
        Fault.TRANSIENT: Backoff(again=12, first=0.5, ceiling=16.0),
        Fault.THROTTLE: Backoff(again=20, first=1.0, ceiling=30.0),
    },
    total=600.0,
)
"""When a call of an upload is tried again: a new snapshot may take minutes until it can be written."""

_ARCHITECTURES: Final[dict[str, ArchitectureValuesType]] = {"x86_64": "x86_64", "aarch64": "arm64"}
_GIB: Final = 1 << 30
_IDLE: Final = 10  # minutes without a block, until EBS gives a snapshot up; the least that there is
_SEAL_TIMEOUT: Final = 1800.0  # seconds; upstream's for its import
_REGISTER_TIMEOUT: Final = 600.0  # seconds
_UNSEEN: Final = frozenset({"InvalidSnapshot.NotFound", "InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"})


class AwsImages(ImageStore):
    """The account's AMIs of a region; an asynchronous context manager of itself.

    Args:
        config: What is set.
        fetch: Reads the node's metadata, for the region if it is not set.
        waits: The pauses from question to question whether something is ready.
        policy: When a call is tried again.
    """

    setting = "PODVM_AMI_ID"

    def __init__(
        self,
        config: AwsConfig,
        fetch: metadata.Fetch,
        waits: Callable[[], Iterator[float]],
        policy: RetryPolicy = UPLOADS,
    ) -> None:
        self._config = config
        self._fetch = fetch
        self._waits = waits
        self._policy = policy
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AwsImages:
        config = self._config if self._config.region else await metadata.complete(self._config, self._fetch)
        self._ec2: Ec2 = await self._stack.enter_async_context(open_ec2(config, self._policy))
        self._ebs: EBSClient = await self._ec2.call(
            "opening EBS", lambda: self._ec2.session.client("ebs", config=settings_of_calls(config.connections))
        )
        self._stack.callback(self._ebs.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def upload(self, disk: Disk, stem: str, progress: Progress) -> StoredImage:
        """As the interface has it. A snapshot that is complete stays if no AMI can be made of it, for the next try."""
        architecture = _ARCHITECTURES.get(disk.machine)
        if architecture is None:
            raise DiskError(f"EC2 has no machines of {disk.machine}")
        if disk.form != RAW:
            raise DiskError(f"{disk.path} is {disk.form}, and EC2 takes raw disks; take podvm.raw beside it")
        for image in await self._listed(disk.digest):
            if image.get("Architecture") == architecture:
                await self._available(image["ImageId"])
                return _stored(image)
        snapshot = await self._former(disk)
        if not snapshot:
            async with self._new_snapshot(disk, stem) as snapshot:
                await self._fill(snapshot, disk, progress)
        try:
            await self._sealed(snapshot)
            id = await self._register(disk, stem, snapshot, architecture)
            await self._available(id)
        except ProviderError as error:
            cause = f"{error.cause}; the snapshot {snapshot} is kept, and the next upload of the disk goes on from it"
            raise ProviderError(error.fault, cause, code=error.code, hint=error.hint) from error
        except asyncio.CancelledError:
            logger.warning("the snapshot %s is kept, and the next upload of the disk goes on from it", snapshot)
            raise
        return StoredImage(id, disk.named(stem), disk.digest)

    async def stored(self) -> Sequence[StoredImage]:
        """As the interface has it."""
        return [_stored(image) for image in await self._listed("*")]

    async def _listed(self, digest: str) -> list[ImageTypeDef]:
        answer = await self._ec2.call(
            "looking for the image",
            lambda: self._ec2.api.describe_images(
                Owners=["self"], Filters=[{"Name": f"tag:{IMAGE_TAG}", "Values": [digest]}]
            ),
        )
        return [image for image in answer["Images"] if image.get("State") in ("available", "pending")]

    async def _former(self, disk: Disk) -> str:
        """A complete snapshot of the disk, if there is one; what EBS gave up is deleted."""
        answer = await self._ec2.call(
            "looking for the snapshot",
            lambda: self._ec2.api.describe_snapshots(
                OwnerIds=["self"], Filters=[{"Name": f"tag:{IMAGE_TAG}", "Values": [disk.digest]}]
            ),
        )
        found = ""
        for each in answer["Snapshots"]:
            if each["State"] == "completed":
                found = each["SnapshotId"]
            elif each["State"] == "error":
                await self._delete(each["SnapshotId"])
        return found

    @asynccontextmanager
    async def _new_snapshot(self, disk: Disk, stem: str) -> AsyncIterator[str]:
        """A snapshot to be filled, which is deleted again if that fails."""
        token, made = str(uuid.uuid4()), set[str]()

        def start() -> str:
            id = self._ebs.start_snapshot(
                VolumeSize=-(-disk.size // _GIB), Tags=self._tags(disk, stem), Description=disk.named(stem),
                ClientToken=token, Timeout=_IDLE,
            )["SnapshotId"]  # fmt: skip
            made.add(id)
            return id

        try:
            yield await self._ec2.call("starting the snapshot", start, group=token)
        except BaseException:
            await self._ec2.quiet(token)  # a start whose caller was cancelled
            for id in made:
                await self._delete(id)
            raise

    async def _delete(self, snapshot: str) -> None:
        try:
            await self._ec2.remove(
                f"deleting the snapshot {snapshot}", lambda: self._ec2.api.delete_snapshot(SnapshotId=snapshot)
            )
        except ProviderError as error:
            if error.code not in _UNSEEN:
                logger.warning("the snapshot %s is left, delete it: %s", snapshot, error)

    async def _fill(self, snapshot: str, disk: Disk, progress: Progress) -> None:
        """Send the blocks, and seal the snapshot."""
        sums: dict[int, bytes] = {}
        numbers = iter(disk.blocks)
        file = await asyncio.to_thread(os.open, disk.path, os.O_RDONLY)

        async def send() -> None:
            for number in numbers:
                sums[number] = await self._put(snapshot, file, number)
                progress(min(len(sums) * BLOCK, disk.payload), disk.payload)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(max(1, self._config.connections)):
                    group.create_task(send(), name=f"send blocks {number}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._ec2.quiet(snapshot)
            os.close(file)
        whole = hashlib.sha256(b"".join(sums[number] for number in disk.blocks)).digest()
        await self._seal(snapshot, len(sums), whole)

    async def _put(self, snapshot: str, file: int, number: int) -> bytes:
        """Send a block; gives its digest."""

        def put() -> bytes:
            data = read_block(file, number)
            digest = hashlib.sha256(data).digest()
            self._ebs.put_snapshot_block(
                SnapshotId=snapshot, BlockIndex=number, BlockData=data, DataLength=BLOCK,
                Checksum=base64.b64encode(digest).decode(), ChecksumAlgorithm="SHA256",
            )  # fmt: skip
            return digest

        async def attempt() -> bytes:
            try:
                return await self._ec2.once(put, group=snapshot)
            except ProviderError as error:
                if error.code != "ResourceNotFoundException":
                    raise
                cause = "the snapshot is not there, or not to be seen yet"
                raise ProviderError(Fault.TRANSIENT, cause, code=error.code) from error
            except OSError as error:
                raise DiskError(f"the disk cannot be read: {error}") from error

        return await self._ec2.retrying(f"sending block {number} of the disk", attempt)

    async def _seal(self, snapshot: str, count: int, whole: bytes) -> None:
        """Say that all is sent, with the digest of the blocks' digests, which EBS compares."""
        try:
            await self._ec2.call(
                f"completing the snapshot {snapshot}",
                lambda: self._ebs.complete_snapshot(
                    SnapshotId=snapshot, ChangedBlocksCount=count, Checksum=base64.b64encode(whole).decode(),
                    ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR",
                ),
            )  # fmt: skip
        except ProviderError:
            if await self._state(snapshot) != "completed":  # as it is if only the first answer was lost
                raise

    async def _state(self, snapshot: str) -> str:
        answer = await self._ec2.call(
            f"looking at the snapshot {snapshot}",
            lambda: self._ec2.api.describe_snapshots(SnapshotIds=[snapshot]),
        )
        return answer["Snapshots"][0]["State"]

    async def _sealed(self, snapshot: str) -> None:
        await self._until(
            f"the snapshot {snapshot}", partial(self._state, snapshot), "completed", ("pending",), _SEAL_TIMEOUT
        )

    async def _available(self, image: str) -> None:
        async def state() -> str:
            answer = await self._ec2.call(
                f"looking at the image {image}", lambda: self._ec2.api.describe_images(ImageIds=[image])
            )
            return answer["Images"][0].get("State", "available") if answer["Images"] else "pending"

        await self._until(f"the image {image}", state, "available", ("pending",), _REGISTER_TIMEOUT)

    async def _until(
        self, what: str, state: Callable[[], Awaitable[str]], wanted: str, passing: Sequence[str], timeout: float
    ) -> None:
        seen = "not to be seen"
        try:
            async with asyncio.timeout(timeout):
                for wait in self._waits():
                    try:
                        seen = await state()
                    except ProviderError as error:
                        if error.code not in _UNSEEN:
                            raise
                    else:
                        if seen == wanted:
                            return
                        if seen not in passing:
                            raise ProviderError(Fault.FATAL, f"{what} is in the state {seen}", code=seen)
                    await asyncio.sleep(wait)
        except TimeoutError as error:
            raise ProviderError(
                Fault.TRANSIENT, f"{what} is still {seen} after {timeout:g} s", hint="upload it again later"
            ) from error

    async def _register(self, disk: Disk, stem: str, snapshot: str, architecture: ArchitectureValuesType) -> str:
        name = disk.named(stem)
        request: RegisterImageRequestTypeDef = {
            "Name": name,
            "Description": f"pod VM, sha256 {disk.digest}",
            "Architecture": architecture,
            "RootDeviceName": ROOT_DEVICE,
            "BlockDeviceMappings": [
                {
                    "DeviceName": ROOT_DEVICE,
                    "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True},
                }
            ],
            "VirtualizationType": "hvm",
            "EnaSupport": True,
            "BootMode": "uefi",
            "TagSpecifications": [{"ResourceType": "image", "Tags": self._tags(disk, stem)}],
        }
        if architecture == "x86_64":
            request["TpmSupport"] = "v2.0"
        try:
            answer = await self._ec2.call(
                f"registering the image {name}", lambda: self._ec2.api.register_image(**request)
            )
            return answer["ImageId"]
        except ProviderError as error:
            if error.code == "InvalidAMIName.Duplicate":
                for image in await self._listed(disk.digest):  # registered, but the answer was lost
                    if image.get("Name") == name:
                        return image["ImageId"]
            raise

    def _tags(self, disk: Disk, stem: str) -> list[TagTypeDef]:
        tags = {"Name": disk.named(stem), **dict(self._config.tags), IMAGE_TAG: disk.digest}
        return [{"Key": key, "Value": value} for key, value in tags.items()]


def _stored(image: ImageTypeDef) -> StoredImage:
    tags = {tag["Key"]: tag["Value"] for tag in image.get("Tags", [])}
    return StoredImage(image["ImageId"], image.get("Name", ""), tags.get(IMAGE_TAG, ""), True)
