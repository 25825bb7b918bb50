"""The settings of the Azure provider: upstream's flags and variables, and ours.

Source: cloud-api-adaptor `src/cloud-providers/azure/manager.go`. Ours are marked in their meaning by "extension".
"""

from __future__ import annotations

from dataclasses import dataclass

from kata_caa.errors import SettingError
from kata_caa.providers.azure.ids import MalformedId, ResourceId
from kata_caa.selection import Spot
from kata_caa.settings import Duration, setting

_TAG_NAME_FORBIDDEN = frozenset("<>%&\\?/")
_TAGS = 40  # of the 50 that Azure allows; the rest are ours
_TAG_NAME = 512
_TAG_VALUE = 256


@dataclass(frozen=True, slots=True)
class AzureConfig:
    """What the Azure provider is told."""

    client_id: str = setting("", "clientid", "AZURE_CLIENT_ID", "the application's (client) id")
    secret: str = setting(
        "", "secret", "AZURE_CLIENT_SECRET", "the application's secret; workload identity without", secret=True
    )
    tenant_id: str = setting("", "tenantid", "AZURE_TENANT_ID", "tenant of the application")
    subscription_id: str = setting("", "subscriptionid", "AZURE_SUBSCRIPTION_ID", "subscription of pod VMs")
    region: str = setting("", "region", "AZURE_REGION", "region of pod VMs")
    resource_group: str = setting("", "resourcegroup", "AZURE_RESOURCE_GROUP", "resource group of pod VMs")
    subnet: str = setting("", "subnetid", "AZURE_SUBNET_ID", "subnet of pod VMs, by its full id")
    image: str = setting(
        "",
        "imageid",
        "AZURE_IMAGE_ID",
        "image of pod VMs: the id of an image or of an image version, or /CommunityGalleries/… or /SharedGalleries/…",
    )
    security_group: str = setting("", "securitygroupid", "AZURE_NSG_ID", "network security group of pod VMs, by its id")
    size: str = setting(
        "Standard_DC2as_v5", "instance-size", "AZURE_INSTANCE_SIZE", "size of a pod VM that asks for nothing else"
    )
    sizes: tuple[str, ...] = setting(
        (),
        "instance-sizes",
        "AZURE_INSTANCE_SIZES",
        "sizes that pods may have, comma-separated; the default alone if empty",
    )
    zone: str = setting("", "zone", "", "availability zone of pod VMs; Azure's choice if empty")
    ssh_key_path: str = setting(
        "", "ssh-key-path", "", "public SSH key of pod VMs; without, a key that nobody has the private half of"
    )
    ssh_username: str = setting("peerpod", "ssh-username", "SSH_USERNAME", "user of pod VMs that the SSH key is for")
    disable_cvm: bool = setting(
        False, "disable-cvm", "DISABLECVM", "make ordinary machines instead of confidential ones"
    )
    secure_boot: bool = setting(
        False, "enable-secure-boot", "ENABLE_SECURE_BOOT", "whether confidential machines boot signed software alone"
    )
    use_public_ip: bool = setting(
        False, "use-public-ip", "USE_PUBLIC_IP", "give pod VMs a public address and reach them by it"
    )
    root_volume_size: int = setting(
        0, "root-volume-size", "ROOT_VOLUME_SIZE", "size of the root disk in GiB; the image's if 0"
    )
    tags: tuple[tuple[str, str], ...] = setting(
        (), "tags", "TAGS", "further tags of all that is made, KEY=VALUE, comma-separated"
    )
    zones: tuple[str, ...] = setting(
        (),
        "zones",
        "AZURE_ZONES",
        "extension: availability zones tried in this order, after -zone, when one has no capacity left,"
        " comma-separated",
    )
    fallback_sizes: tuple[str, ...] = setting(
        (),
        "fallback-instance-sizes",
        "AZURE_FALLBACK_INSTANCE_SIZES",
        "extension: sizes tried in this order when Azure has no machine of the pod's size left in any zone,"
        " comma-separated; those smaller than the pod asks for are passed over",
    )
    use_spot: str = setting(
        "no",
        "use-spot",
        "USE_SPOT",
        "extension: whether pod VMs are spot machines, which Azure may take back: no; prefer, in every zone before"
        " one at full price; only",
    )
    gallery_image: str = setting(
        "",
        "gallery-image",
        "AZURE_GALLERY_IMAGE",
        "extension: the id of a gallery's image definition, of which image upload makes a version; confidential"
        " machines need one of the security type ConfidentialVmSupported; a managed image is made if empty",
    )
    endpoint: str = setting(
        "https://management.azure.com",
        "arm-endpoint",
        "AZURE_ARM_ENDPOINT",
        "extension: where Azure Resource Manager is served; other clouds than the public one have their own",
    )
    poll_interval: Duration = setting(
        Duration(2.0),
        "azure-poll-interval",
        "AZURE_POLL_INTERVAL",
        "extension: pause between questions whether an operation is done, where Azure names none",
    )
    create_timeout: Duration = setting(
        Duration(480.0), "azure-create-timeout", "AZURE_CREATE_TIMEOUT", "extension: how long making a pod VM may take"
    )
    delete_timeout: Duration = setting(
        Duration(600.0),
        "azure-delete-timeout",
        "AZURE_DELETE_TIMEOUT",
        "extension: how long deleting a pod VM may take",
    )

    def spot(self) -> Spot:
        """`USE_SPOT`.

        Raises:
            SettingError: It has no such value.
        """
        return Spot.parse(self.use_spot, "USE_SPOT")

    def places(self) -> tuple[str, ...]:
        """All zones, in their order; none leaves it to Azure."""
        return tuple(dict.fromkeys(filter(None, (self.zone, *self.zones))))

    def all_sizes(self) -> tuple[str, ...]:
        """All sizes that a pod may come to have, the default first."""
        return tuple(dict.fromkeys((self.size, *self.sizes, *self.fallback_sizes)))


def verify(config: AzureConfig) -> None:
    """Look whether all that must be set is set, and has its form.

    Raises:
        SettingError: Names the variable.
    """
    required = {
        "AZURE_SUBSCRIPTION_ID": config.subscription_id,
        "AZURE_REGION": config.region,
        "AZURE_RESOURCE_GROUP": config.resource_group,
        "AZURE_SUBNET_ID": config.subnet,
        "AZURE_IMAGE_ID": config.image,
    }
    if missing := [name for name, value in required.items() if not value]:
        raise SettingError(f"{', '.join(missing)}: must be set for Azure")
    _id("AZURE_SUBNET_ID", config.subnet, "virtualNetworks/subnets")
    if config.security_group:
        _id("AZURE_NSG_ID", config.security_group, "networkSecurityGroups")
    if config.root_volume_size < 0:
        raise SettingError(f"ROOT_VOLUME_SIZE: {config.root_volume_size} GiB cannot be")
    config.spot()
    if len(config.tags) > _TAGS:
        raise SettingError(f"TAGS: {len(config.tags)} are too many, {_TAGS} are possible")
    for name, value in config.tags:
        if len(name) > _TAG_NAME or len(value) > _TAG_VALUE or _TAG_NAME_FORBIDDEN & set(name):
            raise SettingError(f"TAGS: Azure cannot have {name:.40}={value:.40}")


def _id(variable: str, text: str, kind: str) -> None:
    try:
        found = ResourceId.parse(text)
    except MalformedId as error:
        raise SettingError(f"{variable}: {error}") from error
    if found.kind.lower() != kind.lower():
        raise SettingError(f"{variable}: {text!r} names one of {found.kind}, not of {kind}")
