"""The AWS provider against a moto server, by boto3 over HTTP."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import entry_points

import pytest
from moto.servicequotas.models import ServiceQuotasBackend

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, Instance, InstanceRequest, InstanceSpec, Resolves, Target
from kata_caa.providers.aws import inventory
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.provider import Aws, AwsProvider
from kata_caa.settings import Duration
from tests import aws_cloud
from tests.moto import REGION, Ec2Server, Refusal, ec2_server

OWNER = "node-1"
NO_CAPACITY = Refusal("InsufficientInstanceCapacity", "We currently do not have sufficient capacity", 500)


@pytest.fixture(scope="module")
def server() -> Iterator[Ec2Server]:
    with ec2_server() as server:
        yield server


@pytest.fixture
def ec2(server: Ec2Server) -> Iterator[Ec2Server]:
    before = server.objects()
    server.seen.clear()
    yield server
    server.before = server.after = lambda action, parameters: None
    server.hidden, server.remembers = 0, False
    assert server.objects() == before


@asynccontextmanager
async def opened(ec2: Ec2Server, **changes: object) -> AsyncIterator[AwsProvider]:
    config = replace(aws_cloud.config_of(ec2), **changes)  # type: ignore[arg-type]
    async with aws_cloud.opened(config) as provider:
        assert isinstance(provider, AwsProvider)
        yield provider


def wanted(sandbox: str = "0a1b2c3d4e5f", **spec: object) -> InstanceRequest:
    return InstanceRequest(
        Target(sandbox, f"podvm-web-{sandbox[:8]}"), f"token-{sandbox}", "#cloud-config\n",
        InstanceSpec(**spec), ((OWNER_TAG, OWNER), (SANDBOX_TAG, sandbox)),  # type: ignore[arg-type]
    )  # fmt: skip


@asynccontextmanager
async def machine(provider: AwsProvider, request: InstanceRequest) -> AsyncIterator[Instance]:
    """A machine for as long as the context lasts."""
    try:
        yield await provider.create(request)
    finally:
        await provider.delete(request.target)


def test_the_provider_is_found_by_its_name():
    (entry,) = entry_points(group="kata_caa.providers", name="aws")
    assert entry.load() is Aws
    assert Aws.config is AwsConfig


async def test_a_machine_is_as_it_was_asked_for(ec2: Ec2Server):
    async with opened(ec2) as provider, machine(provider, wanted()) as made:
        reservation = ec2.api.describe_instances(InstanceIds=[made.id])["Reservations"][0]
        instance = reservation["Instances"][0]
        assert made == Instance(made.id, (instance["PrivateIpAddress"],), "m6a.large")
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert {"Key": "Name", "Value": "podvm-web-0a1b2c3d"} in instance["Tags"]
        data = ec2.api.describe_instance_attribute(InstanceId=made.id, Attribute="userData")["UserData"]["Value"]
        assert base64.b64decode(data) == b"#cloud-config\n"
        (volume,) = ec2.api.describe_volumes()["Volumes"]
        assert volume["Size"] == 30
        call = next(parameters for action, parameters in ec2.seen if action == "RunInstances")
        assert call["CpuOptions.AmdSevSnp"] == "enabled"  # moto takes it and does not tell it
    assert ec2.actions.count("RunInstances") == ec2.actions.count("TerminateInstances") == 1


async def test_types_and_image_are_looked_up_once(ec2: Ec2Server):
    async with opened(ec2) as provider:
        for sandbox in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
            async with machine(provider, wanted(sandbox)):
                pass
    assert ec2.actions.count("DescribeImages") == ec2.actions.count("DescribeInstanceTypes") == 1


async def test_the_numbers_of_a_pod_choose_its_type(ec2: Ec2Server):
    types = ("m6a.large", "m6a.xlarge", "m6a.2xlarge")
    async with opened(ec2, instance_types=types) as provider:
        async with machine(provider, wanted(vcpus=3, memory=9000)) as made:
            assert made.instance_type == "m6a.xlarge"
        async with machine(provider, wanted(instance_type="m6a.2xlarge")) as made:
            assert made.instance_type == "m6a.2xlarge"
        with pytest.raises(ProviderError, match=r"no instance type found for the given vcpus \(99\)"):
            await provider.create(wanted(vcpus=99, memory=1))


async def test_wishes_that_lead_to_the_same_type_and_image_are_alike(ec2: Ec2Server):
    async with opened(ec2, instance_types=("m6a.large", "m6a.xlarge")) as provider:
        assert isinstance(provider, Resolves)
        full = InstanceSpec("m6a.xlarge", image=ec2.image)
        for alike in (InstanceSpec(vcpus=3, memory=9000), InstanceSpec("m6a.xlarge", vcpus=1), full):
            assert await provider.resolve(alike) == full
        for other in (InstanceSpec(), InstanceSpec("m6a.xlarge", image="ami-2"), replace(full, multi_nic=True)):
            assert await provider.resolve(other) != full
        with pytest.raises(ProviderError, match="no instance type found"):
            await provider.resolve(InstanceSpec(vcpus=99, memory=1))


async def test_a_pods_own_image_is_measured_and_booted(ec2: Ec2Server):
    own = next(i["ImageId"] for i in ec2.api.describe_images()["Images"] if i["ImageId"] != ec2.image)
    async with opened(ec2) as provider, machine(provider, wanted(image=own)) as made:
        instance = ec2.api.describe_instances(InstanceIds=[made.id])["Reservations"][0]["Instances"][0]
        assert instance["ImageId"] == own


async def test_types_that_cannot_be_confidential_are_refused_with_the_way_out(ec2: Ec2Server):
    async with opened(ec2, instance_type="t3.small") as provider:
        with pytest.raises(ProviderError, match=r"t3.small cannot be \(AMD SEV-SNP\).*DISABLECVM=true"):
            await provider.create(wanted())
    assert "RunInstances" not in ec2.actions
    async with opened(ec2, instance_type="t3.small", disable_cvm=True) as provider, machine(provider, wanted()) as made:
        assert made.instance_type == "t3.small"


async def test_user_data_beyond_ec2s_limit_are_refused_before_any_call(ec2: Ec2Server):
    async with opened(ec2) as provider:
        with pytest.raises(ProviderError, match="user data have 20000 bytes, EC2 takes 16384"):
            await provider.create(replace(wanted(), user_data="x" * 20000))
    assert ec2.actions == []


async def test_with_a_public_address_the_machine_is_reached_by_it(ec2: Ec2Server):
    async with opened(ec2, use_public_ip=True) as provider, machine(provider, wanted()) as made:
        instance = ec2.api.describe_instances(InstanceIds=[made.id])["Reservations"][0]["Instances"][0]
        assert made.addresses == (instance["PublicIpAddress"],)


async def test_a_second_interface_comes_with_the_machine(ec2: Ec2Server):
    async with opened(ec2) as provider, machine(provider, wanted(multi_nic=True)) as made:
        assert len(set(made.addresses)) == 2
        assert "CreateNetworkInterface" not in ec2.actions


async def test_with_public_addresses_both_interfaces_have_one_and_all_of_it_goes(ec2: Ec2Server):
    async with opened(ec2, use_public_ip=True) as provider, machine(provider, wanted(multi_nic=True)) as made:
        instance = ec2.api.describe_instances(InstanceIds=[made.id])["Reservations"][0]["Instances"][0]
        first, second = sorted(instance["NetworkInterfaces"], key=lambda nic: nic["Attachment"]["DeviceIndex"])
        assert made.addresses == (first["Association"]["PublicIp"], second["PrivateIpAddress"])
        assert len(ec2.api.describe_addresses()["Addresses"]) == 1
        kinds = {thing.kind for thing in await provider.owned(OWNER)}
        assert kinds == {"instance", "volume", "network-interface", "elastic-ip"}


@pytest.mark.parametrize("last", ["ModifyNetworkInterfaceAttribute", "AllocateAddress", "AssociateAddress"])
async def test_a_second_interface_that_an_earlier_try_only_attached_is_completed(ec2: Ec2Server, last: str):
    request = wanted(multi_nic=True)

    def cut(action: str, call: Mapping[str, str]) -> None:
        if action == last:
            raise ConnectionError

    async with opened(ec2, use_public_ip=True) as provider:
        ec2.before = cut
        with pytest.raises(ProviderError):
            await provider.create(request)
        ec2.before = lambda action, call: None
        made = await provider.create(request)
        assert len(set(made.addresses)) == 2
        (address,) = ec2.api.describe_addresses()["Addresses"]
        assert address["PrivateIpAddress"] == made.addresses[1]
        assert ec2.actions.count("CreateNetworkInterface") == 1
        await provider.delete(request.target)


async def test_a_launch_template_says_what_the_machine_is(ec2: Ec2Server):
    data = {"ImageId": ec2.image, "InstanceType": "t3.small"}
    ec2.api.create_launch_template(LaunchTemplateName="kata", LaunchTemplateData=data)  # type: ignore[arg-type]
    try:
        async with opened(ec2, use_launch_template=True) as provider:
            assert [finding for finding in await provider.check() if not finding.passed] == []
            async with machine(provider, wanted(instance_type="ignored", image="ignored")) as made:
                assert made.instance_type == "t3.small"
    finally:
        ec2.api.delete_launch_template(LaunchTemplateName="kata")


# Section: fall-back


def ways(ec2: Ec2Server) -> list[tuple[str, str, bool]]:
    """The candidates that were tried."""
    return [
        (
            call["InstanceType"],
            call.get("SubnetId", ""),
            call.get("InstanceMarketOptions.MarketType") == "spot",
        )
        for action, call in ec2.seen
        if action == "RunInstances"
    ]


async def test_without_capacity_zones_then_prices_then_types_are_tried_in_order(ec2: Ec2Server):
    one, two, *_ = ec2.subnets

    def scarce(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances" and not (call["InstanceType"] == "m6a.xlarge" and call["SubnetId"] == two):
            raise NO_CAPACITY

    ec2.before = scarce
    settings = {"subnets": (two,), "fallback_types": ("m6a.xlarge",), "use_spot": "prefer"}
    async with opened(ec2, **settings) as provider, machine(provider, wanted()) as made:
        assert made.instance_type == "m6a.xlarge"
        assert ways(ec2) == [
            ("m6a.large", one, True), ("m6a.large", two, True), ("m6a.large", one, False), ("m6a.large", two, False),
            ("m6a.xlarge", one, True), ("m6a.xlarge", two, True),
        ]  # fmt: skip


async def test_when_nothing_has_capacity_the_error_tells_all_that_was_tried(ec2: Ec2Server):
    def scarce(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances":
            raise NO_CAPACITY

    ec2.before = scarce
    one, two, *_ = ec2.subnets
    async with opened(ec2, subnets=(two,)) as provider:
        with pytest.raises(ProviderError) as error:
            await provider.create(wanted())
    assert error.value.fault is Fault.CAPACITY
    tried = f"tried m6a.large in {one}: InsufficientInstanceCapacity; m6a.large in {two}: InsufficientInstanceCapacity"
    assert tried in str(error.value)
    assert "PODVM_FALLBACK_INSTANCE_TYPES" in error.value.hint


async def test_a_used_up_quota_of_spot_machines_leads_to_one_at_full_price(ec2: Ec2Server):
    def limited(action: str, call: Mapping[str, str]) -> None:
        if "InstanceMarketOptions.MarketType" in call:
            raise Refusal("MaxSpotInstanceCountExceeded")

    ec2.before = limited
    async with opened(ec2, use_spot="prefer") as provider, machine(provider, wanted()):
        assert [spot for *_, spot in ways(ec2)] == [True, False]


async def test_what_needs_a_person_is_not_tried_elsewhere(ec2: Ec2Server):
    def forbidden(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances":
            raise Refusal("UnauthorizedOperation", "You are not authorized", 403)

    ec2.before = forbidden
    async with opened(ec2, subnets=tuple(ec2.subnets)) as provider:
        with pytest.raises(ProviderError, match="may not do this") as error:
            await provider.create(wanted())
    assert error.value.fault is Fault.FATAL
    assert ec2.actions.count("RunInstances") == 1


async def test_the_second_try_finds_what_the_first_made_of_another_candidate(ec2: Ec2Server):
    one, two, *_ = ec2.subnets
    scarce = True

    def briefly_scarce(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances" and scarce and call["SubnetId"] == one:
            raise NO_CAPACITY

    ec2.before = briefly_scarce
    async with opened(ec2, subnets=(two,)) as provider, machine(provider, wanted()) as made:
        scarce = False
        async with opened(ec2, subnets=(two,)) as restarted:
            assert (await restarted.create(wanted())).id == made.id


# Section: what is interrupted


async def test_a_lost_answer_does_not_make_a_second_machine(ec2: Ec2Server):
    lost = iter([True])

    def lose(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances" and next(lost, False):
            raise ConnectionError

    ec2.after = lose
    async with opened(ec2) as provider, machine(provider, wanted()):
        assert ec2.actions.count("RunInstances") == 2
        assert len([thing for thing in await provider.owned(OWNER) if thing.kind == "instance"]) == 1


async def test_throttled_calls_are_made_again(ec2: Ec2Server):
    times = iter([1, 2])

    def throttle(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances" and next(times, 0):
            raise Refusal("RequestLimitExceeded", "Request limit exceeded.", 503)

    ec2.before = throttle
    async with opened(ec2) as provider, machine(provider, wanted()):
        assert ec2.actions.count("RunInstances") == 3


async def test_after_its_deletion_a_machine_can_be_asked_for_again_though_ec2_knows_the_token(ec2: Ec2Server):
    ec2.remembers = True
    async with opened(ec2) as provider:
        async with machine(provider, wanted("ffffffffffff")) as first:
            pass
        async with machine(provider, wanted("ffffffffffff")) as second:
            assert (await provider.create(wanted("ffffffffffff"))).id == second.id != first.id
    assert ec2.actions.count("RunInstances") == 3


class Trouble:
    """Cuts the nth call and, if lasting, all after it."""

    def __init__(self, number: int, *, lasting: bool) -> None:
        self.number = number
        self.lasting = lasting
        self.calls = 0

    def __call__(self, action: str, call: Mapping[str, str]) -> None:
        self.calls += 1
        if self.calls == self.number or (self.lasting and self.calls > self.number):
            raise ConnectionError


@pytest.mark.parametrize(
    ("late", "lasting"),
    [(False, True), (True, False), (True, True)],
    ids=["before for good", "after once", "after for good"],
)
async def test_whichever_call_is_cut_nothing_is_left_after_the_deletion(ec2: Ec2Server, late: bool, lasting: bool):
    request = wanted(multi_nic=True)
    before = ec2.objects()
    number, reached, faults = 1, True, []
    async with opened(ec2, use_public_ip=True) as provider, opened(ec2) as later:
        while reached:
            trouble = Trouble(number, lasting=lasting)
            if late:
                ec2.after = trouble
            else:
                ec2.before = trouble
            try:
                await provider.create(request)
            except ProviderError as error:
                faults.append(error.fault)
            reached = trouble.calls >= number
            ec2.before = ec2.after = lambda action, call: None
            await later.delete(request.target)
            assert await later.owned(OWNER) == []
            assert ec2.objects() == before, f"call {number}"
            number += 1
    assert number > 10  # all the calls of a machine with two interfaces were cut
    assert faults == ([Fault.TRANSIENT] * (number - 2) if lasting else [])


async def test_whenever_a_creation_is_cancelled_nothing_is_left_after_the_deletion(ec2: Ec2Server):
    request = wanted(multi_nic=True)
    before = ec2.objects()
    loop = asyncio.get_running_loop()
    number, reached = 1, True
    async with opened(ec2, use_public_ip=True) as provider:
        while reached:
            creating = asyncio.create_task(provider.create(request), name="create")
            calls = 0

            def cancel(
                action: str, call: Mapping[str, str], number: int = number, creating: asyncio.Task[Instance] = creating
            ) -> None:
                nonlocal calls
                calls += 1
                if calls == number:
                    loop.call_soon_threadsafe(creating.cancel)

            ec2.before = cancel
            await asyncio.wait([creating])
            reached = calls >= number
            ec2.before = lambda action, call: None
            await provider.delete(request.target)
            assert ec2.objects() == before, f"call {number}"
            number += 1
    assert number > 10


async def test_what_ec2_does_not_show_yet_is_deleted_all_the_same(ec2: Ec2Server):
    async with opened(ec2) as provider:
        await provider.create(wanted())
    async with opened(ec2, settle_time=Duration(2.0)) as later:  # it knows neither the id nor when it was made
        ec2.hidden = 12
        await asyncio.wait_for(later.delete(wanted().target), 15)
    assert ec2.hidden == 0
    assert "TerminateInstances" in ec2.actions


async def test_what_was_refused_needs_no_waiting(ec2: Ec2Server):
    def forbidden(action: str, call: Mapping[str, str]) -> None:
        if action == "RunInstances":
            raise Refusal("UnauthorizedOperation")

    async with opened(ec2, settle_time=Duration(0.5)) as provider:
        await asyncio.sleep(0.5)  # until what an earlier process made would show
        ec2.before = forbidden
        with pytest.raises(ProviderError):
            await provider.create(wanted())
        ec2.seen.clear()
        await provider.delete(wanted().target)
        assert len(ec2.actions) == len(inventory.KINDS)


# Section: deleting


async def test_deleting_what_is_not_there_is_no_error_and_no_bad_id_is_sent(ec2: Ec2Server):
    async with opened(ec2) as provider:
        for id in ("", "i-", "i-0123456789abcdef0", "podvm", "i-0123; drop"):
            await provider.delete(Target("nobodys", "podvm-web-nobodys", id))
        await provider.delete(Target("", "podvm", ""))
    assert {action[:8] for action in ec2.actions} == {"Describe"}
    sent = {value for _, call in ec2.seen for key, value in call.items() if key.startswith("Filter")}
    assert not sent & {"", "i-", "podvm", "i-0123; drop"}


async def test_a_machine_without_our_tags_is_deleted_by_its_id(ec2: Ec2Server):
    (made,) = ec2.api.run_instances(ImageId=ec2.image, MinCount=1, MaxCount=1)["Instances"]
    async with opened(ec2) as provider:
        await provider.delete(Target("older", "podvm-web-older", made["InstanceId"]))


async def test_what_may_not_be_deleted_is_told_at_once(ec2: Ec2Server):
    def forbidden(action: str, call: Mapping[str, str]) -> None:
        if action == "TerminateInstances":
            raise Refusal("UnauthorizedOperation", "not authorized to perform TerminateInstances", 403)

    async with opened(ec2) as provider, machine(provider, wanted()):
        ec2.before = forbidden
        with pytest.raises(ProviderError, match=r"removing instance i-.*TerminateInstances"):
            await provider.delete(wanted().target)
        ec2.before = lambda action, call: None


async def test_what_does_not_go_is_named_when_the_time_is_over(ec2: Ec2Server):
    def busy(action: str, call: Mapping[str, str]) -> None:
        if action == "DeleteVolume":
            raise Refusal("VolumeInUse")

    async with opened(ec2, delete_timeout=Duration(1.0)) as provider:
        volume = ec2.api.create_volume(
            AvailabilityZone=f"{REGION}a", Size=1,
            TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": SANDBOX_TAG, "Value": "0a1b2c3d4e5f"}]}],
        )["VolumeId"]  # fmt: skip
        ec2.before = busy
        with pytest.raises(ProviderError, match=f"still there after 1 s: volume {volume}"):
            await provider.delete(wanted().target)
        ec2.before = lambda action, call: None
        await provider.delete(wanted().target)


# Section: looking


async def test_all_pages_are_read(ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch):
    sandboxes = [f"{number:012x}" for number in range(7)]
    monkeypatch.setattr(inventory, "_PAGES", {"PageSize": 5})
    async with opened(ec2) as provider:
        await asyncio.gather(*(provider.create(wanted(sandbox)) for sandbox in sandboxes))
        ec2.seen.clear()
        found = [thing.sandbox_id for thing in await provider.owned(OWNER) if thing.kind == "instance"]
        assert sorted(found) == sandboxes
        assert ec2.actions.count("DescribeInstances") == 2
        assert await provider.owned("") == []
        await asyncio.gather(*(provider.delete(wanted(sandbox).target) for sandbox in sandboxes))


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The account's quotas by their codes; moto has none of EC2."""
    values = {"L-1216C47A": 32.0, "L-34B43A08": 32.0}
    monkeypatch.setattr(
        ServiceQuotasBackend,
        "get_service_quota",
        lambda self, service_code, quota_code: {"ServiceCode": service_code, "Value": values[quota_code]},
    )
    return values


