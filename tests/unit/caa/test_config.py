"""The adaptor's own settings: what is refused before a pod could meet it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from kata_caa.config import AdaptorConfig
from kata_caa.errors import SettingError
from kata_caa.settings import settings_of

UPSTREAM = {
    ("socket", "REMOTE_HYPERVISOR_ENDPOINT"): "/run/peerpod/hypervisor.sock",
    ("pods-dir", "PODS_DIR"): "/run/peerpod/pods",
    ("pause-image", "PAUSE_IMAGE"): "",
    ("forwarder-port", "FORWARDER_PORT"): 15150,
    ("ca-cert-file", "CACERT_FILE"): "",
    ("cert-file", "CERT_FILE"): "",
    ("cert-key", "CERT_KEY"): "",
    ("tls-skip-verify", "TLS_SKIP_VERIFY"): False,
    ("tls-min-version", "TLS_MIN_VERSION"): "",
    ("tls-cipher-suites", "TLS_CIPHER_SUITES"): "",
    ("proxy-timeout", "PROXY_TIMEOUT"): 300.0,
    ("tunnel-type", "TUNNEL_TYPE"): "vxlan",
    ("vxlan-port", "VXLAN_PORT"): 4789,
    ("initdata", "INITDATA"): "",
    ("cloud-config-verify", "CLOUD_CONFIG_VERIFY"): False,
    ("peerpods-limit-per-node", "PEERPODS_LIMIT_PER_NODE"): 10,
    ("enable-scratch-space", "ENABLE_SCRATCH_SPACE"): False,
    ("ext-network-via-podvm", "EXTERNAL_NETWORK_VIA_PODVM"): False,
    ("pod-subnet-cidrs", "POD_SUBNET_CIDRS"): (),
    ("disable-tls", ""): False,
    ("host-interface", ""): "",
    ("vxlan-min-id", ""): 555000,
}


def test_every_flag_and_variable_of_upstreams_is_there_with_its_default():
    ours = {(how.flag, how.environment): field.default for field, how in settings_of(AdaptorConfig)}
    assert UPSTREAM.items() <= ours.items()


def test_the_defaults_can_be():
    AdaptorConfig().verify()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"forwarder_port": 0}, "-forwarder-port: 0 cannot be: it is from 1 to 65535"),
        ({"vxlan_port": 70_000}, "-vxlan-port: 70000 cannot be"),
        ({"vxlan_min_id": 1 << 24}, "-vxlan-min-id"),
        ({"concurrent_creates": 0}, "-concurrent-creates"),
        ({"proxy_timeout": -5.0}, "-proxy-timeout: -5 cannot be"),
        ({"sweep_interval": -1.0}, "-sweep-interval"),
        ({"warm_pool_budget": math.nan}, "-warm-pool-budget: nan cannot be"),
    ],
)
def test_a_number_that_cannot_be_is_named(changes: dict[str, Any], said: str):
    with pytest.raises(SettingError, match=said):
        replace(AdaptorConfig(), **changes).verify()
