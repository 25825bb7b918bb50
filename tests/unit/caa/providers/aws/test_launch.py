"""The call that makes a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, InstanceRequest, InstanceSpec, Target
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.image import Image
from kata_caa.providers.aws.launch import GENERATIONS, USER_DATA_LIMIT, bounded, run_instances, tokens_of
from kata_caa.selection import Candidate

CONFIG = AwsConfig(image="ami-1", security_groups=("sg-1", "sg-2"), key_name="key", tags=(("team", "a"),))
IMAGE = Image("ami-1", "/dev/xvda", 15, "available", "x86_64", "uefi")
TOKEN = "t"
WAY = Candidate("m6a.large", "subnet-1")
REQUEST = InstanceRequest(
    Target("0a1b2c3d4e", "podvm-web-0a1b2c3d"), "token", "#cloud-config\n", tags=((OWNER_TAG, "node"),)
)  # fmt: skip


def test_an_ordinary_call_says_all_that_upstreams_does():
    call = run_instances(CONFIG, REQUEST, WAY, IMAGE, TOKEN)
    assert (call["MinCount"], call["MaxCount"]) == (1, 1)
    assert (call["ImageId"], call["InstanceType"], call["KeyName"]) == ("ami-1", "m6a.large", "key")
    assert (call["SubnetId"], call["SecurityGroupIds"]) == ("subnet-1", ["sg-1", "sg-2"])
    assert call["UserData"] == "#cloud-config\n"  # boto3 encodes it
    assert call["CpuOptions"] == {"AmdSevSnp": "enabled"}
    assert "NetworkInterfaces" not in call
    assert "InstanceMarketOptions" not in call


def test_imdsv2_is_required():
    options = run_instances(CONFIG, REQUEST, WAY, IMAGE, TOKEN)["MetadataOptions"]
    assert options == {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_all_that_is_made_with_the_machine_is_tagged_by_the_same_call():
    specifications = run_instances(CONFIG, REQUEST, replace(WAY, spot=True), IMAGE, TOKEN)["TagSpecifications"]
    kinds = [specification["ResourceType"] for specification in specifications]
    assert kinds == ["instance", "volume", "network-interface", "spot-instances-request"]
    for specification in specifications:
        assert {tag["Key"]: tag["Value"] for tag in specification["Tags"]} == {
            "team": "a", OWNER_TAG: "node", SANDBOX_TAG: "0a1b2c3d4e", "Name": "podvm-web-0a1b2c3d",
        }  # fmt: skip


def test_without_a_spot_request_none_is_tagged():  # EC2 refuses that
    kinds = [each["ResourceType"] for each in run_instances(CONFIG, REQUEST, WAY, IMAGE, TOKEN)["TagSpecifications"]]
    assert "spot-instances-request" not in kinds


def test_the_operators_tags_cannot_hide_whose_it_is():
    config = replace(CONFIG, tags=((SANDBOX_TAG, "x"), ("Name", "y"), (OWNER_TAG, "z")))
    tags = {
        tag["Key"]: tag["Value"]
        for tag in run_instances(config, REQUEST, WAY, IMAGE, TOKEN)["TagSpecifications"][0]["Tags"]
    }
    assert tags == {SANDBOX_TAG: "0a1b2c3d4e", "Name": "podvm-web-0a1b2c3d", OWNER_TAG: "node"}


@pytest.mark.parametrize(("configured", "size"), [(30, 30), (10, 15), (2**40, 2**31 - 1)])
def test_the_root_disk_is_as_large_as_the_larger_of_both_and_goes_with_the_machine(configured, size):
    call = run_instances(replace(CONFIG, root_volume_size=configured), REQUEST, WAY, IMAGE, TOKEN)
    assert call["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": size, "DeleteOnTermination": True}}
    ]


def test_without_a_size_the_images_counts_but_the_disk_still_goes_with_the_machine():
    call = run_instances(replace(CONFIG, root_volume_size=0), REQUEST, WAY, IMAGE, TOKEN)
    assert call["BlockDeviceMappings"] == [{"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": True}}]


def test_a_public_address_moves_the_network_into_the_interface():
    call = run_instances(replace(CONFIG, use_public_ip=True), REQUEST, WAY, IMAGE, TOKEN)
    assert "SubnetId" not in call
    assert "SecurityGroupIds" not in call
    assert call["NetworkInterfaces"] == [
        {"DeviceIndex": 0, "DeleteOnTermination": True, "SubnetId": "subnet-1", "Groups": ["sg-1", "sg-2"],
         "AssociatePublicIpAddress": True}
    ]  # fmt: skip


def test_a_second_interface_is_made_with_the_machine_unless_it_has_a_public_address():
    request = replace(REQUEST, spec=InstanceSpec(multi_nic=True))
    interfaces = run_instances(CONFIG, request, WAY, IMAGE, TOKEN)["NetworkInterfaces"]
    assert [(each["DeviceIndex"], each["DeleteOnTermination"]) for each in interfaces] == [(0, True), (1, True)]
    assert not any("AssociatePublicIpAddress" in each for each in interfaces)
    assert len(run_instances(replace(CONFIG, use_public_ip=True), request, WAY, IMAGE, TOKEN)["NetworkInterfaces"]) == 1


def test_ordinary_machines_have_no_processor_options():
    assert "CpuOptions" not in run_instances(replace(CONFIG, disable_cvm=True), REQUEST, WAY, IMAGE, TOKEN)


def test_a_spot_machine_is_asked_for_once_and_ends_when_it_is_taken_back():
    options = run_instances(CONFIG, REQUEST, replace(WAY, spot=True), IMAGE, TOKEN)["InstanceMarketOptions"]
    assert options["SpotOptions"] == {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}


def test_a_launch_template_says_all_but_user_data_tags_and_the_root_disk():
    call = run_instances(replace(CONFIG, use_launch_template=True), REQUEST, WAY, IMAGE, TOKEN)
    assert call["LaunchTemplate"] == {"LaunchTemplateName": "kata"}
    assert set(call) == {
        "MinCount", "MaxCount", "ClientToken", "UserData", "LaunchTemplate", "BlockDeviceMappings", "TagSpecifications",
    }  # fmt: skip
    config = replace(CONFIG, use_launch_template=True, root_volume_size=0)
    assert "BlockDeviceMappings" not in run_instances(config, REQUEST, WAY, None, TOKEN)


def test_a_candidate_has_its_own_tokens_and_each_try_at_it_the_same():
    tokens = tokens_of(REQUEST, WAY)
    assert tokens == tokens_of(replace(REQUEST, user_data="x"), WAY)
    assert len({*tokens, *tokens_of(REQUEST, replace(WAY, spot=True))}) == 2 * GENERATIONS
    assert not set(tokens) & set(tokens_of(replace(REQUEST, token="other"), WAY))
    assert {len(token) for token in tokens} == {64}
    assert run_instances(CONFIG, REQUEST, WAY, IMAGE, tokens[0])["ClientToken"] == tokens[0]


def test_user_data_that_are_too_long_are_told_by_their_size():
    bounded("é" * (USER_DATA_LIMIT // 2))
    with pytest.raises(ProviderError, match="have 16386 bytes, EC2 takes 16384") as error:
        bounded("é" * (USER_DATA_LIMIT // 2 + 1))
    assert error.value.fault is Fault.FATAL
