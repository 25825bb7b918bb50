"""A second network interface for a machine that has a public address: EC2 cannot make both with the machine.

Every step looks first whether an earlier try has taken it, as AllocateAddress and the attaching have no ClientToken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import SANDBOX_TAG
from kata_caa.providers.aws.client import Ec2
from kata_caa.providers.aws.inventory import tagged
from kata_caa.providers.aws.launch import specifications

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        CreateNetworkInterfaceRequestTypeDef,
        NetworkInterfaceTypeDef,
        TagTypeDef,
    )

_READY_TIMEOUT: Final = 60.0  # seconds until a new interface can be attached
_INDEX: Final = 1  # the second interface's


@dataclass(frozen=True, slots=True)
class SecondInterface:
    """An interface that is wanted.

    Attributes:
        sandbox_id: Whose it is.
        instance_id: The machine, which runs.
        subnet: Where; that of the machine.
        groups: Security groups; none are the network's own.
        tags: Of all that is made.
        token: For EC2, so that there is one.
    """

    sandbox_id: str
    instance_id: str
    subnet: str
    groups: tuple[str, ...]
    tags: Sequence[TagTypeDef]
    token: str


async def add_interface(ec2: Ec2, wanted: SecondInterface) -> str:
    """Give a machine a second interface, with a public address; returns its private one.

    Raises:
        ProviderError: It cannot be made. What was made is found by its tags.
    """
    stage = f"making a second interface for {wanted.instance_id}"
    interface = await ec2.retrying(stage, lambda: _made(ec2, wanted))
    id = interface.get("NetworkInterfaceId", "")
    await _ready(ec2, id)
    attachment = await ec2.retrying(f"attaching {id}", lambda: _attached(ec2, wanted, id))
    await ec2.call(
        f"tying {id} to its machine",
        lambda: ec2.api.modify_network_interface_attribute(
            NetworkInterfaceId=id, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
        ),
        group=wanted.sandbox_id,
    )
    address = await ec2.retrying("allocating a public address", lambda: _allocated(ec2, wanted))
    await ec2.call(
        f"associating {address} with {id}",
        lambda: ec2.api.associate_address(AllocationId=address, NetworkInterfaceId=id, AllowReassociation=True),
        group=wanted.sandbox_id,
    )
    return interface.get("PrivateIpAddress", "")


async def _made(ec2: Ec2, wanted: SecondInterface) -> NetworkInterfaceTypeDef:
    found = await ec2.once(
        lambda: ec2.api.describe_network_interfaces(Filters=[tagged(SANDBOX_TAG, wanted.sandbox_id)])
    )
    for interface in found["NetworkInterfaces"]:
        if interface.get("Attachment", {}).get("DeviceIndex", _INDEX) == _INDEX:
            return interface
    call: CreateNetworkInterfaceRequestTypeDef = {
        "SubnetId": wanted.subnet,
        "ClientToken": wanted.token,
        "TagSpecifications": specifications(["network-interface"], wanted.tags),
    }
    if wanted.groups:
        call["Groups"] = list(wanted.groups)
    answer = await ec2.once(lambda: ec2.api.create_network_interface(**call), group=wanted.sandbox_id)
    return answer["NetworkInterface"]


async def _described(ec2: Ec2, id: str) -> NetworkInterfaceTypeDef | None:
    answer = await ec2.once(
        lambda: ec2.api.describe_network_interfaces(Filters=[{"Name": "network-interface-id", "Values": [id]}])
    )
    return next(iter(answer["NetworkInterfaces"]), None)


async def _ready(ec2: Ec2, id: str) -> None:
    wait = 0.25
    status = "not to be seen"
    try:
        async with asyncio.timeout(_READY_TIMEOUT):
            while True:
                found = await ec2.retrying(f"looking at {id}", lambda: _described(ec2, id))
                if found is not None:
                    status = found.get("Status", "available")
                    if status in ("available", "in-use"):
                        return
                await asyncio.sleep(wait)
                wait = min(2 * wait, 2.0)
    except TimeoutError as error:
        raise ProviderError(
            Fault.TRANSIENT, f"the interface {id} was not ready within {_READY_TIMEOUT:.0f} s: it is {status}"
        ) from error


async def _attached(ec2: Ec2, wanted: SecondInterface, id: str) -> str:
    found = await _described(ec2, id)
    if found is not None and (attachment := found.get("Attachment", {}).get("AttachmentId")):
        return attachment
    answer = await ec2.once(
        lambda: ec2.api.attach_network_interface(
            NetworkInterfaceId=id, InstanceId=wanted.instance_id, DeviceIndex=_INDEX
        ),
        group=wanted.sandbox_id,
    )
    return answer["AttachmentId"]


async def _allocated(ec2: Ec2, wanted: SecondInterface) -> str:
    found = await ec2.once(lambda: ec2.api.describe_addresses(Filters=[tagged(SANDBOX_TAG, wanted.sandbox_id)]))
    for address in found["Addresses"]:
        if id := address.get("AllocationId", ""):
            return id
    answer = await ec2.once(
        lambda: ec2.api.allocate_address(Domain="vpc", TagSpecifications=specifications(["elastic-ip"], wanted.tags)),
        group=wanted.sandbox_id,
    )
    return answer["AllocationId"]
