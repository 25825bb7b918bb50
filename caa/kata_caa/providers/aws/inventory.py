"""What there is in EC2 with a tag, of every kind that the provider makes, and how each is removed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kata_caa.errors import Fault
from kata_caa.providers.api import SANDBOX_TAG, Owned
from kata_caa.providers.aws.client import Ec2

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        FilterTypeDef,
        InstanceTypeDef,
        NetworkInterfaceAttachmentTypeDef,
        PaginatorConfigTypeDef,
        TagTypeDef,
    )

    _Look = Callable[[Ec2, FilterTypeDef], Coroutine[None, None, list["Thing"]]]

INSTANCE: Final = "instance"
INTERFACE: Final = "network-interface"
VOLUME: Final = "volume"
ADDRESS: Final = "elastic-ip"
SPOT_REQUEST: Final = "spot-instances-request"

_LIVE: Final = ("pending", "running", "stopping", "stopped")
"""An instance that shuts down cannot come back and costs nothing: it counts as gone. Its disks and interfaces do not,
until they are not there any more, as they cost money, addresses and quota."""

_PAGES: Final[PaginatorConfigTypeDef] = {"PageSize": 500}  # objects of one answer

_INSTANCE_ID: Final = re.compile(r"i-[0-9a-f]{8}(?:[0-9a-f]{9})?")


@dataclass(frozen=True, slots=True)
class Thing:
    """An object in EC2.

    Attributes:
        kind: EC2's word for it.
        id: Its id.
        sandbox_id: Whose it is, by its tag; empty has none.
        name: Its name tag.
        link: What is to be undone first: an address's association, an interface's attachment that will not go with
            the instance; empty has none.
        state: As EC2 says it; may be empty.
    """

    kind: str
    id: str
    sandbox_id: str = ""
    name: str = ""
    link: str = ""
    state: str = ""

    def owned(self) -> Owned:
        """The same, as the adaptor wants it."""
        return Owned(self.kind, self.id, self.sandbox_id, self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.id}{f' ({self.state})' if self.state else ''}"


def is_instance_id(id: str) -> bool:
    """Whether a text is an instance's id. Others are never sent: EC2 might read an empty one as no filter."""
    return _INSTANCE_ID.fullmatch(id) is not None


def by_instance(id: str) -> FilterTypeDef:
    """An instance, or what belongs to it. Unlike an id that is asked for, a filter that fits nothing is no error."""
    return {"Name": "instance-id", "Values": [id]}


def tagged(key: str, value: str) -> FilterTypeDef:
    """What bears a tag."""
    return {"Name": f"tag:{key}", "Values": [value]}


async def live_instances(ec2: Ec2, condition: FilterTypeDef) -> list[InstanceTypeDef]:
    """The instances that fit a condition and are not gone, from all pages.

    Raises:
        ProviderError: EC2 does not tell.
    """

    pager = ec2.api.get_paginator("describe_instances")

    def pages() -> list[InstanceTypeDef]:
        states: FilterTypeDef = {"Name": "instance-state-name", "Values": list(_LIVE)}
        return [
            instance
            for page in pager.paginate(Filters=[condition, states], PaginationConfig=_PAGES)
            for reservation in page["Reservations"]
            for instance in reservation.get("Instances", [])
        ]

    return await ec2.call("listing instances", pages)


