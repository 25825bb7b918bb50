"""The Azure provider against an Azure Resource Manager of ours, over TLS, through Azure's own library."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.faults import Backoff, RetryPolicy
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, InstanceRequest, InstanceSpec, Resolves, Target
from kata_caa.providers.azure.client import Connection
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.provider import AzureProvider, open_provider
from kata_caa.settings import Duration
from tests.arm import tls
from tests.arm.cloud import COMMUNITY_IMAGE, IMAGE, SECURITY_GROUP, SHARED_IMAGE, SUBNET, Refusal
from tests.arm.config import CONFIG
from tests.arm.faults import Harm
from tests.arm.server import Credential, Server, serve

SANDBOX = "5" * 64
TARGET = Target(SANDBOX, "podvm-web-55555555")
TAGS = ((OWNER_TAG, "node-1"), (SANDBOX_TAG, SANDBOX))
REQUEST = InstanceRequest(TARGET, "token-1", "#cloud-config\n", tags=TAGS)
PLAIN = dataclasses.replace(CONFIG, disable_cvm=True, size="Standard_D2as_v5")
ROUNDS = RetryPolicy(backoffs={Fault.QUOTA: Backoff(again=1)})
BOUND = 30.0  # seconds
SHORTAGE = Refusal(409, "AllocationFailed", "Allocation failed. We do not have sufficient capacity.")
NO_QUOTA = Refusal(409, "OperationNotAllowed", "exceeding approved standardDASv5Family Cores quota")
NO_SPOT_QUOTA = Refusal(409, "OperationNotAllowed", "exceeding approved LowPriorityCores quota")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls.make(tmp_path_factory.mktemp("arm"))


@pytest.fixture
async def arm(certificates) -> AsyncIterator[Server]:
    async with serve(certificates[0]) as server:
        yield server


@pytest.fixture
def azure(arm: Server, certificates):
    @asynccontextmanager
    async def opened(config: AzureConfig = CONFIG) -> AsyncIterator[AzureProvider]:
        connection = Connection(Credential(), certificates[1], backoff=0.001)
        async with open_provider(dataclasses.replace(config, endpoint=arm.url), connection, ROUNDS) as provider:
            yield provider

    return opened


async def test_a_confidential_machine_is_made_with_all_its_parts_tagged_from_the_first_moment(arm: Server, azure):
    config = dataclasses.replace(CONFIG, secure_boot=True, security_group=SECURITY_GROUP, use_public_ip=True)
    async with azure(config) as provider:
        instance = await provider.create(REQUEST)
    assert instance.id.endswith(f"/virtualMachines/{TARGET.name}")
    assert instance.addresses == ("20.0.0.1", "10.0.0.4")
    assert instance.instance_type == "Standard_DC2as_v5"
    (body,) = arm.cloud.bodies
    properties = body["properties"]
    assert properties["securityProfile"] == {
        "securityType": "ConfidentialVM",
        "uefiSettings": {"vTpmEnabled": True, "secureBootEnabled": True},
    }
    disk = properties["storageProfile"]["osDisk"]
    assert disk["managedDisk"]["securityProfile"] == {"securityEncryptionType": "VMGuestStateOnly"}
    assert (disk["deleteOption"], disk["name"]) == ("Delete", f"{TARGET.name}-disk")
    assert base64.b64decode(properties["userData"]) == b"#cloud-config\n"
    for trees in arm.cloud.resources.values():
        (tree,) = trees.values()
        assert tree["tags"] == {**dict(TAGS), "team": "blue", "kata-py-token": "token-1"}


async def test_a_plain_machine_has_no_security_profile_and_its_private_address(arm: Server, azure):
    async with azure(dataclasses.replace(PLAIN, root_volume_size=40, image=COMMUNITY_IMAGE)) as provider:
        instance = await provider.create(REQUEST)
    (body,) = arm.cloud.bodies
    assert "securityProfile" not in body["properties"]
    assert body["properties"]["storageProfile"]["imageReference"] == {"communityGalleryImageId": COMMUNITY_IMAGE}
    assert body["properties"]["storageProfile"]["osDisk"]["diskSizeGB"] == 40
    assert instance.addresses == ("10.0.0.4",)
    assert not arm.cloud.resources["publicIPAddresses"]


async def test_a_second_interface_is_made_where_the_pod_needs_one(azure):
    async with azure(dataclasses.replace(CONFIG, use_public_ip=True)) as provider:
        instance = await provider.create(dataclasses.replace(REQUEST, spec=InstanceSpec(multi_nic=True)))
        assert instance.addresses == ("20.0.0.1", "10.0.0.5")
        await provider.delete(TARGET)
        assert await provider.owned("node-1") == []


async def test_a_disk_that_did_not_get_the_machines_tags_is_tagged(arm: Server, azure):
    arm.cloud.disk_inherits_tags = False
    async with azure() as provider:
        await provider.create(REQUEST)
        assert {owned.kind for owned in await provider.owned("node-1")} == {
            "virtual-machine", "network-interface", "disk",
        }  # fmt: skip
    (disk,) = arm.cloud.resources["disks"].values()
    assert disk["tags"][SANDBOX_TAG] == SANDBOX


async def test_the_same_request_again_gives_the_same_machine(arm: Server, azure):
    async with azure() as provider:
        first = await provider.create(REQUEST)
        assert await provider.create(REQUEST) == first
    assert len(arm.cloud.bodies) == 1


async def test_two_tries_at_once_make_one_machine(arm: Server, azure):
    async with azure() as provider:
        one, other = await asyncio.gather(provider.create(REQUEST), provider.create(REQUEST))
    assert one == other
    assert len(arm.cloud.bodies) == 1


async def test_another_try_at_the_sandbox_replaces_what_is_left_of_the_earlier_one(arm: Server, azure):
    async with azure() as provider:
        await provider.create(REQUEST)
        await provider.create(dataclasses.replace(REQUEST, token="token-2", user_data="#cloud-config\n# 2\n"))
    assert len(arm.cloud.bodies) == 2
    (machine,) = arm.cloud.resources["virtualMachines"].values()
    assert machine["tags"]["kata-py-token"] == "token-2"


@pytest.mark.parametrize("tags", [{}, {SANDBOX_TAG: "6" * 64, OWNER_TAG: "node-2"}, {"team": "red"}])
async def test_a_foreign_machine_of_the_same_name_is_neither_changed_nor_deleted(arm: Server, azure, tags):
    async with azure() as provider:
        await provider.create(REQUEST)
        for trees in arm.cloud.resources.values():
            for tree in trees.values():
                tree["tags"] = dict(tags)
        before = repr(arm.cloud.resources)
        with pytest.raises(ProviderError, match="not of this pod") as caught:
            await provider.create(REQUEST)
        assert caught.value.fault is Fault.FATAL
        await provider.delete(TARGET)
        assert repr(arm.cloud.resources) == before


async def test_of_a_machine_that_upstreams_adaptor_made_the_id_is_enough(arm: Server, azure):
    async with azure() as provider:
        made = await provider.create(REQUEST)
        for trees in arm.cloud.resources.values():
            for tree in trees.values():
                tree["tags"] = {}
        await provider.delete(Target("", "", "/no/id"))
        assert not arm.cloud.is_empty()
        await provider.delete(Target("", "", made.id))
        assert arm.cloud.is_empty()


async def test_a_machine_of_ours_is_not_deleted_for_its_id_alone(arm: Server, azure):
    async with azure() as provider:
        made = await provider.create(REQUEST)
        await provider.delete(Target("", "", made.id))
        assert not arm.cloud.is_empty()


async def test_untagged_parts_of_another_machine_stay(arm: Server, azure):
    async with azure() as provider:
        await provider.create(REQUEST)
        (disk,) = arm.cloud.resources["disks"].values()
        other = disk["managedBy"].replace(TARGET.name, "database")
        disk |= {"managedBy": other, "tags": {}}
        await provider.delete(TARGET)
    assert arm.cloud.names() == {"disks": [f"{TARGET.name}-disk"]}


async def test_deleting_leaves_nothing_and_may_be_repeated(arm: Server, azure):
    async with azure(dataclasses.replace(CONFIG, use_public_ip=True)) as provider:
        await provider.create(REQUEST)
        await provider.delete(TARGET)
        assert arm.cloud.is_empty()
        await provider.delete(TARGET)


async def test_a_machine_is_made_and_deleted_where_a_location_alone_tells_how_far_it_is(arm: Server, azure):
    arm.by_location = arm.cloud.leaves_parts = True
    async with azure(dataclasses.replace(CONFIG, use_public_ip=True)) as provider:
        instance = await provider.create(REQUEST)
        assert instance.addresses == ("20.0.0.1", "10.0.0.4")
        await provider.delete(TARGET)
    assert arm.cloud.is_empty()
    assert not any("/operations/" in path for _, path in arm.calls)


@pytest.mark.parametrize("by_location", [False, True])
async def test_a_deletion_that_begins_well_and_then_fails_is_tried_again(arm: Server, azure, by_location):
    arm.by_location, arm.cloud.leaves_parts = by_location, True
    async with azure(dataclasses.replace(CONFIG, use_public_ip=True)) as provider:
        await provider.create(REQUEST)
        arm.cloud.undeleted = [Refusal(409, "AnotherOperationInProgress")] * 3
        await provider.delete(TARGET)
    assert arm.cloud.undeleted == []
    assert arm.cloud.is_empty()


@pytest.mark.parametrize("inherits", [True, False])
async def test_parts_that_survive_their_machine_are_deleted_in_order(arm: Server, azure, inherits):
    arm.cloud.leaves_parts, arm.cloud.reserved = True, 2
    async with azure(dataclasses.replace(CONFIG, use_public_ip=True)) as provider:
        await provider.create(REQUEST)
        if not inherits:
            for disk in arm.cloud.resources["disks"].values():
                del disk["tags"]
        await provider.delete(TARGET)
    assert arm.cloud.is_empty()


async def test_what_cannot_be_deleted_in_time_is_named(arm: Server, azure):
    arm.cloud.leaves_parts, arm.cloud.reserved = True, 10**6
    async with azure(dataclasses.replace(CONFIG, delete_timeout=Duration(1.0))) as provider:
        await provider.create(REQUEST)
        with pytest.raises(ProviderError, match=f"network-interface {TARGET.name}-net still there") as caught:
            await provider.delete(TARGET)
    assert caught.value.code == "NicReservedForAnotherVm"


async def test_of_many_machines_one_is_deleted_and_the_others_are_owned(arm: Server, azure):
    async with azure(PLAIN) as provider:
        for digit in "1234567":
            target = Target(digit * 64, f"podvm-web-{digit * 8}")
            owner = "node-1" if digit < "6" else "node-2"
            tags = ((OWNER_TAG, owner), (SANDBOX_TAG, target.sandbox_id))
            await provider.create(InstanceRequest(target, "t", "#cloud-config\n", tags=tags))
        await provider.delete(Target("1" * 64, f"podvm-web-{'1' * 8}"))
        owned = await provider.owned("node-1")
    assert sorted((each.kind, each.sandbox_id[0]) for each in owned) == sorted(
        (kind, digit) for kind in ("virtual-machine", "network-interface", "disk") for digit in "2345"
    )


async def test_an_untagged_disk_of_an_owned_machine_is_owned(arm: Server, azure):
    async with azure() as provider:
        await provider.create(REQUEST)
        for disk in arm.cloud.resources["disks"].values():
            del disk["tags"]
        owned = await provider.owned("node-1")
    assert ("disk", SANDBOX) in {(each.kind, each.sandbox_id) for each in owned}


@pytest.mark.parametrize("refusal", [SHORTAGE, NO_QUOTA], ids=["capacity", "quota"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_without_capacity_or_quota_the_next_zone_and_then_the_next_size_is_taken(
    arm: Server, azure, at_once, refusal
):
    arm.cloud.at_once = at_once
    arm.cloud.shortages = {("Standard_D2as_v5", zone): refusal for zone in ("1", "2")}
    config = dataclasses.replace(
        PLAIN, zones=("1", "2"), fallback_sizes=("Standard_D4as_v5", "Standard_DC4as_v5"), use_spot="prefer"
    )
    async with azure(config) as provider:
        instance = await provider.create(REQUEST)
        assert instance.instance_type == "Standard_D4as_v5"
        ways = [
            (body["properties"]["hardwareProfile"]["vmSize"], body["zones"][0], body["properties"].get("priority"))
            for body in arm.cloud.bodies
        ]
        assert ways == [
            ("Standard_D2as_v5", "1", "Spot"), ("Standard_D2as_v5", "2", "Spot"),
            ("Standard_D2as_v5", "1", None), ("Standard_D2as_v5", "2", None),
            ("Standard_D4as_v5", "1", "Spot"),
        ]  # fmt: skip
        await provider.delete(TARGET)
    assert arm.cloud.is_empty()


async def test_a_used_up_quota_of_spot_machines_leads_to_one_at_full_price(arm: Server, azure):
    arm.cloud.spot_shortage = NO_SPOT_QUOTA
    async with azure(dataclasses.replace(PLAIN, use_spot="prefer")) as provider:
        await provider.create(REQUEST)
    assert [body["properties"].get("priority") for body in arm.cloud.bodies] == ["Spot", None]


async def test_when_there_is_no_way_left_the_error_tells_all_that_was_tried(arm: Server, azure):
    arm.cloud.shortages = {("Standard_D2as_v5", "1"): NO_QUOTA, ("Standard_D2as_v5", "2"): SHORTAGE}
    async with azure(dataclasses.replace(PLAIN, zones=("1", "2"))) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.create(REQUEST)
        await provider.delete(TARGET)
    assert caught.value.fault is Fault.QUOTA
    tried = "tried Standard_D2as_v5 in 1: OperationNotAllowed; Standard_D2as_v5 in 2: AllocationFailed"
    assert tried in str(caught.value)
    assert len(arm.cloud.bodies) == 4  # quotas are waited for, here once


async def test_what_needs_a_person_is_not_tried_elsewhere(arm: Server, azure):
    arm.cloud.shortages = {("Standard_D2as_v5", "1"): Refusal(409, "RequestDisallowedByPolicy")}
    async with azure(dataclasses.replace(PLAIN, zones=("1", "2"))) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.create(REQUEST)
        await provider.delete(TARGET)
    assert caught.value.fault is Fault.FATAL
    assert len(arm.cloud.bodies) == 1


async def test_a_zone_that_the_subscription_may_not_use_is_not_tried(arm: Server, azure):
    async with azure(dataclasses.replace(PLAIN, size="Standard_D4as_v5", zone="2", zones=("3",))) as provider:
        await provider.create(REQUEST)
    assert [body["zones"] for body in arm.cloud.bodies] == [["3"]]


async def test_a_pod_with_gpus_gets_a_size_with_gpus(azure):
    config = dataclasses.replace(PLAIN, sizes=("Standard_D2as_v5", "Standard_NC4as_T4_v3"))
    async with azure(config) as provider:
        instance = await provider.create(dataclasses.replace(REQUEST, spec=InstanceSpec(gpus=1)))
    assert instance.instance_type == "Standard_NC4as_T4_v3"


async def test_wishes_that_lead_to_the_same_size_and_image_are_alike(azure):
    async with azure(dataclasses.replace(PLAIN, sizes=("Standard_D2as_v5", "Standard_D4as_v5"))) as provider:
        assert isinstance(provider, Resolves)
        full = InstanceSpec("Standard_D4as_v5", image=CONFIG.image)
        for alike in (InstanceSpec(vcpus=3, memory=9000), InstanceSpec("Standard_D4as_v5"), full):
            assert await provider.resolve(alike) == full
        assert await provider.resolve(InstanceSpec()) == InstanceSpec("Standard_D2as_v5", image=CONFIG.image)
        assert (await provider.resolve(InstanceSpec(image="another"))).image == "another"


async def test_where_skus_may_not_be_read_the_regions_sizes_serve(arm: Server, azure):
    arm.forbidden = "/skus"
    config = dataclasses.replace(PLAIN, sizes=("Standard_D2as_v5", "Standard_D8as_v5"))
    async with azure(config) as provider:
        spec = InstanceSpec(vcpus=3, memory=8192)
        assert (await provider.create(dataclasses.replace(REQUEST, spec=spec))).instance_type == "Standard_D8as_v5"


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        (Refusal(409, "OSProvisioningTimedOut"), Fault.TRANSIENT),
        (Refusal(409, "AllocationFailed"), Fault.CAPACITY),
        (Refusal(409, "OperationNotAllowed", "exceeding approved standardDCASv5Family Cores quota"), Fault.QUOTA),
        (
            Refusal(409, "DeploymentFailed", details=[{"code": "RequestDisallowedByPolicy", "message": "no"}]),
            Fault.FATAL,
        ),
    ],
)
@pytest.mark.parametrize("by_location", [False, True])
async def test_a_machine_that_fails_while_it_is_made_is_deleted_by_the_sandboxs_names(
    arm: Server, azure, failure, fault, by_location
):
    arm.by_location = by_location
    arm.cloud.shortages = {("Standard_DC2as_v5", ""): failure}
    async with azure(dataclasses.replace(CONFIG, use_public_ip=True)) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.create(REQUEST)
        assert caught.value.fault is fault
        assert not arm.cloud.is_empty()
        await provider.delete(TARGET)
        assert await provider.owned("node-1") == []
    assert arm.cloud.is_empty()


async def test_a_machine_that_never_reports_is_given_up_in_time(arm: Server, azure):
    arm.cloud.looks = 10**9
    async with azure(dataclasses.replace(CONFIG, create_timeout=Duration(0.5))) as provider:
        with pytest.raises(ProviderError, match="not ready after") as caught:
            await provider.create(REQUEST)
        assert caught.value.fault is Fault.TRANSIENT
        arm.cloud.looks = 1
        await provider.delete(TARGET)
    assert arm.cloud.is_empty()


async def test_a_throttled_call_waits_as_long_as_it_is_told(arm: Server, azure):
    async with azure() as provider:
        arm.throttled = 1
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await provider.create(REQUEST)
        assert loop.time() - begun >= 1.0


async def calls_of_a_creation(arm: Server, azure, config: AzureConfig) -> int:
    async with azure(config) as provider:
        arm.heal()
        await provider.create(REQUEST)
        calls = arm.schedule.calls
        await provider.delete(TARGET)
    return calls


@pytest.mark.parametrize("harm", Harm)
async def test_whatever_call_of_a_creation_fails_deleting_leaves_nothing(arm: Server, azure, harm: Harm):
    config = dataclasses.replace(CONFIG, use_public_ip=True)
    calls = await calls_of_a_creation(arm, azure, config)
    assert calls >= 6
    async with asyncio.timeout(BOUND), azure(config) as provider:
        for at in range(1, calls + 1):
            schedule = arm.harm(harm, at)
            creation = asyncio.create_task(provider.create(REQUEST), name=f"creation harmed at {at}")
            struck = asyncio.create_task(schedule.struck.wait())
            await asyncio.wait([creation, struck], return_when=asyncio.FIRST_COMPLETED)
            if harm in (Harm.HUNG_BEFORE, Harm.HUNG_AFTER):
                await struck
                creation.cancel()
            outcome = (await asyncio.gather(creation, return_exceptions=True))[0]
            await struck
            if harm in (Harm.REFUSED, Harm.FAILED, Harm.LOST):
                assert isinstance(outcome, ProviderError), (at, outcome)
            elif harm in (Harm.CUT_BEFORE, Harm.CUT_AFTER):
                assert not isinstance(outcome, BaseException), (at, outcome)
            arm.heal()
            await provider.delete(TARGET)
            assert await provider.owned("node-1") == [], (at, arm.calls[-20:])
            assert arm.cloud.is_empty(), (at, arm.cloud.names())


async def time_of_a_deletion(azure, config: AzureConfig) -> float:
    loop = asyncio.get_running_loop()
    async with azure(config) as provider:
        await provider.create(REQUEST)
        begun = loop.time()
        await provider.delete(TARGET)
        return loop.time() - begun


@pytest.mark.parametrize("harm", [Harm.REFUSED, Harm.FAILED])
async def test_whatever_call_of_a_deletion_fails_the_next_one_leaves_nothing(arm: Server, azure, harm: Harm):
    arm.cloud.leaves_parts = True
    config = dataclasses.replace(CONFIG, use_public_ip=True)
    if harm is Harm.FAILED:  # what stays wrong is tried until the limit
        limit = max(0.15, 1.5 * await time_of_a_deletion(azure, config))
        config = dataclasses.replace(config, delete_timeout=Duration(limit))
    async with asyncio.timeout(3 * BOUND), azure(config) as provider:
        at = 0
        while True:
            at += 1
            arm.heal()
            await provider.create(REQUEST)
            schedule = arm.harm(harm, at)
            (outcome,) = await asyncio.gather(provider.delete(TARGET), return_exceptions=True)
            if not schedule.struck.is_set():
                if outcome is None:
                    break  # a deletion has fewer calls
                at -= 1  # it was too slow to come so far
            assert outcome is None or isinstance(outcome, ProviderError), (at, outcome)
            assert outcome is not None or arm.cloud.is_empty(), (at, arm.cloud.names())
            arm.heal()
            while not arm.cloud.is_empty():  # the limit may be too short for a slow machine
                await asyncio.gather(provider.delete(TARGET), return_exceptions=harm is Harm.FAILED)
    assert at > 10


async def test_a_check_of_what_is_well_passes_and_changes_nothing(arm: Server, azure):
    config = dataclasses.replace(CONFIG, security_group=SECURITY_GROUP, sizes=("Standard_DC4as_v5",), zone="1")
    async with azure(config) as provider:
        findings = await provider.check()
    assert [each for each in findings if not each.passed] == []
    assert len(findings) == 8
    assert all(each.seen for each in findings)
    assert arm.cloud.is_empty()
    assert {method for method, _ in arm.calls} == {"GET"}


@pytest.mark.parametrize("image", [COMMUNITY_IMAGE, SHARED_IMAGE])
async def test_a_check_finds_images_of_others_galleries_with_and_without_a_version(azure, image):
    for name in (image, image.rpartition("/Versions/")[0]):
        async with azure(dataclasses.replace(CONFIG, image=name)) as provider:
            assert [each.detail for each in await provider.check() if not each.passed] == []


@pytest.mark.parametrize(
    ("config", "subject"),
    [
        ({"image": IMAGE.replace("1.0.0", "9.9.9")}, "image"),
        ({"image": SHARED_IMAGE.replace("1.0.0", "9.9.9")}, "image"),
        ({"subnet": SUBNET.replace("worker", "other")}, "subnet"),
        ({"security_group": SECURITY_GROUP.replace("nsg", "other")}, "network security group"),
        ({"sizes": ("Standard_D8as_v5",)}, "size Standard_D8as_v5"),
        ({"sizes": ("Standard_M416ms_v2",)}, "size Standard_M416ms_v2"),
        ({"sizes": ("Standard_Nothing",)}, "size Standard_Nothing"),
        ({"disable_cvm": True, "size": "Standard_D4as_v5", "zone": "2"}, "size Standard_D4as_v5"),
    ],
)
async def test_a_check_finds_what_is_wrong(azure, config, subject):
    async with azure(dataclasses.replace(CONFIG, **config)) as provider:
        (failed,) = [each for each in await provider.check() if not each.passed]
    assert failed.subject.startswith(subject)
    assert failed.detail


ROLE = [
    "Microsoft.Compute/virtualMachines/*", "microsoft.compute/DISKS/*", "Microsoft.Network/networkInterfaces/*",
    "Microsoft.Network/*/read", "Microsoft.Network/*/join/action",
]  # fmt: skip


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        ([(ROLE, [])], ""),
        ([([action], []) for action in ROLE], ""),
        ([(ROLE, ["*/virtualMachines/delete"])], "Microsoft.Compute/virtualMachines/delete on /subscriptions/"),
        ([(ROLE, ["*/virtualMachines/delete"]), (["Microsoft.Compute/*/delete"], [])], ""),
        ([(ROLE[:3], [])], f"Microsoft.Network/virtualNetworks/subnets/join/action on {SUBNET}"),
        ([(ROLE[1:], [])], "Microsoft.Compute/virtualMachines/write on /subscriptions/"),
        ([], "Microsoft.Network/networkInterfaces/join/action"),
    ],
)
async def test_a_check_names_the_actions_that_no_role_allows(arm: Server, azure, roles, missing):
    arm.cloud.grants = {"": roles}
    async with azure() as provider:
        findings = await provider.check()
    (found,) = [each for each in findings if each.subject == "permissions"]
    assert (found.passed, found.seen) == (not missing, True)
    assert missing in found.detail
    assert [each for each in findings if not each.passed] == ([found] if missing else [])


async def test_a_check_asks_for_the_right_to_join_where_the_subnet_and_the_security_group_are(arm: Server, azure):
    arm.cloud.grants = {"/worker": [(["*/read"], [])], "/nsg": [], "": [(["*"], [])]}
    async with azure(dataclasses.replace(CONFIG, security_group=SECURITY_GROUP)) as provider:
        (failed,) = [each for each in await provider.check() if not each.passed]
    assert failed.detail.startswith(
        f"Microsoft.Network/virtualNetworks/subnets/join/action on {SUBNET},"
        f" Microsoft.Network/networkSecurityGroups/join/action on {SECURITY_GROUP}:"
    )


async def test_permissions_that_may_not_be_read_are_told_as_unseen(arm: Server, azure):
    arm.forbidden = "/Microsoft.Authorization/"
    async with azure() as provider:
        findings = await provider.check()
    assert [(each.subject, each.verdict) for each in findings if each.verdict != "ok"] == [("permissions", "UNSEEN")]


async def test_a_check_sees_a_used_up_quota_and_a_full_subnet(arm: Server, azure):
    async with azure(dataclasses.replace(CONFIG)) as provider:
        for digit in "123":
            await provider.create(dataclasses.replace(REQUEST, target=Target(digit * 64, f"podvm-{digit * 8}")))
        arm.cloud.cores_used, arm.cloud.subnet_size = 49, 29
        failed = [each.subject for each in await provider.check() if not each.passed]
        assert failed == ["subnet worker", "quota of vCPUs"]
        with pytest.raises(ProviderError, match="no free address") as caught:
            await provider.create(REQUEST)
        assert caught.value.fault is Fault.QUOTA


async def test_a_default_size_that_the_region_does_not_have_is_an_error_when_opened(azure):
    with pytest.raises(ProviderError, match="has no size Standard_None"):
        async with azure(dataclasses.replace(CONFIG, size="Standard_None")):
            pass


async def test_a_server_that_is_not_trusted_gets_no_token(arm: Server):
    connection = Connection(Credential(), backoff=0.001)
    with pytest.raises(ProviderError, match="cannot be reached") as caught:
        async with open_provider(dataclasses.replace(CONFIG, endpoint=arm.url), connection):
            pass
    assert caught.value.fault is Fault.TRANSIENT
    assert arm.calls == []


async def test_user_data_beyond_azures_limit_are_refused_before_a_machine_is_asked_for(azure, arm: Server):
    async with azure() as provider:
        with pytest.raises(ProviderError, match="has 65540 bytes in base64, Azure takes 65536") as refused:
            await provider.create(dataclasses.replace(REQUEST, user_data="x" * 49_153))
    assert refused.value.fault is Fault.FATAL
    assert not [call for call in arm.calls if "PUT" in str(call)]


async def test_user_data_and_secrets_are_in_no_log(azure, caplog):
    caplog.set_level(0)
    async with azure(dataclasses.replace(CONFIG, secret="the-secret")) as provider:
        await provider.create(dataclasses.replace(REQUEST, user_data="very-private"))
    written = caplog.text
    assert "very-private" not in written
    assert base64.b64encode(b"very-private").decode() not in written
    assert "a token of the tests" not in written
    assert "the-secret" not in written
