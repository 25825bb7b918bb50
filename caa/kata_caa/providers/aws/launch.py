"""The call that makes a machine, as a pure function of what is set and asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import SANDBOX_TAG, InstanceRequest
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.image import Image
from kata_caa.providers.aws.offers import literal
from kata_caa.selection import Candidate

if TYPE_CHECKING:
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import (
        InstanceNetworkInterfaceSpecificationTypeDef,
        RunInstancesRequestTypeDef,
        TagSpecificationTypeDef,
        TagTypeDef,
    )

USER_DATA_LIMIT: Final = 16 * 1024  # bytes, before they are encoded; EC2's
GENERATIONS: Final = 8
"""How many machines of one token can end, one after the other, before its maker is asked for another token."""

_SIZE_LIMIT: Final = 2**31 - 1  # GiB, the API's number


def tags_of(config: AwsConfig, request: InstanceRequest) -> list[TagTypeDef]:
    """The tags of all that is made for a request: the operator's, the request's, and its name.

    Args:
        config: What is set.
        request: What is asked for.
    """
    tags = dict(config.tags)
    tags.update(request.tags)
    tags[SANDBOX_TAG] = request.target.sandbox_id
    tags["Name"] = request.target.name
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def token_of(request: InstanceRequest, *parts: object) -> str:
    """EC2's ClientToken of one call: the same for the same token and candidate.

    One token for all candidates would be refused, as their calls differ. EC2 takes 64 characters.

    Args:
        request: Its token counts.
        parts: What else makes the call another.
    """
    return hashlib.sha256("\0".join((request.token, *map(str, parts))).encode()).hexdigest()


def bounded(user_data: str) -> str:
    """User data that EC2 takes. boto3 encodes them.

    Raises:
        ProviderError: They are too long.
    """
    size = len(user_data.encode())
    if size > USER_DATA_LIMIT:
        raise ProviderError(
            Fault.FATAL,
            f"the pod VM's user data have {size} bytes, EC2 takes {USER_DATA_LIMIT}",
            code="UserDataTooLong",
            hint="shorten the pod's initdata and registry credentials",
        )
    return user_data


def tokens_of(request: InstanceRequest, candidate: Candidate) -> list[str]:
    """The ClientTokens of a candidate, to be used one after the other: each when the last one's machine has ended.

    EC2 remembers a token longer than its machine lives, so a machine that is made anew needs another.

    Args:
        request: What is asked for.
        candidate: Type, subnet, and whether spot.
    """
    return [token_of(request, candidate, generation) for generation in range(GENERATIONS)]


def run_instances(
    config: AwsConfig, request: InstanceRequest, candidate: Candidate, image: Image | None, token: str
) -> RunInstancesRequestTypeDef:
    """The call that makes a machine.

    All that comes into being with the machine is tagged by the same call, so nothing can be left without an owner.
    The root disk always goes with the machine, whatever the image says.

    Args:
        config: What is set.
        request: What is asked for.
        candidate: Type, subnet, and whether spot; with a launch template nothing of it counts.
        image: What the machine boots; with a launch template, what its root disk is measured by, or None.
        token: Its ClientToken.

    Raises:
        ProviderError: The user data are too long.
    """
    kinds: list[ResourceTypeType] = ["instance", "volume", "network-interface"]
    call: RunInstancesRequestTypeDef = {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "UserData": bounded(request.user_data),
    }
    if config.use_launch_template:
        call["LaunchTemplate"] = {"LaunchTemplateName": config.launch_template}
    else:
        assert image is not None
        call["ImageId"] = image.id
        call["InstanceType"] = literal(candidate.instance_type)
        call["MetadataOptions"] = {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": config.metadata_hop_limit,
        }
        if config.key_name:
            call["KeyName"] = config.key_name
        if not config.disable_cvm:
            call["CpuOptions"] = {"AmdSevSnp": "enabled"}
        if candidate.spot:
            call["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
            }
            kinds.append("spot-instances-request")
        _connect(call, config, candidate, request)
    if image is not None and (config.root_volume_size > 0 or not config.use_launch_template):
        call["BlockDeviceMappings"] = [{"DeviceName": image.root_device, "Ebs": {"DeleteOnTermination": True}}]
        if config.root_volume_size > 0:
            size = min(max(config.root_volume_size, image.root_size), _SIZE_LIMIT)
            call["BlockDeviceMappings"][0]["Ebs"] = {"VolumeSize": size, "DeleteOnTermination": True}
    call["TagSpecifications"] = specifications(kinds, tags_of(config, request))
    return call


def specifications(kinds: Iterable[ResourceTypeType], tags: Sequence[TagTypeDef]) -> list[TagSpecificationTypeDef]:
    """The same tags for each kind of object."""
    return [{"ResourceType": kind, "Tags": list(tags)} for kind in kinds]


def _connect(
    call: RunInstancesRequestTypeDef, config: AwsConfig, candidate: Candidate, request: InstanceRequest
) -> None:
    """Say which network the machine is in.

    A second interface is made with the machine where EC2 allows it: not together with a public address.
    """
    if not config.use_public_ip and not request.spec.multi_nic:
        if candidate.place:
            call["SubnetId"] = candidate.place
        if config.security_groups:
            call["SecurityGroupIds"] = list(config.security_groups)
        return
    count = 1 if config.use_public_ip else 2
    interfaces: list[InstanceNetworkInterfaceSpecificationTypeDef] = []
    for index in range(count):
        interface: InstanceNetworkInterfaceSpecificationTypeDef = {"DeviceIndex": index, "DeleteOnTermination": True}
        if candidate.place:
            interface["SubnetId"] = candidate.place
        if config.security_groups:
            interface["Groups"] = list(config.security_groups)
        if config.use_public_ip:
            interface["AssociatePublicIpAddress"] = True
        interfaces.append(interface)
    call["NetworkInterfaces"] = interfaces
