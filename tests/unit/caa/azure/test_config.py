"""The settings of the Azure provider."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from kata_caa.errors import SettingError
from kata_caa.providers.azure.config import AzureConfig, verify
from kata_caa.settings import load

NETWORK = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network"
ENVIRONMENT = {
    "AZURE_SUBSCRIPTION_ID": "s",
    "AZURE_REGION": "eastus",
    "AZURE_RESOURCE_GROUP": "g",
    "AZURE_SUBNET_ID": f"{NETWORK}/virtualNetworks/v/subnets/worker",
    "AZURE_IMAGE_ID": "/CommunityGalleries/g/Images/i/Versions/1",
}


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
