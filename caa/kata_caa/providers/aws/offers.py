"""What EC2 knows of its instance types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from kata_caa.providers.api import InstanceSpec
from kata_caa.providers.aws.client import Ec2
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.errors import meaning, without_cvm
from kata_caa.selection import Candidate, InstanceType, Spot, candidates, choose, fallbacks

if TYPE_CHECKING:
    from mypy_boto3_ec2.literals import InstanceTypeType
    from mypy_boto3_ec2.type_defs import InstanceTypeInfoTypeDef

_SNP = "amd-sev-snp"
_AT_ONCE = 100  # names in one call, EC2's limit


@dataclass(frozen=True, slots=True)
class Offer:
    """A type that EC2 has.

    Attributes:
        type: Its size.
        confidential: Whether its machines can be confidential, by AMD SEV-SNP.
        architectures: What its processors run.
        interfaces: How many network interfaces a machine may have.
    """

    type: InstanceType
    confidential: bool
    architectures: tuple[str, ...]
    interfaces: int


async def describe_types(ec2: Ec2, names: Sequence[str]) -> dict[str, Offer]:
    """Look types up, by name.

    Raises:
        ProviderError: One of them does not exist.
    """
    offers: dict[str, Offer] = {}
    for begin in range(0, len(names), _AT_ONCE):
        describe = partial(
            ec2.api.describe_instance_types,
            InstanceTypes=[literal(name) for name in names[begin : begin + _AT_ONCE]],
        )
        answer = await ec2.call("looking up instance types", describe)
        offers.update((offer.type.name, offer) for offer in map(_offer, answer["InstanceTypes"]))
    if missing := [name for name in names if name not in offers]:
        raise meaning("InvalidInstanceType", ", ".join(missing))
    return offers


async def offered_zones(ec2: Ec2, name: str, zones: Iterable[str]) -> frozenset[str]:
    """Those of the zones that have a type.

    Raises:
        ProviderError: EC2 does not tell.
    """
    wanted = sorted(zones)
    answer = await ec2.call(
        f"looking for zones that have {name}",
        lambda: ec2.api.describe_instance_type_offerings(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [name]}, {"Name": "location", "Values": wanted}],
        ),
    )
    return frozenset(offering.get("Location", "") for offering in answer["InstanceTypeOfferings"])


def ways(config: AwsConfig, offers: Mapping[str, Offer], spot: Spot, spec: InstanceSpec) -> list[Candidate]:
    """All candidates for a pod, in order. Where pods are confidential, types that cannot be are passed over.

    Args:
        config: What is set.
        offers: What is known of the types.
        spot: Whether spot machines are wanted.
        spec: What the pod asks for.

    Raises:
        ProviderError: No type fits, or none that can be confidential.
    """
    types = [offer.type for offer in offers.values()]
    chosen = choose(spec, types, config.instance_type, config.instance_types)
    names = [chosen.name, *(type.name for type in fallbacks(chosen, spec, types, config.fallback_types))]
    able = [name for name in names if config.disable_cvm or offers[name].confidential]
    if not able:
        raise without_cvm(", ".join(names))
    return list(candidates(able, config.places(), spot))


def literal(name: str) -> InstanceTypeType:
    """A type's name as the stubs want it: a list of names that is older than the newest type."""
    return cast("InstanceTypeType", name)


def _offer(info: InstanceTypeInfoTypeDef) -> Offer:
    processor = info.get("ProcessorInfo", {})
    return Offer(
        InstanceType(
            info.get("InstanceType", ""),
            info.get("VCpuInfo", {}).get("DefaultVCpus", 0),
            info.get("MemoryInfo", {}).get("SizeInMiB", 0),
            sum(gpu.get("Count", 0) for gpu in info.get("GpuInfo", {}).get("Gpus", [])),
        ),
        confidential=_SNP in processor.get("SupportedFeatures", []),
        architectures=tuple(processor.get("SupportedArchitectures", [])),
        interfaces=info.get("NetworkInfo", {}).get("MaximumNetworkInterfaces", 1),
    )
