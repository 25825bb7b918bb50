"""The adaptor's own settings; those of the clouds are with the clouds.

Source of names and defaults: cloud-api-adaptor `cmd/cloud-api-adaptor/main.go`. What is marked ours is not known there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_caa.errors import SettingError
from kata_caa.settings import Duration, setting

DEFAULT_SOCKET = "/run/peerpod/hypervisor.sock"

_DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class AdaptorConfig:
    """What every cloud has in common."""

    socket: str = setting(
        DEFAULT_SOCKET, "socket", "REMOTE_HYPERVISOR_ENDPOINT", "the socket that the runtime asks for machines"
    )
    pods_dir: str = setting("/run/peerpod/pods", "pods-dir", "PODS_DIR", "where each pod has a directory")
    pause_image: str = setting("", "pause-image", "PAUSE_IMAGE", "accepted and without effect, as upstream")
    forwarder_port: int = setting(15150, "forwarder-port", "FORWARDER_PORT", "TCP port of the forwarder in pod VMs")
    ca_cert_file: str = setting("", "ca-cert-file", "CACERT_FILE", "whose certificates pod VMs have, if not ours; PEM")
    cert_file: str = setting("", "cert-file", "CERT_FILE", "the adaptor's own certificate then; PEM")
    cert_key: str = setting("", "cert-key", "CERT_KEY", "and its key; PEM")
    tls_skip_verify: bool = setting(
        False, "tls-skip-verify", "TLS_SKIP_VERIFY", "whether a pod VM's certificate is taken unseen; for debugging"
    )
    tls_min_version: str = setting("", "tls-min-version", "TLS_MIN_VERSION", "VersionTLS12 or VersionTLS13")
    tls_cipher_suites: str = setting(
        "", "tls-cipher-suites", "TLS_CIPHER_SUITES", "IANA's names of suites for TLS 1.2, comma-separated"
    )
    disable_tls: bool = setting(False, "disable-tls", "", "whether the agent is reached without TLS; for debugging")
    proxy_timeout: Duration = setting(
        Duration(300.0), "proxy-timeout", "PROXY_TIMEOUT", "how long a pod VM may take until its forwarder answers"
    )
    redial_timeout: Duration = setting(
        Duration(60.0),
        "redial-timeout",
        "REDIAL_TIMEOUT",
        "how long a pod VM that was reached is dialled again, before its pod is given up; ours",
    )
    tunnel_type: str = setting("vxlan", "tunnel-type", "TUNNEL_TYPE", "how pods are connected: vxlan")
    vxlan_port: int = setting(4789, "vxlan-port", "VXLAN_PORT", "UDP port of the tunnels; 9000 on OpenShift")
    vxlan_min_id: int = setting(555000, "vxlan-min-id", "", "the first tunnel's number")
    tunnel_encryption: str = setting(
        "none", "tunnel-encryption", "TUNNEL_ENCRYPTION", "how tunnels are encrypted: none or wireguard; ours"
    )
    wireguard_port: int = setting(
        51820, "wireguard-port", "WIREGUARD_PORT", "UDP port of encrypted tunnels in pod VMs; ours"
    )
    host_interface: str = setting(
        "", "host-interface", "", "the interface that tunnels take; empty is that of the default route"
    )
    ext_network_via_podvm: bool = setting(
        False,
        "ext-network-via-podvm",
        "EXTERNAL_NETWORK_VIA_PODVM",
        "whether traffic out of the cluster leaves at the VM",
    )
    pod_subnet_cidrs: tuple[str, ...] = setting(
        (), "pod-subnet-cidrs", "POD_SUBNET_CIDRS", "further networks that pods reach through the tunnel"
    )
    initdata: str = setting("", "initdata", "INITDATA", "initdata of pods that bring none: base64 of gzip of TOML")
    cloud_config_verify: bool = setting(
        False, "cloud-config-verify", "CLOUD_CONFIG_VERIFY", "whether the cloud is checked before the adaptor serves"
    )
    peerpods_limit_per_node: int = setting(
        10,
        "peerpods-limit-per-node",
        "PEERPODS_LIMIT_PER_NODE",
        "how many VMs the node advertises; below 0 it does not",
    )
    device_plugin: bool = setting(
        False, "device-plugin", "DEVICE_PLUGIN", "whether VMs are advertised as devices of the kubelet instead; ours"
    )
    enable_scratch_space: bool = setting(
        False, "enable-scratch-space", "ENABLE_SCRATCH_SPACE", "whether pod VMs encrypt what their disk has for images"
    )
    concurrent_creates: int = setting(
        8, "concurrent-creates", "CONCURRENT_CREATES", "how many VMs are asked for at a time; ours"
    )
    sweep_interval: Duration = setting(
        Duration(600.0),
        "sweep-interval",
        "SWEEP_INTERVAL",
        "how often the cloud is looked through for what no sandbox owns; 0 is never; ours",
    )
    owner: str = setting(
        "",
        "owner",
        "OWNER",
        "whose the VMs are, in a tag of all that is made; empty is the node's name and its machine id; ours",
    )
    usage_file: str = setting(
        "",
        "usage-file",
        "USAGE_FILE",
        "where it is put down how long pods have machines of which types, for the action costs; nowhere if empty; ours",
    )
    warm_pool: tuple[tuple[str, str], ...] = setting(
        (),
        "warm-pool",
        "WARM_POOL",
        "how many VMs of which kinds are kept running for pods to come, as default=2,m6a.large=1,2x4096=1; ours",
    )
    warm_pool_budget: float = setting(
        0.0,
        "warm-pool-budget",
        "WARM_POOL_BUDGET",
        "what VMs that wait for pods may cost in an hour, all together, by warm-pool-prices; 0 is no bound; ours",
    )
    warm_pool_prices: str = setting(
        "",
        "warm-pool-prices",
        "WARM_POOL_PRICES",
        'a file with what an hour of each type costs, as "m6a.large" = 0.0864; ours',
    )
    log_level: str = setting("info", "log-level", "LOG_LEVEL", "debug, info, warning or error; ours")
    check: bool = setting(False, "check", "", "look at the cloud, say what is missing, and end; ours")

    cloud_settings: str = ""  # a digest of those that are with the cloud; no setting itself

    def verify(self) -> None:
        """See that numbers can be what they are for: otherwise it would be each pod that fails.

        Raises:
            SettingError: One cannot; names it.
        """
        bounds = (
            ("forwarder-port", self.forwarder_port, 1, 65_535),
            ("vxlan-port", self.vxlan_port, 0, 65_535),  # 0 is the default
            ("vxlan-min-id", self.vxlan_min_id, 1, (1 << 24) - 1),
            ("concurrent-creates", self.concurrent_creates, 1, 1_000),
            ("proxy-timeout", self.proxy_timeout, 1, _DAY),
            ("redial-timeout", self.redial_timeout, 0, _DAY),
            ("sweep-interval", self.sweep_interval, 0, 365 * _DAY),
            ("warm-pool-budget", self.warm_pool_budget, 0, 1e9),
        )
        for flag, value, least, most in bounds:
            if not least <= value <= most:  # also what is no number at all
                raise SettingError(f"-{flag}: {value:g} cannot be: it is from {least} to {most:.0f}")

    @property
    def pool_dir(self) -> Path:
        """Where machines that wait for pods are on record."""
        return Path(self.socket).parent / "pool"
