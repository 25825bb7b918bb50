"""What is known of an AMI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.aws.client import Ec2
from kata_caa.providers.aws.errors import meaning

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef


@dataclass(frozen=True, slots=True)
class Image:
    """An AMI.

    Attributes:
        id: Its id.
        root_device: The root disk's name, `/dev/xvda`.
        root_size: The root disk's size in GiB; 0 is not known.
        state: `available` when it can be used.
        architecture: `x86_64`, `arm64`.
        boot_mode: `uefi`, `uefi-preferred`, `legacy-bios`; may be empty.
    """

    id: str
    root_device: str
    root_size: int
    state: str
    architecture: str
    boot_mode: str


async def describe_image(ec2: Ec2, id: str) -> Image:
    """Look an image up.

    Args:
        ec2: The API.
        id: An AMI's id.

    Raises:
        ProviderError: It does not exist, or has no root device.
    """
    if not id:
        raise ProviderError(Fault.FATAL, "no pod VM image is set", hint="set PODVM_AMI_ID")
    answer = await ec2.call(f"looking up the image {id}", lambda: ec2.api.describe_images(ImageIds=[id]))
    if not answer["Images"]:
        raise meaning("InvalidAMIID.NotFound", id)
    return _image(id, answer["Images"][0])


def _image(id: str, found: ImageTypeDef) -> Image:
    device = found.get("RootDeviceName", "")
    if not device:
        raise ProviderError(Fault.FATAL, f"the image {id} has no root device", hint="register it with one")
    sizes = [
        mapping.get("Ebs", {}).get("VolumeSize", 0)
        for mapping in found.get("BlockDeviceMappings", [])
        if mapping.get("DeviceName") == device
    ]
    return Image(
        id,
        device,
        next(iter(sizes), 0),
        found.get("State", "available"),
        found.get("Architecture", ""),
        found.get("BootMode", ""),
    )
