"""A disk's way into EC2, over HTTP to a moto server whose EBS holds checksums against blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kata_caa import command
from kata_caa.disk import BLOCK, Disk, examine
from kata_caa.errors import DiskError, Fault, ProviderError
from kata_caa.providers.api import IMAGE_TAG, UploadsImages
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.metadata import MetadataError
from kata_caa.providers.aws.provider import Aws, Pace
from kata_caa.providers.aws.store import AwsImages
from tests import aws_cloud, ebs
from tests.moto import KEYS, REGION, Ec2Server, Refusal, ec2_server


@pytest.fixture(scope="module")
def server() -> Iterator[Ec2Server]:
    with ec2_server() as server:
        yield server


@pytest.fixture
def ec2(server: Ec2Server) -> Iterator[Ec2Server]:
    server.seen.clear()
    before = server.objects()
    yield server
    server.before = server.after = lambda action, parameters: None
    assert server.objects() == before


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk of its own, of six blocks of which three have something."""
    path = tmp_path / "podvm.raw"
    with path.open("wb") as file:
        file.truncate(5 * BLOCK + 512)
        for offset in (0, 3 * BLOCK + 7, 5 * BLOCK + 500):
            file.seek(offset)
            file.write(os.urandom(8))
    return examine(path)


async def _no_metadata(path: str) -> str:
    raise MetadataError(path)


@asynccontextmanager
async def opened(ec2: Ec2Server) -> AsyncIterator[AwsImages]:
    config = AwsConfig(
        access_key_id=KEYS["aws_access_key_id"], secret_key=KEYS["aws_secret_access_key"], region=REGION,
        endpoint_url=ec2.url, tags=(("team", "blue"),),
    )  # fmt: skip
    async with AwsImages(config, _no_metadata, Pace(0.01, 0.05).waits, aws_cloud.FAST) as images:
        yield images


async def upload(ec2: Ec2Server, disk: Disk) -> tuple[str, bool]:
    async with opened(ec2) as images:
        image = await images.upload(disk, "podvm", lambda done, total: None)
    return image.value, image.found


def snapshots(ec2: Ec2Server, disk: Disk) -> list[str]:
    answer = ec2.api.describe_snapshots(Filters=[{"Name": f"tag:{IMAGE_TAG}", "Values": [disk.digest]}])
    return [each["SnapshotId"] for each in answer["Snapshots"]]


async def test_a_disk_becomes_an_image_that_boots_by_uefi(ec2: Ec2Server, disk: Disk) -> None:
    told: list[tuple[int, int]] = []
    async with opened(ec2) as images:
        image = await images.upload(disk, "podvm", lambda done, total: told.append((done, total)))
        assert [each.value for each in await images.stored() if each.digest == disk.digest] == [image.value]
    assert image.name == f"podvm-{disk.digest[:12]}"
    assert told[-1] == (disk.payload, disk.payload)
    (id,) = snapshots(ec2, disk)
    blocks = ebs.snapshot(id, REGION).blocks
    assert sorted(blocks) == [0, 3, 5]
    content = bytearray(6 * BLOCK)
    for number, block in blocks.items():
        content[number * BLOCK : (number + 1) * BLOCK] = block.block_data
    assert content[: disk.size] == disk.path.read_bytes()
    (asked,) = (parameters for action, parameters in ec2.seen if action == "RegisterImage")
    assert asked["BlockDeviceMapping.1.Ebs.SnapshotId"] == id
    assert asked["BlockDeviceMapping.1.DeviceName"] == asked["RootDeviceName"] == "/dev/xvda"
    assert (asked["BootMode"], asked["TpmSupport"], asked["EnaSupport"]) == ("uefi", "v2.0", "true")
    assert asked["Architecture"] == "x86_64"
    (shown,) = ec2.api.describe_images(ImageIds=[image.value])["Images"]
    tags = {tag["Key"]: tag["Value"] for tag in shown["Tags"]}
    assert tags == {"Name": image.name, "team": "blue", IMAGE_TAG: disk.digest}


async def test_the_same_disk_is_uploaded_once(ec2: Ec2Server, disk: Disk) -> None:
    first = await upload(ec2, disk)
    ec2.seen.clear()
    assert await upload(ec2, disk) == (first[0], True)
    assert "StartSnapshot" not in ec2.actions


