"""Whether pod VMs can be made, seen without making one: access, network, image, sizes and quotas."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence

from azure.core.exceptions import AzureError
from azure.mgmt.network.models import Subnet

from kata_caa.errors import ProviderError
from kata_caa.providers.api import Finding
from kata_caa.providers.azure.client import Arm
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.errors import translate
from kata_caa.providers.azure.ids import ResourceId
from kata_caa.providers.azure.image import Image, Origin
from kata_caa.providers.azure.permissions import grants, lacking
from kata_caa.providers.azure.resource import Kind
from kata_caa.providers.azure.sizes import Size
from kata_caa.providers.azure.together import together
from kata_caa.selection import Spot

_KEPT = 5  # addresses of each subnet that Azure keeps
_MACHINES = "Microsoft.Compute/virtualMachines"
_DISKS = "Microsoft.Compute/disks"
_INTERFACES = "Microsoft.Network/networkInterfaces"
_ADDRESSES = "Microsoft.Network/publicIPAddresses"
_CONFIDENTIAL = "confidential"  # in the value of a gallery image's feature SecurityType


async def look(config: AzureConfig, arm: Arm, sizes: Mapping[str, Size]) -> Sequence[Finding]:
    """All findings; what cannot be looked at is a finding that did not pass.

    Args:
        config: The settings.
        arm: The resource group.
        sizes: What is known of the sizes, by name.
    """
    looks: list[tuple[str, Callable[[], Awaitable[Finding]]]] = [
        (f"resource group {config.resource_group}", lambda: _group(config, arm)),
        ("subnet", lambda: _subnet(config, arm)),
        (f"image {config.image}", lambda: _image(config, arm)),
        ("quota of vCPUs", lambda: _quota(config, arm, sizes)),
        ("permissions", lambda: _permissions(config, arm)),
    ]
    if config.security_group:
        looks.append(("network security group", lambda: _security_group(config, arm)))
    found = await together(*(_guarded(subject, one) for subject, one in looks))
    return [*found, *(_size(config, name, sizes.get(name)) for name in config.all_sizes())]


async def _guarded(subject: str, one: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await one()
    except ProviderError as error:
        return Finding(subject, False, str(error))
    except AzureError as error:
        return Finding(subject, False, str(translate(error, "looking")))


async def _group(config: AzureConfig, arm: Arm) -> Finding:
    machines = await arm.list(Kind.MACHINE)
    return Finding(f"resource group {config.resource_group}", True, f"holds {len(machines)} machines")


async def _subnet(config: AzureConfig, arm: Arm) -> Finding:
    where = ResourceId.parse(config.subnet)
    subnet = await arm.network.subnets.get(where.group, *where.names)
    free = _free(subnet)
    subject = f"subnet {where.name}"
    if free <= 0:
        return Finding(subject, False, "no free address; take a larger subnet in AZURE_SUBNET_ID")
    return Finding(subject, True, f"{free} free addresses")


async def _permissions(config: AzureConfig, arm: Arm) -> Finding:
    """Reading is tried by the other looks; what would change something is held against what Azure says is allowed."""
    group = f"/subscriptions/{config.subscription_id}/resourceGroups/{config.resource_group}"
    needed = {group: _in_group(config), config.subnet: ("Microsoft.Network/virtualNetworks/subnets/join/action",)}
    if config.security_group:
        needed[config.security_group] = ("Microsoft.Network/networkSecurityGroups/join/action",)
    subject = "permissions"
    try:
        given = await together(*(grants(arm, scope) for scope in needed))
    except ProviderError as error:
        return Finding(subject, True, f"could not be looked at: {error}", seen=False)
    missing = [
        f"{action} on {scope}"
        for (scope, actions), found in zip(needed.items(), given, strict=True)
        for action in lacking(found, actions)
    ]
    if missing:
        return Finding(subject, False, f"{', '.join(missing)}: give the adaptor's application a role that has them")
    return Finding(subject, True, f"all {sum(map(len, needed.values()))} that are needed")


def _in_group(config: AzureConfig) -> Sequence[str]:
    kinds = (_MACHINES, _DISKS, _INTERFACES, *((_ADDRESSES,) if config.use_public_ip else ()))
    joined = kinds[2:]  # by the machine, and by its interface
    return (
        *(f"{kind}/{what}" for kind in kinds for what in ("read", "write", "delete")),
        *(f"{kind}/join/action" for kind in joined),
        *(() if config.use_public_ip else (f"{_ADDRESSES}/read",)),
    )


def _free(subnet: Subnet) -> int:
    if (properties := subnet.properties) is None:
        return 0
    prefixes = properties.address_prefixes or [properties.address_prefix or "0.0.0.0/32"]
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    size = sum(max(0, network.num_addresses - _KEPT) for network in networks if network.version == 4)
    return size - len(properties.ip_configurations or ())


async def _security_group(config: AzureConfig, arm: Arm) -> Finding:
    where = ResourceId.parse(config.security_group)
    group = await arm.network.network_security_groups.get(where.group, where.name)
    here = (group.location or "").lower() == config.region.lower()
    return Finding(
        f"network security group {where.name}", here, "" if here else f"is in {group.location}, not in {config.region}"
    )


async def _image(config: AzureConfig, arm: Arm) -> Finding:
    image = Image.parse(config.image)
    subject = f"image {config.image}"
    compute = arm.compute
    match image.origin:
        case Origin.IMAGE:
            found = await compute.images.get(image.group, image.path[0])
            here = (found.location or "").lower() == config.region.lower()
            problem = "" if here else f"is in {found.location}, not in {config.region}"
            if not config.disable_cvm:
                problem = problem or "confidential machines need an image of a gallery; or set DISABLECVM=true"
        case Origin.GALLERY:
            problem = await _gallery_image(config, arm, image)
        case Origin.COMMUNITY:
            gallery, name, *version = image.path
            if version:
                await compute.community_gallery_image_versions.get(config.region, gallery, name, version[0])
            else:
                await compute.community_gallery_images.get(config.region, gallery, name)
            problem = ""
        case Origin.SHARED:
            gallery, name, *version = image.path
            if version:
                await compute.shared_gallery_image_versions.get(config.region, gallery, name, version[0])
            else:
                await compute.shared_gallery_images.get(config.region, gallery, name)
            problem = ""
    return Finding(subject, not problem, problem)


async def _gallery_image(config: AzureConfig, arm: Arm, image: Image) -> str:
    gallery, name, *version = image.path
    definition = await arm.compute.gallery_images.get(image.group, gallery, name)
    features = (definition.properties.features or []) if definition.properties is not None else []
    security = next((each.value or "" for each in features if each.name == "SecurityType"), "")
    if not config.disable_cvm and _CONFIDENTIAL not in security.lower():
        return "is not made for confidential machines; build it with SecurityType=ConfidentialVmSupported"
    if not version:
        return ""
    found = await arm.compute.gallery_image_versions.get(image.group, gallery, name, version[0])
    publishing = found.properties.publishing_profile if found.properties is not None else None
    regions = [_plain(region.name) for region in (publishing.target_regions or () if publishing is not None else ())]
    if _plain(config.region) not in regions:
        return f"is not replicated to {config.region}, only to {', '.join(regions) or 'nowhere'}"
    return ""


def _plain(region: str) -> str:
    """A region's name as it stands in ids: `East US` is `eastus`."""
    return region.replace(" ", "").lower()