@pytest.mark.usefixtures("quota")
async def test_a_check_makes_nothing_and_names_what_it_saw(ec2: Ec2Server):
    async with opened(ec2) as provider:
        findings = await provider.check()
    assert [finding for finding in findings if finding.verdict != "ok"] == []
    subjects = " ".join(finding.subject for finding in findings)
    for word in (
        "image ami-",
        "subnet subnet-",
        "security group sg-",
        "instance type m6a.large",
        "permission to start machines",
        "permission to end machines",
        "permission to see each volume",
        "quota",
    ):
        assert word in subjects
    changing = [call for action, call in ec2.seen if not action.startswith("Describe") and call.get("DryRun") != "true"]
    assert {call.get("Action", "") for call in changing} <= {""}  # Service Quotas' call is no EC2 action


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"image": "ami-0123456789abcdef0"}, "image ami-0123456789abcdef0"),
        ({"subnets": ("subnet-0123456789abcdef0",)}, "subnets"),
        ({"instance_type": "zz.large"}, "instance types zz.large"),
        ({"instance_type": "t3.small"}, "instance types t3.small"),
        ({"key_name": "missing"}, "key pair missing"),
        ({"use_launch_template": True, "launch_template": "missing"}, "launch template missing"),
    ],
)
async def test_a_check_tells_what_is_wrong_and_what_to_do(ec2: Ec2Server, changes: Mapping[str, object], subject: str):
    async with opened(ec2, **changes) as provider:
        failed = [finding for finding in await provider.check() if not finding.passed]
    assert subject in [finding.subject for finding in failed]
    assert all(finding.detail for finding in failed)


