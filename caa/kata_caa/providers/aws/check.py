"""Whether pods can start on EC2 with what is set: read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final, Protocol, TypedDict, cast

from kata_caa.errors import ProviderError
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, Finding, InstanceRequest, InstanceSpec, Target
from kata_caa.providers.aws import inventory, launch
from kata_caa.providers.aws.client import Ec2, settings_of_calls
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.errors import is_missing
from kata_caa.providers.aws.image import describe_image
from kata_caa.providers.aws.offers import Offer, describe_types, offered_zones, ways
from kata_caa.selection import Candidate, Spot

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SubnetTypeDef

_QUOTAS: Final = {False: ("L-1216C47A", "on-demand"), True: ("L-34B43A08", "spot")}
"""Service Quotas' codes: vCPUs of the standard families (A, C, D, H, I, M, R, T, Z) that may run."""

_PERMISSION: Final = "permission to start machines"
_TO_END: Final = "permission to end machines"
_DRY_RUN: Final = "DryRunOperation"  # the answer to a call with DryRun that would have been done
_NOBODY: Final = "i-00000000000000000"  # of the form of an instance's id
_STANDARD: Final = frozenset("acdhimrtz")
_NOT_STANDARD: Final = ("dl", "hpc", "inf", "mac", "trn")  # families with quotas of their own


async def check(ec2: Ec2, config: AwsConfig, spot: Spot) -> list[Finding]:
    """Look at all that a machine needs; a failed look is a finding too.

    Args:
        ec2: The API.
        config: What is set, without gaps.
        spot: Whether spot machines are wanted.
    """
    common = [*(_told(_to_see(kind), _visible(ec2, kind)) for kind in inventory.KINDS), _told(_TO_END, _ending(ec2))]
    if config.use_launch_template:
        looks = [
            *common,
            _told(f"launch template {config.launch_template}", _template(ec2, config)),
            _told(_PERMISSION, _permission(ec2, config, Candidate(""))),
        ]
    else:
        names = config.types()
        try:
            offers = await describe_types(ec2, names)
            way = ways(config, offers, spot, InstanceSpec())[0]
        except ProviderError as error:
            wrong = [Finding(f"instance types {', '.join(names)}", passed=False, detail=str(error))]
            return [*wrong, *(finding for findings in await asyncio.gather(*common) for finding in findings)]
        looks = [
            *common,
            _told(f"image {config.image}", _image(ec2, config, offers)),
            _told("subnets", _network(ec2, config, offers)),
            _told("quota of vCPUs", _quota(ec2, offers, way)),
            _told(_PERMISSION, _permission(ec2, config, way)),
        ]
        if config.key_name:
            looks.append(_told(f"key pair {config.key_name}", _key_pair(ec2, config)))
    return [finding for findings in await asyncio.gather(*looks) for finding in findings]