async def _quota(config: AzureConfig, arm: Arm, sizes: Mapping[str, Size]) -> Finding:
    size = sizes[config.size]
    counted = {"lowprioritycores"} if config.spot() is Spot.ONLY else {"cores", size.family.lower()}
    subject = "quota of vCPUs"
    left: list[str] = []
    async for usage in arm.compute.usage.list(config.region):
        name = usage.name.value or ""
        if name.lower() not in counted:
            continue
        free = usage.limit - usage.current_value
        left.append(f"{name} {free} of {usage.limit} free")
        if free < size.type.vcpus:
            return Finding(
                subject, False, f"{left[-1]}, {size.type.name} needs {size.type.vcpus}: ask Azure for a higher quota"
            )
    return Finding(subject, True, ", ".join(left))


def _size(config: AzureConfig, name: str, size: Size | None) -> Finding:
    subject = f"size {name}"
    if size is None:
        return Finding(subject, False, f"{config.region} does not have it")
    if size.refused:
        return Finding(subject, False, f"the subscription may not have it in {config.region}: {size.refused}")
    if missing := [zone for zone in config.places() if size.zones and zone not in size.zones]:
        return Finding(subject, False, f"not to be had in zone {', '.join(missing)}")
    if not config.disable_cvm and size.confidential == "":
        return Finding(subject, False, "makes no confidential machines; take another, or set DISABLECVM=true")
    return Finding(subject, True, str(size.type))
