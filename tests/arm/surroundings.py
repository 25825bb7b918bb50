"""What a machine needs beside itself, and what can be asked of it: sizes, quotas, network, images."""

from __future__ import annotations

from typing import NamedTuple

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from tests.arm.cloud import (
    COMMUNITY_IMAGE,
    IMAGE,
    PLAIN_IMAGE,
    REGION,
    SECURITY_GROUP,
    SHARED_IMAGE,
    SUBNET,
    SUBSCRIPTION,
    Cloud,
    Refusal,
    Tree,
)


class Size(NamedTuple):
    """A size of the region."""

    name: str
    cores: int
    memory: int
    gpus: int = 0
    confidential: str = ""
    zones: tuple[str, ...] = ("1", "2", "3")
    refused_zones: tuple[str, ...] = ()
    refused: bool = False


SIZES = (
    Size("Standard_DC2as_v5", 2, 8, confidential="SNP"),
    Size("Standard_DC4as_v5", 4, 16, confidential="SNP"),
    Size("Standard_D2as_v5", 2, 8),
    Size("Standard_D4as_v5", 4, 16, refused_zones=("2",)),
    Size("Standard_D8as_v5", 8, 32),
    Size("Standard_NC4as_T4_v3", 4, 28, gpus=1, zones=("1",)),
    Size("Standard_M416ms_v2", 416, 11400, refused=True),
)
_HERE = f"/subscriptions/{SUBSCRIPTION}"


def find(cloud: Cloud, path: str) -> tuple[type, Tree | list[Tree]]:
    """What stands at a path under the subscription, and its model.

    Raises:
        Refusal: Nothing does.
    """
    in_region = f"/providers/Microsoft.Compute/locations/{REGION}"
    fixed: dict[str, tuple[type, Tree | list[Tree]]] = {
        "/providers/Microsoft.Compute/skus": (compute.ResourceSku, [*map(_sku, SIZES), _DISK_SKU]),
        f"{in_region}/vmSizes": (compute.VirtualMachineSize, [*map(_listed, SIZES)]),
        f"{in_region}/usages": (compute.Usage, _usages(cloud)),
        SUBNET.removeprefix(_HERE): (network.Subnet, _subnet(cloud)),
        SECURITY_GROUP.removeprefix(_HERE): (
            network.NetworkSecurityGroup,
            {"id": SECURITY_GROUP, "name": "nsg", "location": REGION, "properties": {"provisioningState": "Succeeded"}},
        ),
        PLAIN_IMAGE.removeprefix(_HERE): (
            compute.Image,
            {"id": PLAIN_IMAGE, "name": "plain", "location": REGION, "properties": {"hyperVGeneration": "V2"}},
        ),
        IMAGE.removeprefix(_HERE): (compute.GalleryImageVersion, _VERSION),
        IMAGE.removeprefix(_HERE).rsplit("/versions/")[0]: (compute.GalleryImage, _DEFINITION),
        **_of_others(in_region, COMMUNITY_IMAGE, compute.CommunityGalleryImage, compute.CommunityGalleryImageVersion),
        **_of_others(in_region, SHARED_IMAGE, compute.SharedGalleryImage, compute.SharedGalleryImageVersion),
    }
    try:
        return fixed[path]
    except KeyError:
        raise Refusal(404, "ResourceNotFound", f"The Resource '{path}' was not found.") from None


def _of_others(place: str, id: str, image: type, version: type) -> dict[str, tuple[type, Tree | list[Tree]]]:
    """An image of a community's or a shared gallery and its version, which have another path than they are known by."""
    kind, gallery, _, name, _, number = id.strip("/").split("/")
    path = f"{place}/{kind[0].lower()}{kind[1:]}/{gallery}/images/{name}"
    whole = {key: value for key, value in _DEFINITION["properties"].items() if key != "features"}
    return {
        path: (image, _other(name, id.rpartition("/Versions/")[0], whole)),
        f"{path}/versions/{number}": (version, _other(number, id, {"excludeFromLatest": False})),
    }


def _other(name: str, id: str, properties: Tree) -> Tree:
    return {"name": name, "location": REGION, "identifier": {"uniqueId": id}, "properties": properties}


def _sku(size: Size) -> Tree:
    has = {"vCPUs": size.cores, "MemoryGB": size.memory, "HyperVGenerations": "V1,V2"}
    if size.gpus:
        has["GPUs"] = size.gpus
    if size.confidential:
        has["ConfidentialComputingType"] = size.confidential
    restrictions: list[Tree] = []
    if size.refused_zones:
        restrictions.append({
            "type": "Zone", "values": [REGION], "reasonCode": "NotAvailableForSubscription",
            "restrictionInfo": {"locations": [REGION], "zones": [*size.refused_zones]},
        })  # fmt: skip
    if size.refused:
        restrictions.append({
            "type": "Location", "values": [REGION], "reasonCode": "NotAvailableForSubscription",
            "restrictionInfo": {"locations": [REGION]},
        })  # fmt: skip
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "family": _family(size),
        "locations": [REGION],
        "locationInfo": [{"location": REGION, "zones": [*size.zones], "zoneDetails": []}],
        "capabilities": [{"name": name, "value": str(value)} for name, value in has.items()],
        "restrictions": restrictions,
    }


def _family(size: Size) -> str:
    return "standardDCASv5Family" if size.confidential else "standardDASv5Family"


_DISK_SKU: Tree = {"resourceType": "disks", "name": "Premium_LRS", "tier": "Premium", "locations": [REGION]}


def _listed(size: Size) -> Tree:
    return {"name": size.name, "numberOfCores": size.cores, "memoryInMB": size.memory * 1024, "maxDataDiskCount": 4}


def _usages(cloud: Cloud) -> list[Tree]:
    return [
        {
            "unit": "Count", "currentValue": used, "limit": limit,
            "name": {"value": name, "localizedValue": name},
        }
        for name, used, limit in (
            ("cores", cloud.cores_used, 100),
            ("standardDCASv5Family", cloud.cores_used, 50),
            ("standardDASv5Family", 0, 50),
            ("lowPriorityCores", 0, 10),
        )
    ]  # fmt: skip


def _subnet(cloud: Cloud) -> Tree:
    used = [
        {"id": each["properties"]["ipConfigurations"][0]["id"]}
        for each in cloud.resources["networkInterfaces"].values()
    ]
    return {
        "id": SUBNET,
        "name": "worker",
        "properties": {
            "addressPrefix": f"10.0.0.0/{cloud.subnet_size}",
            "provisioningState": "Succeeded",
            "ipConfigurations": used,
        },
    }


_DEFINITION: Tree = {
    "id": IMAGE.rsplit("/versions/")[0],
    "name": "podvm",
    "location": REGION,
    "properties": {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": "V2",
        "identifier": {"publisher": "RedHat", "offer": "OSC-PodVM", "sku": "OSC-PodVM"},
        "features": [{"name": "SecurityType", "value": "ConfidentialVmSupported"}],
    },
}
_VERSION: Tree = {
    "id": IMAGE,
    "name": "1.0.0",
    "location": REGION,
    "properties": {
        "provisioningState": "Succeeded",
        "storageProfile": {},
        "publishingProfile": {"targetRegions": [{"name": "East US", "regionalReplicaCount": 1}]},
    },
}