async def look(ec2: Ec2, condition: FilterTypeDef, kinds: Iterable[str]) -> list[Thing]:
    """All that fits a condition, of some kinds, from all pages.

    Raises:
        ProviderError: EC2 does not tell.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_LOOKS[kind](ec2, condition), name=f"list-{kind}") for kind in kinds]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [thing for task in tasks for thing in task.result()]


async def remove(ec2: Ec2, things: Sequence[Thing]) -> None:
    """Begin to remove objects; what still serves another of them is left for the next time.

    Raises:
        ProviderError: A person has to do something before it can be removed. The others have been begun with.
    """
    outcomes = await asyncio.gather(*(_remove(ec2, thing) for thing in things), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and getattr(outcome, "fault", Fault.FATAL) is Fault.FATAL:
            raise outcome


async def _instances(ec2: Ec2, condition: FilterTypeDef) -> list[Thing]:
    return [
        _thing(INSTANCE, found.get("InstanceId", ""), found.get("Tags", []), "", found.get("State", {}).get("Name", ""))
        for found in await live_instances(ec2, condition)
    ]


async def _interfaces(ec2: Ec2, condition: FilterTypeDef) -> list[Thing]:
    pager = ec2.api.get_paginator("describe_network_interfaces")

    def pages() -> list[Thing]:
        return [
            _thing(
                INTERFACE,
                found.get("NetworkInterfaceId", ""),
                found.get("TagSet", []),
                _loose(found.get("Attachment", {})),
                found.get("Status", ""),
            )
            for page in pager.paginate(Filters=[condition], PaginationConfig=_PAGES)
            for found in page["NetworkInterfaces"]
        ]

    return await ec2.call("listing network interfaces", pages)


async def _volumes(ec2: Ec2, condition: FilterTypeDef) -> list[Thing]:
    pager = ec2.api.get_paginator("describe_volumes")

    def pages() -> list[Thing]:
        return [
            _thing(VOLUME, found.get("VolumeId", ""), found.get("Tags", []), "", found.get("State", ""))
            for page in pager.paginate(Filters=[condition], PaginationConfig=_PAGES)
            for found in page["Volumes"]
            if found.get("State") not in ("deleting", "deleted")
        ]

    return await ec2.call("listing volumes", pages)


async def _addresses(ec2: Ec2, condition: FilterTypeDef) -> list[Thing]:
    answer = await ec2.call("listing addresses", lambda: ec2.api.describe_addresses(Filters=[condition]))
    return [
        _thing(ADDRESS, found.get("AllocationId", ""), found.get("Tags", []), found.get("AssociationId", ""), "")
        for found in answer["Addresses"]
    ]


async def _spot_requests(ec2: Ec2, condition: FilterTypeDef) -> list[Thing]:
    pager = ec2.api.get_paginator("describe_spot_instance_requests")

    def pages() -> list[Thing]:
        states: FilterTypeDef = {"Name": "state", "Values": ["open", "active"]}
        return [
            _thing(
                SPOT_REQUEST,
                found.get("SpotInstanceRequestId", ""),
                found.get("Tags", []),
                "",
                found.get("State", ""),
            )
            for page in pager.paginate(Filters=[condition, states], PaginationConfig=_PAGES)
            for found in page["SpotInstanceRequests"]
        ]

    return await ec2.call("listing spot requests", pages)


async def _remove(ec2: Ec2, thing: Thing) -> None:
    api, id, link = ec2.api, thing.id, thing.link
    stage = f"removing {thing}"
    match thing.kind:
        case "instance":
            await ec2.remove(stage, lambda: api.terminate_instances(InstanceIds=[id]))
        case "network-interface":
            if link:
                await ec2.remove(stage, lambda: api.detach_network_interface(AttachmentId=link, Force=True))
            if link or thing.state != "in-use":  # otherwise it goes with its instance
                await ec2.remove(stage, lambda: api.delete_network_interface(NetworkInterfaceId=id))
        case "volume":
            if thing.state != "in-use":
                await ec2.remove(stage, lambda: api.delete_volume(VolumeId=id))
        case "elastic-ip":
            if link:
                await ec2.remove(stage, lambda: api.disassociate_address(AssociationId=link))
            await ec2.remove(stage, lambda: api.release_address(AllocationId=id))
        case "spot-instances-request":
            await ec2.remove(stage, lambda: api.cancel_spot_instance_requests(SpotInstanceRequestIds=[id]))


def _loose(attachment: NetworkInterfaceAttachmentTypeDef) -> str:
    """The id of an attachment that would keep its interface when the instance goes; the first one cannot be undone."""
    keeps = not attachment.get("DeleteOnTermination", False) and attachment.get("DeviceIndex", 0) > 0
    return attachment.get("AttachmentId", "") if keeps else ""


def _thing(kind: str, id: str, tags: Iterable[TagTypeDef], link: str, state: str) -> Thing:
    by_key = {tag.get("Key", ""): tag.get("Value", "") for tag in tags}
    return Thing(kind, id, by_key.get(SANDBOX_TAG, ""), by_key.get("Name", ""), link, state)


_LOOKS: Final[Mapping[str, _Look]] = {
    INSTANCE: _instances,
    INTERFACE: _interfaces,
    VOLUME: _volumes,
    ADDRESS: _addresses,
    SPOT_REQUEST: _spot_requests,
}
KINDS: Final = tuple(_LOOKS)
