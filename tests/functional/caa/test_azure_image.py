"""A disk's way into Azure, against an ARM of ours whose disks are filled page by page over HTTPS."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from kata_caa import command
from kata_caa.disk import BLOCK, Disk, examine
from kata_caa.errors import DiskError, Fault, ProviderError, SettingError
from kata_caa.faults import Backoff, RetryPolicy
from kata_caa.providers.api import IMAGE_TAG, StoredImage, UploadsImages
from kata_caa.providers.azure import store
from kata_caa.providers.azure.client import Connection
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.factory import Azure
from kata_caa.providers.azure.store import AzureImages, version_of
from tests.arm import tls
from tests.arm.cloud import GROUP, REGION, SUBSCRIPTION, Refusal
from tests.arm.config import CONFIG
from tests.arm.images import DEFINITION, SIGNATURE
from tests.arm.server import Credential, Server, serve, serve_aside

PLAIN = dataclasses.replace(CONFIG, disable_cvm=True, subnet="", image="")
CONFIDENTIAL = dataclasses.replace(PLAIN, disable_cvm=False, gallery_image=DEFINITION)
FAST = RetryPolicy({fault: Backoff(again=3) for fault in (Fault.TRANSIENT, Fault.THROTTLE)})
Opened = Callable[..., AbstractAsyncContextManager[AzureImages]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls.make(tmp_path_factory.mktemp("arm"))


@pytest.fixture
async def arm(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Server]:
    async with serve(certificates[0]) as server:
        yield server
        assert server.cloud.is_empty(), server.cloud.names()


@pytest.fixture
def opened(arm: Server, certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> Opened:
    @asynccontextmanager
    async def opened(config: AzureConfig = PLAIN) -> AsyncIterator[AzureImages]:
        connection = Connection(Credential(), certificates[1], backoff=0.001)
        async with AzureImages(dataclasses.replace(config, endpoint=arm.url), connection, FAST) as images:
            yield images

    return opened


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk of its own, of seven blocks of which four have something."""
    path = tmp_path / "podvm.raw"
    with path.open("wb") as file:
        file.truncate(6 * BLOCK + 512)
        for offset in (0, 3 * BLOCK + 7, 4 * BLOCK, 6 * BLOCK + 500):
            file.seek(offset)
            file.write(os.urandom(8))
    return examine(path)


async def upload(images: AzureImages, disk: Disk) -> StoredImage:
    return await images.upload(disk, "podvm", lambda done, total: None)


async def test_a_disk_becomes_a_managed_image(arm: Server, opened: Opened, disk: Disk) -> None:
    told: list[tuple[int, int]] = []
    async with opened() as images:
        image = await images.upload(disk, "podvm", lambda done, total: told.append((done, total)))
    assert image.value.endswith(f"/providers/Microsoft.Compute/images/podvm-{disk.digest[:12]}")
    content = arm.images.contents[image.value.lower()]
    assert content == disk.path.read_bytes().ljust(8 * BLOCK, b"\0")
    made = arm.images.images[image.name]
    assert made["tags"] == {"team": "blue", IMAGE_TAG: disk.digest}
    assert made["properties"]["hyperVGeneration"] == "V2"
    assert told[-1] == (disk.payload, disk.payload)
    assert sum(path.startswith("/pages/") for _, path in arm.calls) == 5


async def test_a_disk_becomes_a_version_of_a_gallerys_image_for_confidential_machines(
    arm: Server, opened: Opened, disk: Disk
) -> None:
    async with opened(CONFIDENTIAL) as images:
        image = await upload(images, disk)
        assert [each.value for each in await images.stored()] == [image.value]
    assert image.value == f"{DEFINITION}/versions/{version_of(disk)}"
    assert arm.images.contents[image.value.lower()].startswith(disk.path.read_bytes())
    assert arm.images.images == {}


@pytest.mark.parametrize("config", [PLAIN, CONFIDENTIAL], ids=["plain", "confidential"])
async def test_the_same_disk_is_uploaded_once(arm: Server, opened: Opened, disk: Disk, config: AzureConfig) -> None:
    async with opened(config) as images:
        first = await upload(images, disk)
        arm.calls.clear()
        again = await upload(images, disk)
    assert (first.value, first.found, again.found) == (again.value, False, True)
    assert {method for method, _ in arm.calls} == {"GET"}


async def test_pages_that_fail_for_a_moment_are_written_again(arm: Server, opened: Opened, disk: Disk) -> None:
    arm.images.refusals += [503, 500, 429]
    async with opened() as images:
        image = await upload(images, disk)
    assert arm.images.contents[image.value.lower()].startswith(disk.path.read_bytes())


