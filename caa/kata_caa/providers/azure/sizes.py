"""What Azure's sizes have, and which of them the subscription may use in the region.

From the list of resource SKUs, which tells GPUs, zones and restrictions; where the adaptor may not read that, from
the list of the region's sizes as upstream does, which tells processors and memory alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from azure.mgmt.compute.models import ResourceSku, ResourceSkuRestrictionsType, VirtualMachineSize

from kata_caa.selection import InstanceType


@dataclass(frozen=True, slots=True)
class Size:
    """A size in a region.

    Attributes:
        type: What it has.
        family: What its quota is counted under; empty is not known.
        zones: The zones that have it and that the subscription may use it in; empty where it has none.
        refused: Why the subscription may not have it in the region at all; empty if it may.
        confidential: `SNP`, `TDX`; empty makes no confidential machines, None is not known.
    """

    type: InstanceType
    family: str = ""
    zones: frozenset[str] = frozenset()
    refused: str = ""
    confidential: str | None = None


def of_sku(sku: ResourceSku, region: str) -> Size | None:
    """The size that a SKU is; None if it is something else, or has no such figures.

    Args:
        sku: One of the list of resource SKUs.
        region: Where machines are made.
    """
    if sku.resource_type != "virtualMachines" or not sku.name:
        return None
    has = {each.name: each.value for each in sku.capabilities or () if each.name and each.value}
    try:
        type_ = InstanceType(
            sku.name, int(has["vCPUs"]), int(float(has["MemoryGB"]) * 1024), int(float(has.get("GPUs", "0")))
        )
    except (KeyError, ValueError):
        return None
    zones: set[str] = set()
    for info in sku.location_info or ():
        if (info.location or "").lower() == region.lower():
            zones.update(info.zones or ())
    refused = ""
    for restriction in sku.restrictions or ():
        if restriction.type == ResourceSkuRestrictionsType.LOCATION:
            refused = str(restriction.reason_code or "restricted")
        elif restriction.restriction_info is not None:
            zones.difference_update(restriction.restriction_info.zones or ())
    return Size(type_, sku.family or "", frozenset(zones), refused, has.get("ConfidentialComputingType", ""))


def of_listed(size: VirtualMachineSize) -> Size | None:
    """The size in the region's list; None if it has no such figures."""
    if not size.name or not size.number_of_cores or not size.memory_in_mb:
        return None
    return Size(InstanceType(size.name, size.number_of_cores, size.memory_in_mb))
