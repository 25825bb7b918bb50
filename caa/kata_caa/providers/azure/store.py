"""A disk's way into Azure: a managed disk that is filled by HTTPS, and an image of it.

Ordinary machines boot a managed image. Confidential ones need an image version of a gallery whose definition has the
security type ConfidentialVmSupported; it is made of the managed image, which goes then. A storage account, as upstream
needs it, is not needed. Source: Azure's documentation, "Upload a VHD to Azure" (disks of the creation option Upload),
REST references of disks, images and gallery image versions, "Put Page".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from azure.core.exceptions import ResourceNotFoundError
from azure.mgmt.compute import models
from yarl import URL

from kata_caa.disk import BLOCK, RAW, Disk, Progress, read_block
from kata_caa.errors import DiskError, Fault, ProviderError, SettingError
from kata_caa.faults import Backoff, RetryPolicy, retrying
from kata_caa.providers.api import IMAGE_TAG, ImageStore, StoredImage
from kata_caa.providers.azure import vhd
from kata_caa.providers.azure.client import Arm, Connection, connect
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.errors import translated
from kata_caa.providers.azure.ids import MalformedId, ResourceId

log = logging.getLogger(__name__)

UPLOADS: Final = RetryPolicy(
    {
        Fault.TRANSIENT: Backoff(again=8, first=0.5, ceiling=16.0),
        Fault.THROTTLE: Backoff(again=20, first=1.0, ceiling=30.0),
    },
    total=600.0,
)
"""When a part of a disk is sent again."""

_CONNECTIONS: Final = 8
_TIMEOUT: Final = ClientTimeout(total=120.0, sock_connect=15.0)
_ACCESS: Final = 86400  # seconds that a disk may be written
_VERSION: Final = "2021-12-02"  # of the storage service's API
_THROTTLES: Final = frozenset({429, 503})


class AzureImages(ImageStore):
    """The resource group's images, or a gallery's; an asynchronous context manager of itself.

    Args:
        config: The settings.
        connection: How Azure is reached, where not as in production.
        policy: When a part of a disk is sent again.
    """

    setting = "AZURE_IMAGE_ID"

    def __init__(
        self, config: AzureConfig, connection: Connection | None = None, policy: RetryPolicy = UPLOADS
    ) -> None:
        self._config = config
        self._connection = connection or Connection()
        self._policy = policy
        self._group = config.resource_group
        self._definition = _definition(config)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AzureImages:
        self._arm: Arm = await self._stack.enter_async_context(connect(self._config, self._connection))
        self._http: ClientSession = await self._stack.enter_async_context(
            ClientSession(
                connector=TCPConnector(limit=_CONNECTIONS, ssl=self._connection.context or True),
                cookie_jar=DummyCookieJar(), timeout=_TIMEOUT, trust_env=True,
            )
        )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def upload(self, disk: Disk, stem: str, progress: Progress) -> StoredImage:
        """As the interface has it."""
        if disk.form != RAW:
            raise DiskError(f"{disk.path} is {disk.form}, and Azure takes raw disks; take podvm.raw beside it")
        if disk.machine != "x86_64":
            raise DiskError(f"images for {disk.machine} cannot be uploaded to Azure")
        for image in await self.stored():
            if image.digest == disk.digest:
                return image
        name = disk.named(stem)
        async with self._disk(disk, name) as id:
            await self._fill(id.rpartition("/")[2], disk, progress)
            if self._definition is None:
                return StoredImage(await self._make_image(disk, name, id), name, disk.digest)
            image_id = await self._make_image(disk, f"{name}-upload", id)
            try:
                return StoredImage(await self._make_version(disk, image_id), name, disk.digest)
            finally:
                await self._delete_image(f"{name}-upload")

    async def stored(self) -> Sequence[StoredImage]:
        """As the interface has it; images that failed or are being made are left out."""
        with translated("listing images"):
            found: list[models.Image | models.GalleryImageVersion]
            if (where := self._definition) is None:
                found = [each async for each in self._arm.compute.images.list_by_resource_group(self._group)]
            else:
                versions = self._arm.compute.gallery_image_versions
                found = [each async for each in versions.list_by_gallery_image(where.group, *where.names)]
        return [
            StoredImage(each.id or "", each.name or "", tags[IMAGE_TAG], True)
            for each in found
            if IMAGE_TAG in (tags := each.tags or {})
            and each.properties is not None
            and each.properties.provisioning_state == "Succeeded"
            and not (each.name or "").endswith("-upload")
        ]

    @asynccontextmanager
    async def _disk(self, disk: Disk, name: str) -> AsyncIterator[str]:
        """A managed disk to be filled, for as long as the context lasts; its id."""
        name = f"{name}-upload"
        body = models.Disk(
            location=self._config.region,
            tags=self._tags(disk),
            sku=models.DiskSku(name="Standard_LRS"),
            properties=models.DiskProperties(
                os_type="Linux",
                hyper_v_generation="V2",
                creation_data=models.CreationData(
                    create_option="Upload", upload_size_bytes=vhd.rounded(disk.size) + vhd.FOOTER
                ),
            ),
        )
        await self._delete_disk(name)  # what a killed upload left
        try:
            with translated(f"making the disk {name}"):
                poller = await self._arm.compute.disks.begin_create_or_update(self._group, name, body)
                made = await poller.result()
            yield made.id or ""
        finally:
            try:
                await self._delete_disk(name)
            except ProviderError as error:
                log.warning("the disk %s is left, delete it: %s", name, error)

    async def _delete_disk(self, name: str) -> None:
        disks = self._arm.compute.disks
        with translated(f"deleting the disk {name}"):
            try:
                await disks.get(self._group, name)
                await (await disks.begin_revoke_access(self._group, name)).result()
                await (await disks.begin_delete(self._group, name)).result()
            except ResourceNotFoundError:
                pass

    async def _delete_image(self, name: str) -> None:
        try:
            with translated(f"deleting the image {name}"):
                await (await self._arm.compute.images.begin_delete(self._group, name)).result()
        except ProviderError as error:
            log.warning("the image %s is left, delete it: %s", name, error)

    async def _fill(self, name: str, disk: Disk, progress: Progress) -> None:
        """Write a managed disk, and close it."""
        disks = self._arm.compute.disks
        with translated(f"opening the disk {name}"):
            access = models.GrantAccessData(access="Write", duration_in_seconds=_ACCESS)
            given = await (await disks.begin_grant_access(self._group, name, access)).result()
        if not given.access_sas:
            raise ProviderError(Fault.TRANSIENT, f"opening the disk {name}: Azure gave no address")
        url = URL(f"{given.access_sas}&comp=page", encoded=True)  # it has a signature: never shown, never quoted again
        size, sent = vhd.rounded(disk.size), 0
        numbers = iter(disk.blocks)
        file = await asyncio.to_thread(os.open, disk.path, os.O_RDONLY)

        async def send() -> None:
            nonlocal sent
            for number in numbers:
                try:
                    data = await asyncio.to_thread(read_block, file, number)
                except OSError as error:
                    raise DiskError(f"the disk cannot be read: {error}") from error
                await self._put(url, number * BLOCK, data)
                sent += BLOCK
                progress(min(sent, disk.payload), disk.payload)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_CONNECTIONS):
                    group.create_task(send(), name=f"send blocks {number}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            os.close(file)
        await self._put(url, size, vhd.footer(size, uuid.uuid5(uuid.NAMESPACE_OID, disk.digest)))
        with translated(f"closing the disk {name}"):
            await (await disks.begin_revoke_access(self._group, name)).result()

    async def _put(self, url: URL, offset: int, data: bytes) -> None:
        """Write pages."""
        headers = {
            "x-ms-page-write": "update",
            "x-ms-version": _VERSION,
            "Range": f"bytes={offset}-{offset + len(data) - 1}",
            "Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        }

        async def attempt() -> None:
            try:
                async with self._http.put(url, data=data, headers=headers) as answer:
                    status, code = answer.status, answer.headers.get("x-ms-error-code", "")
            except (ClientError, TimeoutError) as error:
                cause = f"the disk's address does not answer: {type(error).__name__}"
                raise ProviderError(Fault.TRANSIENT, cause) from None  # its text may have the address
            if status in _THROTTLES:
                raise ProviderError(Fault.THROTTLE, "the cloud asks for fewer calls at a time", code=code)
            if status != 201:
                fault = Fault.TRANSIENT if status >= 500 or status == 408 else Fault.FATAL
                raise ProviderError(fault, f"the cloud refuses with status {status}", code=code)

        await retrying(attempt, self._policy, stage=f"writing the disk at {offset}")

    async def _make_image(self, disk: Disk, name: str, source: str) -> str:
        body = models.Image(
            location=self._config.region,
            tags=self._tags(disk),
            properties=models.ImageProperties(
                hyper_v_generation="V2",
                storage_profile=models.ImageStorageProfile(
                    os_disk=models.ImageOSDisk(
                        os_type="Linux", os_state="Generalized", managed_disk=models.SubResource(id=source)
                    )
                ),
            ),
        )
        try:
            with translated(f"making the image {name}"):
                poller = await self._arm.compute.images.begin_create_or_update(self._group, name, body)
                return (await poller.result()).id or ""
        except BaseException:
            await self._delete_image(name)
            raise

    async def _make_version(self, disk: Disk, source: str) -> str:
        where, version = self._definition, version_of(disk)
        assert where is not None
        gallery, definition = where.names
        body = models.GalleryImageVersion(
            location=self._config.region,
            tags=self._tags(disk),
            properties=models.GalleryImageVersionProperties(
                publishing_profile=models.GalleryImageVersionPublishingProfile(
                    target_regions=[models.TargetRegion(name=self._config.region, regional_replica_count=1)]
                ),
                storage_profile=models.GalleryImageVersionStorageProfile(
                    source=models.GalleryArtifactVersionFullSource(id=source)
                ),
            ),
        )
        versions = self._arm.compute.gallery_image_versions
        try:
            with translated(f"making the image version {version}"):
                poller = await versions.begin_create_or_update(where.group, gallery, definition, version, body)
                return (await poller.result()).id or ""
        except BaseException:
            try:
                with translated(f"deleting the image version {version}"):
                    await (await versions.begin_delete(where.group, gallery, definition, version)).result()
            except ProviderError as error:
                log.warning("the image version %s is left, delete it: %s", version, error)
            raise

    def _tags(self, disk: Disk) -> dict[str, str]:
        return {**dict(self._config.tags), IMAGE_TAG: disk.digest}


def version_of(disk: Disk) -> str:
    """The number of a disk's image version: three numbers, which its digest gives."""
    return f"1.{int(disk.digest[:7], 16)}.{int(disk.digest[7:14], 16)}"


def _definition(config: AzureConfig) -> ResourceId | None:
    """The gallery's image definition that versions are made of, if one is set."""
    required = {
        "AZURE_SUBSCRIPTION_ID": config.subscription_id,
        "AZURE_REGION": config.region,
        "AZURE_RESOURCE_GROUP": config.resource_group,
    }
    if missing := [name for name, value in required.items() if not value]:
        raise SettingError(f"{', '.join(missing)}: must be set to upload images to Azure")
    if not config.gallery_image:
        if not config.disable_cvm:
            raise SettingError(
                "AZURE_GALLERY_IMAGE: confidential machines boot from a gallery's image versions alone; set the id of"
                " an image definition of the security type ConfidentialVmSupported, or DISABLECVM=true"
            )
        return None
    try:
        found = ResourceId.parse(config.gallery_image)
    except MalformedId as error:
        raise SettingError(f"AZURE_GALLERY_IMAGE: {error}") from error
    if found.kind.lower() != "galleries/images":
        raise SettingError(f"AZURE_GALLERY_IMAGE: {config.gallery_image!r} is not the id of an image definition")
    return found
