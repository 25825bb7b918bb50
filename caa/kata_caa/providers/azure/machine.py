"""The body of a pod VM: what Azure is asked to make, network interfaces, disk and public address in the same request.

Made in one request, they bear the request's tags from their first moment (the disk takes the machine's), and go with
the machine. Source: cloud-api-adaptor `src/cloud-providers/azure/provider.go`; Azure's reference of
`virtualMachines`, `networkProfile.networkInterfaceConfigurations`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from azure.mgmt.compute import models

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import InstanceRequest
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.image import Image
from kata_caa.selection import Candidate

USER_DATA_LIMIT = 64 * 1024  # bytes, in base64
TOKEN_TAG = "kata-py-token"  # which try at a machine made it: two of one name are one if it is the same
_TAG_VALUE = 256
_TAGS = 50


@dataclass(frozen=True, slots=True)
class Names:
    """What the parts of a machine are called. From its name alone all of it can be found.

    Attributes:
        machine: The machine.
    """

    machine: str

    @property
    def disk(self) -> str:
        """The OS disk."""
        return f"{self.machine}-disk"

    @property
    def interfaces(self) -> tuple[str, str]:
        """The first network interface, and the one for the pod's external traffic."""
        return f"{self.machine}-net", f"{self.machine}-net2"

    @property
    def public_ip(self) -> str:
        """The public address of the first interface."""
        return f"{self.machine}-net"


def tags(config: AzureConfig, request: InstanceRequest) -> dict[str, str]:
    """The tags of all that is made for a request; the request's win over the configured ones.

    Raises:
        ProviderError: Azure cannot have them.
    """
    found = {**dict(config.tags), **dict(request.tags), TOKEN_TAG: request.token}
    if len(found) > _TAGS or any(len(value) > _TAG_VALUE for value in found.values()):
        raise ProviderError(
            Fault.FATAL,
            f"Azure allows {_TAGS} tags of {_TAG_VALUE} characters, the machine would get more",
            hint="shorten TAGS",
        )
    return found


def user_data(text: str) -> str:
    """User data as Azure wants it.

    Raises:
        ProviderError: It is too long.
    """
    encoded = base64.b64encode(text.encode()).decode()
    if len(encoded) > USER_DATA_LIMIT:
        raise ProviderError(
            Fault.FATAL,
            f"the pod VM's user data has {len(encoded)} bytes in base64, Azure takes {USER_DATA_LIMIT}",
            hint="the pod's initdata or pull secrets are too large",
        )
    return encoded


def body(config: AzureConfig, request: InstanceRequest, candidate: Candidate, ssh_key: str) -> models.VirtualMachine:
    """The machine of a request.

    Args:
        config: The provider's settings.
        request: Whose machine, with its user data.
        candidate: Its size, its zone (empty leaves it to Azure), and whether as a spot machine.
        ssh_key: A public key, in OpenSSH's form.

    Raises:
        ProviderError: User data, tags or image cannot be used.
    """
    names = Names(request.target.name)
    attached = tags(config, request)
    return models.VirtualMachine(
        location=config.region,
        tags=attached,
        zones=[candidate.place] if candidate.place else None,
        properties=models.VirtualMachineProperties(
            hardware_profile=models.HardwareProfile(vm_size=candidate.instance_type),
            storage_profile=models.StorageProfile(
                image_reference=Image.parse(request.spec.image or config.image).reference(),
                os_disk=_disk(config, names),
            ),
            os_profile=models.OSProfile(
                computer_name=names.machine,
                admin_username=config.ssh_username,
                linux_configuration=models.LinuxConfiguration(
                    disable_password_authentication=True,
                    ssh=models.SshConfiguration(
                        public_keys=[
                            models.SshPublicKey(
                                path=f"/home/{config.ssh_username}/.ssh/authorized_keys", key_data=ssh_key
                            )
                        ]
                    ),
                ),
            ),
            network_profile=models.NetworkProfile(
                network_api_version=models.NetworkApiVersion.TWO_THOUSAND_TWENTY_TWO11_01,
                network_interface_configurations=[
                    _interface(config, names, index, attached) for index in range(2 if request.spec.multi_nic else 1)
                ],
            ),
            security_profile=None if config.disable_cvm else _confidential(config),
            diagnostics_profile=models.DiagnosticsProfile(boot_diagnostics=models.BootDiagnostics(enabled=True)),
            user_data=user_data(request.user_data),
            priority=models.VirtualMachinePriorityTypes.SPOT if candidate.spot else None,
            eviction_policy=models.VirtualMachineEvictionPolicyTypes.DELETE if candidate.spot else None,
            # Up to the full price: never evicted for the price.
            billing_profile=models.BillingProfile(max_price=-1) if candidate.spot else None,
        ),
    )


def _disk(config: AzureConfig, names: Names) -> models.OSDisk:
    state_only = models.VMDiskSecurityProfile(
        security_encryption_type=models.SecurityEncryptionTypes.VM_GUEST_STATE_ONLY
    )
    return models.OSDisk(
        name=names.disk,
        caching=models.CachingTypes.READ_WRITE,
        create_option=models.DiskCreateOptionTypes.FROM_IMAGE,
        delete_option=models.DiskDeleteOptionTypes.DELETE,
        disk_size_gb=config.root_volume_size or None,
        managed_disk=models.ManagedDiskParameters(
            storage_account_type=models.StorageAccountTypes.PREMIUM_LRS,
            security_profile=None if config.disable_cvm else state_only,
        ),
    )


def _interface(
    config: AzureConfig, names: Names, index: int, attached: Mapping[str, str]
) -> models.VirtualMachineNetworkInterfaceConfiguration:
    first = index == 0
    public = _public_ip(names, attached) if first and config.use_public_ip else None
    group = models.SubResource(id=config.security_group) if config.security_group else None
    return models.VirtualMachineNetworkInterfaceConfiguration(
        name=names.interfaces[index],
        tags=dict(attached),
        properties=models.VirtualMachineNetworkInterfaceConfigurationProperties(
            primary=first,
            delete_option=models.DeleteOptions.DELETE,
            network_security_group=group,
            ip_configurations=[
                models.VirtualMachineNetworkInterfaceIPConfiguration(
                    name="ip-config",
                    properties=models.VirtualMachineNetworkInterfaceIPConfigurationProperties(
                        primary=True,
                        subnet=models.SubResource(id=config.subnet),
                        public_ip_address_configuration=public,
                    ),
                )
            ],
        ),
    )


def _public_ip(names: Names, attached: Mapping[str, str]) -> models.VirtualMachinePublicIPAddressConfiguration:
    return models.VirtualMachinePublicIPAddressConfiguration(
        name=names.public_ip,
        tags=dict(attached),
        # Azure has given up addresses of SKU Basic, and those of Standard are static.
        sku=models.PublicIPAddressSku(name=models.PublicIPAddressSkuName.STANDARD),
        properties=models.VirtualMachinePublicIPAddressConfigurationProperties(
            delete_option=models.DeleteOptions.DELETE,
            public_ip_allocation_method=models.PublicIPAllocationMethod.STATIC,
        ),
    )


def _confidential(config: AzureConfig) -> models.SecurityProfile:
    return models.SecurityProfile(
        security_type=models.SecurityTypes.CONFIDENTIAL_VM,
        uefi_settings=models.UefiSettings(v_tpm_enabled=True, secure_boot_enabled=config.secure_boot),
    )