@pytest.mark.parametrize(
    ("action", "subject"),
    [
        ("RunInstances", "permission to start machines"),
        ("TerminateInstances", "permission to end machines"),
        ("DescribeVolumes", "permission to see each volume"),
        ("DescribeAddresses", "permission to see each elastic-ip"),
    ],
)
@pytest.mark.usefixtures("quota")
async def test_a_check_tells_what_the_adaptor_may_not_do(ec2: Ec2Server, action: str, subject: str):
    def forbidden(called: str, call: Mapping[str, str]) -> None:
        if called == action:
            raise Refusal("UnauthorizedOperation", "You are not authorized", 403)

    ec2.before = forbidden
    async with opened(ec2) as provider:
        failed = [finding for finding in await provider.check() if not finding.passed]
    assert [finding.subject for finding in failed] == [subject]
    assert "may not do this" in failed[0].detail


async def test_a_machine_that_is_not_there_is_enough_to_try_whether_machines_may_be_ended(ec2: Ec2Server):
    def missing(action: str, call: Mapping[str, str]) -> None:
        if action == "TerminateInstances":
            raise Refusal("InvalidInstanceID.NotFound", "The instance ID does not exist")

    ec2.before = missing
    async with opened(ec2) as provider:
        verdicts = {finding.subject: finding.verdict for finding in await provider.check()}
    assert verdicts["permission to end machines"] == "ok"


