"""The body of a pod VM."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from azure.mgmt.compute import models
from azure.mgmt.compute._utils.model_base import SdkJSONEncoder

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, InstanceRequest, InstanceSpec, Target
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.machine import TOKEN_TAG, USER_DATA_LIMIT, Names, body, tags, user_data
from kata_caa.selection import Candidate
from tests.arm.schema import Violation, verify

CONFIG = AzureConfig(region="eastus", subnet="/subnet", image="/CommunityGalleries/g/Images/i/Versions/1")
REQUEST = InstanceRequest(
    Target("5" * 64, "podvm-a-55555555"),
    "t1",
    "#cloud-config\n",
    tags=((OWNER_TAG, "node"), (SANDBOX_TAG, "5" * 64)),
)
WAY = Candidate("Standard_DC2as_v5")


def made(config: AzureConfig = CONFIG, request: InstanceRequest = REQUEST, way: Candidate = WAY):
    tree = json.loads(json.dumps(body(config, request, way, "ssh-rsa AAAA"), cls=SdkJSONEncoder, exclude_readonly=True))
    verify(models.VirtualMachine, tree, sent=True)
    return tree


def test_interface_disk_and_address_go_with_the_machine():
    properties = made(dataclasses.replace(CONFIG, use_public_ip=True))["properties"]
    (interface,) = properties["networkProfile"]["networkInterfaceConfigurations"]
    address = interface["properties"]["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"]
    disk = properties["storageProfile"]["osDisk"]
    assert {interface["properties"]["deleteOption"], address["properties"]["deleteOption"], disk["deleteOption"]} == {
        "Delete"
    }


def test_all_that_can_bear_tags_bears_them():
    tree = made(dataclasses.replace(CONFIG, use_public_ip=True, tags=(("team", "blue"),)))
    (interface,) = tree["properties"]["networkProfile"]["networkInterfaceConfigurations"]
    address = interface["properties"]["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"]
    expected = {"team": "blue", OWNER_TAG: "node", SANDBOX_TAG: "5" * 64, TOKEN_TAG: "t1"}
    assert tree["tags"] == interface["tags"] == address["tags"] == expected


def test_the_requests_tags_win_over_the_configured_ones():
    assert tags(dataclasses.replace(CONFIG, tags=((OWNER_TAG, "mine"),)), REQUEST)[OWNER_TAG] == "node"


def test_tags_that_azure_cannot_have_are_refused():
    with pytest.raises(ProviderError, match="256 characters"):
        tags(CONFIG, dataclasses.replace(REQUEST, tags=((OWNER_TAG, "n" * 257),)))


@pytest.mark.parametrize("secure_boot", [True, False])
def test_a_confidential_machine_has_a_vtpm_and_its_state_encrypted(secure_boot: bool):
    properties = made(dataclasses.replace(CONFIG, secure_boot=secure_boot))["properties"]
    assert properties["securityProfile"]["securityType"] == "ConfidentialVM"
    assert properties["securityProfile"]["uefiSettings"] == {"vTpmEnabled": True, "secureBootEnabled": secure_boot}
    disk = properties["storageProfile"]["osDisk"]["managedDisk"]
    assert disk["securityProfile"]["securityEncryptionType"] == "VMGuestStateOnly"


def test_an_ordinary_machine_has_no_security_profile():
    properties = made(dataclasses.replace(CONFIG, disable_cvm=True))["properties"]
    assert "securityProfile" not in properties
    assert "securityProfile" not in properties["storageProfile"]["osDisk"]["managedDisk"]


def test_zone_and_market_are_the_candidates():
    tree = made(way=Candidate("Standard_D2as_v5", "2", spot=True))
    assert tree["zones"] == ["2"]
    assert (tree["properties"]["priority"], tree["properties"]["evictionPolicy"]) == ("Spot", "Delete")
    assert tree["properties"]["billingProfile"] == {"maxPrice": -1}
    assert "zones" not in made()


def test_a_pods_own_image_and_second_interface_are_honoured():
    image = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/mine"
    tree = made(request=dataclasses.replace(REQUEST, spec=InstanceSpec(image=image, multi_nic=True)))
    assert tree["properties"]["storageProfile"]["imageReference"] == {"id": image}
    interfaces = tree["properties"]["networkProfile"]["networkInterfaceConfigurations"]
    assert [each["name"] for each in interfaces] == [*Names(REQUEST.target.name).interfaces]
    assert [each["properties"]["primary"] for each in interfaces] == [True, False]


def test_user_data_is_base64_and_bounded():
    most = "x" * (USER_DATA_LIMIT // 4 * 3)
    assert base64.b64decode(user_data(most)).decode() == most
    with pytest.raises(ProviderError, match="Azure takes 65536") as caught:
        user_data(most + "x")
    assert caught.value.fault is Fault.FATAL


@pytest.mark.parametrize(
    "change", [{"location": None}, {"colour": "red"}, {"id": "/mine"}, {"zones": "1"}, {"tags": {"a": 1}}]
)
def test_the_schema_finds_what_is_no_machine(change):
    tree = {key: value for key, value in {**made(), **change}.items() if value is not None}
    with pytest.raises(Violation):
        verify(models.VirtualMachine, tree, sent=True)
