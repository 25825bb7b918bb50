"""Settings of the Azure provider that fit the fake; its address is added when it is known."""

from kata_caa.providers.azure.config import AzureConfig
from kata_caa.settings import Duration
from tests.arm.cloud import GROUP, IMAGE, REGION, SUBNET, SUBSCRIPTION

CONFIG = AzureConfig(
    subscription_id=SUBSCRIPTION,
    region=REGION,
    resource_group=GROUP,
    subnet=SUBNET,
    image=IMAGE,
    tags=(("team", "blue"),),
    poll_interval=Duration(0.01),
    create_timeout=Duration(20.0),
    delete_timeout=Duration(20.0),
)