async def test_a_disk_for_arm_has_no_tpm(ec2: Ec2Server, disk: Disk) -> None:
    await upload(ec2, replace(disk, machine="aarch64"))
    (asked,) = (parameters for action, parameters in ec2.seen if action == "RegisterImage")
    assert asked["Architecture"] == "arm64"
    assert "TpmSupport" not in asked


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("ThrottlingException", "slowly"),
        Refusal("ResourceNotFoundException", "The snapshot does not exist.", 404),
        Refusal("InternalServerException", "", 500),
        OSError(),
    ],
    ids=["throttled", "not to be seen yet", "failed", "cut"],
)
async def test_a_block_that_fails_for_a_moment_is_sent_again(ec2: Ec2Server, disk: Disk, refusal: Exception) -> None:
    failed: list[str] = []

    def before(action: str, parameters: Mapping[str, str]) -> None:
        if action == "PutSnapshotBlock" and parameters["number"] == "3" and not failed:
            failed.append(action)
            raise refusal

    ec2.before = before
    assert not (await upload(ec2, disk))[1]
    assert len(failed) == 1
    assert ec2.actions.count("PutSnapshotBlock") == 4


async def test_an_upload_that_fails_deletes_its_snapshot(ec2: Ec2Server, disk: Disk) -> None:
    def before(action: str, parameters: Mapping[str, str]) -> None:
        if action == "PutSnapshotBlock":
            raise Refusal("AccessDeniedException", "ebs:PutSnapshotBlock", 403)

    ec2.before = before
    with pytest.raises(ProviderError, match="sending block") as caught:
        await upload(ec2, disk)
    assert caught.value.fault is Fault.FATAL
    assert snapshots(ec2, disk) == []


@pytest.mark.parametrize("at", ["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"])
async def test_an_upload_that_is_cancelled_deletes_its_snapshot(ec2: Ec2Server, disk: Disk, at: str) -> None:
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    def after(action: str, parameters: Mapping[str, str]) -> None:
        if action == at:
            loop.call_soon_threadsafe(reached.set)

    ec2.before = after
    uploading = asyncio.create_task(upload(ec2, disk))
    async with asyncio.timeout(10):
        await reached.wait()
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert snapshots(ec2, disk) == []


async def test_a_snapshot_that_is_complete_is_gone_on_from(ec2: Ec2Server, disk: Disk) -> None:
    def before(action: str, parameters: Mapping[str, str]) -> None:
        if action == "RegisterImage":
            raise Refusal("UnauthorizedOperation", "ec2:RegisterImage", 403)

    ec2.before = before
    with pytest.raises(ProviderError, match=r"the snapshot snap-.* is kept"):
        await upload(ec2, disk)
    (snapshot,) = snapshots(ec2, disk)
    ec2.before = lambda action, parameters: None
    ec2.seen.clear()
    assert not (await upload(ec2, disk))[1]
    assert "StartSnapshot" not in ec2.actions
    assert snapshots(ec2, disk) == [snapshot]


async def test_an_image_whose_answer_was_lost_is_found(ec2: Ec2Server, disk: Disk) -> None:
    names: list[str] = []

    def before(action: str, parameters: Mapping[str, str]) -> None:
        if action == "RegisterImage" and names:
            raise Refusal("InvalidAMIName.Duplicate", "in use")

    def after(action: str, parameters: Mapping[str, str]) -> None:
        if action == "RegisterImage":
            names.append(parameters["Name"])
            raise OSError

    ec2.before, ec2.after = before, after
    value, _ = await upload(ec2, disk)
    images = ec2.api.describe_images(Filters=[{"Name": f"tag:{IMAGE_TAG}", "Values": [disk.digest]}])["Images"]
    assert [image["ImageId"] for image in images] == [value]


@pytest.mark.parametrize(
    ("change", "cause"), [({"form": "qcow2"}, "takes raw disks"), ({"machine": "s390x"}, "no machines of s390x")]
)
async def test_what_ec2_cannot_have_is_refused(
    ec2: Ec2Server, disk: Disk, change: Mapping[str, str], cause: str
) -> None:
    with pytest.raises(DiskError, match=cause):
        await upload(ec2, replace(disk, **change))
    assert ec2.actions == []


def test_the_command_prints_what_to_set(ec2: Ec2Server, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(Aws(AwsConfig()), UploadsImages)
    flags = ["-aws-region", REGION, "-aws-endpoint-url", ec2.url, "-aws-access-key-id=k", "-aws-secret-key=s"]
    assert command.main(["aws", "image", "upload", *flags, str(disk.path)], {}) == 0
    out, told = capsys.readouterr()
    key, _, value = out.strip().partition("=")
    assert key == "PODVM_AMI_ID"
    assert ec2.api.describe_images(ImageIds=[value])["Images"]
    assert "uploading: 100 %" in told
    assert command.main(["aws", "image", "list", *flags], {}) == 0
    assert f"PODVM_AMI_ID={value}\tpodvm-{disk.digest[:12]}\t{disk.digest}\n" in capsys.readouterr().out