async def _told(subject: str, look: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await look
    except ProviderError as error:
        return [Finding(subject, passed=False, detail=str(error))]


async def _image(ec2: Ec2, config: AwsConfig, offers: Mapping[str, Offer]) -> list[Finding]:
    image = await describe_image(ec2, config.image)
    subject = f"image {image.id}"
    if image.state != "available":
        return [Finding(subject, passed=False, detail=f"it is {image.state}; wait until it is available")]
    default = offers.get(config.instance_type)
    if default is not None and image.architecture and image.architecture not in default.architectures:
        return [
            Finding(
                subject,
                passed=False,
                detail=f"it is for {image.architecture}, not for {config.instance_type}'s"
                f" {', '.join(default.architectures)}",
            )
        ]
    if not config.disable_cvm and not image.boot_mode.startswith("uefi"):
        return [
            Finding(
                subject,
                passed=False,
                detail="it does not boot by UEFI, which confidential machines need; register it with boot mode uefi,"
                " or set DISABLECVM=true",
            )
        ]
    return [Finding(subject, passed=True, detail=f"root disk {image.root_device}, {image.root_size} GiB")]


async def _network(ec2: Ec2, config: AwsConfig, offers: Mapping[str, Offer]) -> list[Finding]:
    ids = list(config.places())
    if not ids:
        return [Finding("subnet", passed=True, detail="none is set: the default network's is taken")]
    answer = await ec2.call("looking up the subnets", lambda: ec2.api.describe_subnets(SubnetIds=ids))
    subnets = answer["Subnets"]
    findings = [_subnet(subnet) for subnet in subnets]
    zones = {subnet.get("AvailabilityZone", "") for subnet in subnets}
    for name in offers:
        there = await offered_zones(ec2, name, zones)
        detail = f"offered in {', '.join(sorted(there)) or 'none'} of {', '.join(sorted(zones))}"
        if not there:
            detail += "; name subnets in other zones in AWS_SUBNET_IDS, or another type"
        findings.append(Finding(f"instance type {name}", passed=bool(there), detail=detail))
        if not config.disable_cvm and not offers[name].confidential:
            findings.append(
                Finding(
                    f"instance type {name}",
                    passed=False,
                    detail="it has no AMD SEV-SNP; set DISABLECVM=true for ordinary machines, or take m6a, c6a or r6a",
                )
            )
    return findings + await _groups(ec2, config, subnets)


def _subnet(subnet: SubnetTypeDef) -> Finding:
    free = subnet.get("AvailableIpAddressCount", 0)
    detail = f"{free} free addresses in {subnet.get('AvailabilityZone', '')}"
    if not free:
        detail += "; delete machines there, or name further subnets in AWS_SUBNET_IDS"
    return Finding(f"subnet {subnet.get('SubnetId', '')}", passed=free > 0, detail=detail)


async def _groups(ec2: Ec2, config: AwsConfig, subnets: Sequence[SubnetTypeDef]) -> list[Finding]:
    networks = {subnet.get("VpcId", "") for subnet in subnets}
    if len(networks) > 1:
        return [Finding("subnets", passed=False, detail=f"they are of several VPCs: {', '.join(sorted(networks))}")]
    if not config.security_groups:
        return [Finding("security groups", passed=True, detail="none is set: the network's default one is taken")]
    answer = await ec2.call(
        "looking up the security groups",
        lambda: ec2.api.describe_security_groups(GroupIds=list(config.security_groups)),
    )
    return [
        Finding(
            f"security group {group.get('GroupId', '')}",
            passed=group.get("VpcId", "") in networks,
            detail=f"of {group.get('VpcId', '')}, the subnets are of {', '.join(networks)}",
        )
        for group in answer["SecurityGroups"]
    ]


async def _key_pair(ec2: Ec2, config: AwsConfig) -> list[Finding]:
    await ec2.call("looking up the key pair", lambda: ec2.api.describe_key_pairs(KeyNames=[config.key_name]))
    return [Finding(f"key pair {config.key_name}", passed=True)]


async def _template(ec2: Ec2, config: AwsConfig) -> list[Finding]:
    await ec2.call(
        "looking up the launch template",
        lambda: ec2.api.describe_launch_templates(LaunchTemplateNames=[config.launch_template]),
    )
    return [Finding(f"launch template {config.launch_template}", passed=True)]


async def _permission(ec2: Ec2, config: AwsConfig, way: Candidate) -> list[Finding]:
    """EC2 is asked for a machine with DryRun: it looks at permissions and values, and makes nothing."""
    try:
        image = None if config.use_launch_template else await describe_image(ec2, config.image)
    except ProviderError:
        return []  # the look at the image tells it
    request = InstanceRequest(
        Target("check", "podvm-check"), "check", "#cloud-config\n", tags=((SANDBOX_TAG, "check"),)
    )
    call = launch.run_instances(config, request, way, image, "check")
    call["DryRun"] = True
    try:
        await ec2.call("trying to start a machine", lambda: ec2.api.run_instances(**call))
    except ProviderError as error:
        if error.code == _DRY_RUN:
            return [Finding(_PERMISSION, passed=True, detail=str(way))]
        raise
    return [Finding(_PERMISSION, passed=False, detail="EC2 ignored DryRun: look for a machine podvm-check")]


def _to_see(kind: str) -> str:
    return f"permission to see each {kind}"


async def _visible(ec2: Ec2, kind: str) -> list[Finding]:
    """What the sweep and each deletion look for, they must be able to see."""
    found = await inventory.look(ec2, _ours(), [kind])
    return [Finding(_to_see(kind), passed=True, detail=f"{len(found)} bear an adaptor's tag")]


async def _ending(ec2: Ec2) -> list[Finding]:
    """EC2 is asked with DryRun to end a machine of an adaptor's, or where there is none, one that nobody has.

    EC2 looks at permissions before it looks for the machine.
    """
    ours = await inventory.live_instances(ec2, _ours())
    id = ours[0].get("InstanceId", _NOBODY) if ours else _NOBODY

    async def attempt() -> Finding:
        try:
            await ec2.once(lambda: ec2.api.terminate_instances(InstanceIds=[id], DryRun=True))
        except ProviderError as error:
            if error.code == _DRY_RUN or is_missing(error):
                return Finding(_TO_END, passed=True)
            raise
        return Finding(_TO_END, passed=False, detail=f"EC2 ignored DryRun: {id} was ended")

    return [await ec2.retrying("trying to end a machine", attempt)]


def _ours() -> FilterTypeDef:
    return {"Name": "tag-key", "Values": [OWNER_TAG]}


class _Value(TypedDict):
    Value: float


class _Quota(TypedDict):
    Quota: _Value


class _Quotas(Protocol):
    """Service Quotas' client, as far as it is used; its stubs are no dependency."""

    def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> _Quota: ...

    def close(self) -> None: ...


async def _quota(ec2: Ec2, offers: Mapping[str, Offer], way: Candidate) -> list[Finding]:
    name = way.instance_type
    if not _is_standard(name):
        return []
    code, market = _QUOTAS[way.spot]
    subject = f"quota of {market} vCPUs"

    def read() -> float:
        quotas = cast(
            _Quotas,
            ec2.session.client("service-quotas", config=settings_of_calls(1)),
        )
        with closing(quotas):
            return quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]

    try:
        value = await ec2.once(read)
    except ProviderError as error:
        return [Finding(subject, passed=True, detail=f"could not be looked at: {error}", seen=False)]
    used = await _running(ec2, spot=way.spot)
    enough = value >= used + offers[name].type.vcpus
    detail = f"{used} of {value:.0f} vCPUs run in the account"
    if not enough:
        detail += f", {name} has {offers[name].type.vcpus}; end machines there, or ask AWS for a higher quota {code}"
    return [Finding(subject, passed=enough, detail=detail)]


async def _running(ec2: Ec2, *, spot: bool) -> int:
    """How many vCPUs of the standard families the account runs in the region, of one market."""
    condition: FilterTypeDef = {"Name": "instance-state-name", "Values": ["pending", "running"]}
    running = [
        instance.get("InstanceType", "")
        for instance in await inventory.live_instances(ec2, condition)
        if (instance.get("InstanceLifecycle") == "spot") is spot and _is_standard(instance.get("InstanceType", ""))
    ]
    known = await describe_types(ec2, sorted(set(running)))
    return sum(known[name].type.vcpus for name in running)


def _is_standard(name: str) -> bool:
    return name[:1] in _STANDARD and not name.startswith(_NOT_STANDARD)
