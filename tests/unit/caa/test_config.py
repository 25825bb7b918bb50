"""The adaptor's own settings: what is refused before a pod could meet it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from kata_caa.config import AdaptorConfig
from kata_caa.errors import SettingError


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
