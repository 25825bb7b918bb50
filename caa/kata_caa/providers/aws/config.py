"""The settings of the AWS provider: upstream's flags and variables, and ours.

Source: cloud-api-adaptor `src/cloud-providers/aws/manager.go`. Ours are marked in their meaning by "extension".
"""

from __future__ import annotations

from dataclasses import dataclass

from kata_caa.selection import Spot
from kata_caa.settings import Duration, setting


@dataclass(frozen=True, slots=True)
class AwsConfig:
    """What the AWS provider is told."""

    access_key_id: str = setting("", "aws-access-key-id", "AWS_ACCESS_KEY_ID", "access key id", secret=True)
    secret_key: str = setting("", "aws-secret-key", "AWS_SECRET_ACCESS_KEY", "secret access key", secret=True)
    session_token: str = setting("", "aws-session-token", "AWS_SESSION_TOKEN", "session token", secret=True)
    region: str = setting("", "aws-region", "AWS_REGION", "region; the node's own by default")
    profile: str = setting("", "aws-profile", "", "profile of the shared AWS configuration")
    instance_type: str = setting(
        "m6a.large", "instance-type", "PODVM_INSTANCE_TYPE", "type of a pod VM that asks for nothing else"
    )
    instance_types: tuple[str, ...] = setting(
        (),
        "instance-types",
        "PODVM_INSTANCE_TYPES",
        "types that pods may have, comma-separated; the default alone if empty",
    )
    image: str = setting("", "imageid", "PODVM_AMI_ID", "AMI of the pod VM")
    key_name: str = setting("", "keyname", "SSH_KP_NAME", "SSH key pair of pod VMs; the node's own by default")
    subnet: str = setting("", "subnetid", "AWS_SUBNET_ID", "subnet of pod VMs; the node's own by default")
    vpc: str = setting("", "", "AWS_VPC_ID", "accepted and without effect: the subnet tells it")
    security_groups: tuple[str, ...] = setting(
        (), "securitygroupids", "AWS_SG_IDS", "security groups of pod VMs, comma-separated; the node's own by default"
    )
    use_launch_template: bool = setting(
        False,
        "use-lt",
        "USE_PODVM_LAUNCHTEMPLATE",
        "take type, image, network and confidentiality from a launch template",
    )
    launch_template: str = setting("kata", "aws-lt-name", "PODVM_LAUNCHTEMPLATE_NAME", "the launch template's name")
    use_public_ip: bool = setting(
        False, "use-public-ip", "USE_PUBLIC_IP", "give pod VMs a public address and reach them by it"
    )
    root_volume_size: int = setting(
        30,
        "root-volume-size",
        "ROOT_VOLUME_SIZE",
        "size of the root disk in GiB; the image's if that is larger, or if 0",
    )
    disable_cvm: bool = setting(
        False, "disable-cvm", "DISABLECVM", "make ordinary machines instead of confidential ones (AMD SEV-SNP)"
    )
    tags: tuple[tuple[str, str], ...] = setting(
        (), "tags", "TAGS", "further tags of all that is made, KEY=VALUE, comma-separated"
    )
    subnets: tuple[str, ...] = setting(
        (),
        "subnetids",
        "AWS_SUBNET_IDS",
        "extension: further subnets, in other zones of the same VPC, tried in this order after AWS_SUBNET_ID when that"
        " has no capacity left, comma-separated",
    )
    fallback_types: tuple[str, ...] = setting(
        (),
        "fallback-instance-types",
        "PODVM_FALLBACK_INSTANCE_TYPES",
        "extension: types tried in this order when the cloud has no machine of the pod's type left in any subnet,"
        " comma-separated; those smaller than the pod asks for are passed over",
    )
    use_spot: str = setting(
        "no",
        "use-spot",
        "USE_SPOT",
        "extension: whether pod VMs are spot machines, which AWS may take back: no; prefer, in every subnet before"
        " one at full price; only",
    )
    metadata_hop_limit: int = setting(
        1,
        "metadata-hop-limit",
        "AWS_METADATA_HOP_LIMIT",
        "extension: how many network hops the answers of a pod VM's metadata service (IMDSv2, always required) go;"
        " 1 keeps them from containers",
    )
    endpoint_url: str = setting("", "aws-endpoint-url", "AWS_ENDPOINT_URL_EC2", "extension: where EC2's API is served")
    connections: int = setting(
        16, "aws-connections", "AWS_MAX_CONNECTIONS", "extension: calls to EC2 that may be under way at a time"
    )
    settle_time: Duration = setting(
        Duration(30.0),
        "aws-settle-time",
        "AWS_SETTLE_TIME",
        "extension: how long EC2 may take to show what was made; until then nothing counts as deleted",
    )
    running_timeout: Duration = setting(
        Duration(120.0), "aws-running-timeout", "AWS_RUNNING_TIMEOUT", "extension: how long a machine may take to run"
    )
    delete_timeout: Duration = setting(
        Duration(600.0), "aws-delete-timeout", "AWS_DELETE_TIMEOUT", "extension: how long deleting a pod VM may take"
    )

    def spot(self) -> Spot:
        """`USE_SPOT`.

        Raises:
            SettingError: It has no such value.
        """
        return Spot.parse(self.use_spot, "USE_SPOT")

    def places(self) -> tuple[str, ...]:
        """All subnets, in their order."""
        return tuple(dict.fromkeys(filter(None, (self.subnet, *self.subnets))))

    def types(self) -> tuple[str, ...]:
        """All types that a pod may come to have."""
        return tuple(dict.fromkeys((self.instance_type, *self.instance_types, *self.fallback_types)))
