"""The settings of the Azure provider."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from kata_caa.errors import SettingError
from kata_caa.providers.azure.config import AzureConfig, verify
from kata_caa.settings import load, settings_of

NETWORK = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network"
ENVIRONMENT = {
    "AZURE_SUBSCRIPTION_ID": "s",
    "AZURE_REGION": "eastus",
    "AZURE_RESOURCE_GROUP": "g",
    "AZURE_SUBNET_ID": f"{NETWORK}/virtualNetworks/v/subnets/worker",
    "AZURE_IMAGE_ID": "/CommunityGalleries/g/Images/i/Versions/1",
}

UPSTREAM = {
    ("clientid", "AZURE_CLIENT_ID"): "",
    ("secret", "AZURE_CLIENT_SECRET"): "",
    ("tenantid", "AZURE_TENANT_ID"): "",
    ("subscriptionid", "AZURE_SUBSCRIPTION_ID"): "",
    ("region", "AZURE_REGION"): "",
    ("resourcegroup", "AZURE_RESOURCE_GROUP"): "",
    ("subnetid", "AZURE_SUBNET_ID"): "",
    ("imageid", "AZURE_IMAGE_ID"): "",
    ("securitygroupid", "AZURE_NSG_ID"): "",
    ("instance-size", "AZURE_INSTANCE_SIZE"): "Standard_DC2as_v5",
    ("instance-sizes", "AZURE_INSTANCE_SIZES"): (),
    ("zone", ""): "",
    ("ssh-key-path", ""): "",
    ("ssh-username", "SSH_USERNAME"): "peerpod",
    ("disable-cvm", "DISABLECVM"): False,
    ("enable-secure-boot", "ENABLE_SECURE_BOOT"): False,
    ("use-public-ip", "USE_PUBLIC_IP"): False,
    ("root-volume-size", "ROOT_VOLUME_SIZE"): 0,
    ("tags", "TAGS"): (),
}


def test_every_flag_and_variable_of_upstreams_is_there_with_its_default():
    ours = {(how.flag, how.environment): field.default for field, how in settings_of(AzureConfig)}
    assert UPSTREAM.items() <= ours.items()


def test_every_setting_says_what_it_means_and_is_unlike_any_other():
    settings = [how for _, how in settings_of(AzureConfig)]
    assert all(how.meaning for how in settings)
    assert len({how.flag for how in settings}) == len(settings)


def test_upstreams_variables_are_enough():
    config = load(AzureConfig, {}, {**ENVIRONMENT, "DISABLECVM": "true", "AZURE_INSTANCE_SIZES": "a,b", "TAGS": "k=v"})
    verify(config)
    assert (config.size, config.sizes, config.disable_cvm) == ("Standard_DC2as_v5", ("a", "b"), True)
    assert (config.ssh_username, config.tags) == ("peerpod", (("k", "v"),))
    assert config.all_sizes() == ("Standard_DC2as_v5", "a", "b")


def test_machines_are_confidential_unless_said_otherwise():
    assert not AzureConfig().disable_cvm


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_what_is_missing_is_named(name: str):
    with pytest.raises(SettingError, match=name):
        verify(load(AzureConfig, {}, {**ENVIRONMENT, name: ""}))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"subnet": "worker"}, "AZURE_SUBNET_ID"),
        ({"subnet": f"{NETWORK}/virtualNetworks/v"}, "AZURE_SUBNET_ID"),
        ({"security_group": f"{NETWORK}/virtualNetworks/v"}, "AZURE_NSG_ID"),
        ({"root_volume_size": -1}, "ROOT_VOLUME_SIZE"),
        ({"use_spot": "perhaps"}, "USE_SPOT"),
        ({"tags": (("a/b", "c"),)}, "TAGS"),
        ({"tags": (("a", "c" * 257),)}, "TAGS"),
        ({"tags": tuple((str(i), "") for i in range(41))}, "TAGS"),
    ],
)
def test_what_azure_cannot_take_is_an_error_that_names_the_variable(change, name):
    with pytest.raises(SettingError, match=name):
        verify(dataclasses.replace(load(AzureConfig, {}, ENVIRONMENT), **change))


def test_zones_are_tried_in_order_and_once():
    assert AzureConfig(zone="2", zones=("1", "2", "3")).places() == ("2", "1", "3")
    assert AzureConfig().places() == ()


def test_the_secret_is_not_shown():
    assert "s3cret" not in repr(AzureConfig(secret="s3cret"))


def test_the_entry_point_has_the_settings_without_loading_azures_library():
    program = (
        "from importlib.metadata import entry_points; import sys;"
        "(entry,) = entry_points(group='kata_caa.providers', name='azure');"
        "assert entry.load().config.__name__ == 'AzureConfig';"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('azure', 'aiohttp')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ}, timeout=30)