async def test_an_upload_that_fails_leaves_no_disk_and_tells_no_signature(
    arm: Server, opened: Opened, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    arm.images.refusals += [403] * 10
    async with opened() as images:
        with pytest.raises(ProviderError, match="writing the disk at") as caught:
            await upload(images, disk)
    assert caught.value.fault is Fault.FATAL
    assert SIGNATURE not in str(caught.value) + caplog.text
    assert arm.cloud.is_empty()


@pytest.mark.parametrize("config", [PLAIN, CONFIDENTIAL], ids=["plain", "confidential"])
async def test_a_disk_becomes_an_image_where_a_location_alone_tells_how_far_it_is(
    arm: Server, opened: Opened, disk: Disk, config: AzureConfig
) -> None:
    arm.by_location = True
    async with opened(config) as images:
        image = await upload(images, disk)
    assert arm.images.contents[image.value.lower()].startswith(disk.path.read_bytes())
    assert not any("/operations/" in path for _, path in arm.calls)


@pytest.mark.parametrize("by_location", [False, True])
@pytest.mark.parametrize("config", [PLAIN, CONFIDENTIAL], ids=["plain", "confidential"])
async def test_an_image_that_cannot_be_made_leaves_nothing(
    arm: Server, opened: Opened, disk: Disk, config: AzureConfig, by_location: bool
) -> None:
    arm.by_location = by_location
    arm.images.failure = Refusal(409, "InternalOperationError", "sorry")
    async with opened(config) as images:
        with pytest.raises(ProviderError, match="making the image"):
            await upload(images, disk)
    assert (arm.images.images, arm.images.versions) == ({}, {})


async def test_an_image_version_that_cannot_be_made_leaves_nothing(arm: Server, opened: Opened, disk: Disk) -> None:
    def before(call: str) -> None:
        if call.startswith("PUT ") and "/versions/" in call:
            arm.images.failure = Refusal(409, "InternalOperationError", "sorry")

    arm.before = before
    async with opened(CONFIDENTIAL) as images:
        with pytest.raises(ProviderError, match="making the image version"):
            await upload(images, disk)
    assert (arm.images.images, arm.images.versions) == ({}, {})


@pytest.mark.parametrize("at", ["PUT .*/disks/", "beginGetAccess", "PUT /pages/", "PUT .*/images/podvm-"])
async def test_an_upload_that_is_cancelled_leaves_nothing(arm: Server, opened: Opened, disk: Disk, at: str) -> None:
    reached = asyncio.Event()
    method, _, path = at.rpartition(" ")

    def before(call: str) -> None:
        if call.startswith(method) and path.removeprefix(".*") in call:
            reached.set()

    arm.before = before
    async with opened() as images:
        uploading = asyncio.create_task(upload(images, disk))
        async with asyncio.timeout(10):
            await reached.wait()
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert arm.images.images == {}


async def test_what_a_killed_upload_left_is_replaced(arm: Server, opened: Opened, disk: Disk) -> None:
    left = {"createOption": "Upload", "uploadSizeBytes": (1 << 20) + 512}
    arm.images.put_disk(f"podvm-{disk.digest[:12]}-upload", {"properties": {"creationData": left}})
    async with opened() as images:
        image = await upload(images, disk)
    assert arm.images.contents[image.value.lower()].startswith(disk.path.read_bytes())


@pytest.mark.parametrize(("change", "cause"), [({"form": "qcow2"}, "raw disks"), ({"machine": "s390x"}, "s390x")])
async def test_what_azure_cannot_have_is_refused(
    arm: Server, opened: Opened, disk: Disk, change: dict[str, str], cause: str
) -> None:
    async with opened() as images:
        with pytest.raises(DiskError, match=cause):
            await upload(images, dataclasses.replace(disk, **change))
    assert arm.calls == []


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"region": ""}, "AZURE_REGION: must be set"),
        ({"disable_cvm": False}, "AZURE_GALLERY_IMAGE: confidential machines"),
        ({"gallery_image": "podvm"}, "AZURE_GALLERY_IMAGE: .* is no id"),
        ({"gallery_image": f"{DEFINITION}/versions/1.0.0"}, "is not the id of an image definition"),
    ],
)
def test_what_is_missing_is_told(change: dict[str, object], cause: str) -> None:
    factory = Azure(dataclasses.replace(PLAIN, **change))  # type: ignore[arg-type]
    assert isinstance(factory, UploadsImages)
    with pytest.raises(SettingError, match=cause):
        factory.images()


@pytest.mark.parametrize("gallery", ["", DEFINITION], ids=["plain", "gallery"])
def test_the_command_prints_what_to_set(
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
    disk: Disk,
    gallery: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Who is trusted, and Entra ID, are the world's; all else is what a user has.
    monkeypatch.setattr(store, "Connection", lambda: Connection(Credential(), certificates[1], backoff=0.001))
    with serve_aside(certificates[0]) as arm:
        environment = {
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_REGION": REGION,
            "AZURE_RESOURCE_GROUP": GROUP,
            "AZURE_GALLERY_IMAGE": gallery,
            "DISABLECVM": "" if gallery else "true",
        }
        flags = ["-arm-endpoint", arm.url, "-azure-poll-interval=10ms"]
        assert command.main(["azure", "image", "upload", *flags, str(disk.path)], environment) == 0
        out, told = capsys.readouterr()
        key, _, value = out.strip().partition("=")
        assert key == "AZURE_IMAGE_ID"
        assert arm.images.contents[value.lower()].startswith(disk.path.read_bytes())
        assert "uploading: 100 %" in told
        assert command.main(["azure", "image", "list", *flags], environment) == 0
        name = value.rpartition("/")[2]
        assert f"AZURE_IMAGE_ID={value}\t{name}\t{disk.digest}\n" in capsys.readouterr().out
        assert arm.cloud.is_empty()