async def test_to_try_whether_machines_may_be_ended_one_of_an_adaptors_is_taken_and_stays(ec2: Ec2Server):
    async with opened(ec2) as provider, machine(provider, wanted()) as made:
        ec2.seen.clear()
        await provider.check()
        (tried,) = [call for action, call in ec2.seen if action == "TerminateInstances"]
        assert (tried["InstanceId.1"], tried["DryRun"]) == (made.id, "true")
        assert made.id in [thing.id for thing in await provider.owned(OWNER)]


@pytest.mark.parametrize(("spot", "code"), [("no", "L-1216C47A"), ("only", "L-34B43A08")])
async def test_what_runs_already_counts_against_its_own_quota(
    ec2: Ec2Server, quota: dict[str, float], spot: str, code: str
):
    quota[code] = 2.0
    async with opened(ec2, use_spot="no") as full_price, opened(ec2, use_spot=spot) as provider:
        assert [finding for finding in await provider.check() if not finding.passed] == []
        async with machine(full_price, wanted()):
            failed = [finding for finding in await provider.check() if not finding.passed]
            if spot == "only":
                assert failed == []
            else:
                (short,) = failed
                assert short.subject == "quota of on-demand vCPUs"
                assert "2 of 2 vCPUs run in the account, m6a.large has 2" in short.detail


async def test_a_quota_that_is_too_low_for_one_machine_is_told(ec2: Ec2Server, quota: dict[str, float]):
    quota["L-1216C47A"] = 1.0
    async with opened(ec2) as provider:
        (failed,) = [finding for finding in await provider.check() if not finding.passed]
    assert "0 of 1 vCPUs run in the account, m6a.large has 2" in failed.detail


async def test_a_quota_that_cannot_be_looked_at_is_told_as_unseen(ec2: Ec2Server):
    async with opened(ec2) as provider:
        (unseen,) = [finding for finding in await provider.check() if finding.verdict != "ok"]
    assert (unseen.subject, unseen.verdict) == ("quota of on-demand vCPUs", "UNSEEN")
    assert "could not be looked at" in unseen.detail


async def test_without_a_region_it_does_not_open(monkeypatch: pytest.MonkeyPatch, ec2: Ec2Server):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(ProviderError, match=r"no region is set.*AWS_REGION"):
        async with opened(ec2, region="", endpoint_url=""):
            pass


async def test_secrets_are_not_in_the_configurations_text(ec2: Ec2Server):
    assert "test" not in repr(aws_cloud.config_of(ec2)).replace(ec2.url, "")
