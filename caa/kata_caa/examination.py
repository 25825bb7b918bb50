"""Whether the settings can be what they are for, on this node: told by `-check`, and before the adaptor's start.

Otherwise it would be a late step of the start that fails, or each pod.
"""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from kata_caa import node
from kata_caa.config import AdaptorConfig
from kata_caa.errors import AdaptorError, MalformedConfig, SettingError
from kata_caa.forwarder.provision import read_initdata, unpack_initdata
from kata_caa.owner import owner_of_this_node
from kata_caa.pool.wish import Budget, Wish, wishes
from kata_caa.providers.api import Finding
from kata_caa.tls import Tls, profile_of
from kata_caa.tunnel.inspection import node_address
from kata_caa.usage import prices


def examine(config: AdaptorConfig) -> list[Finding]:
    """What was looked at; with what does not pass the adaptor cannot serve. Blocks."""
    looks: tuple[tuple[str, Callable[[AdaptorConfig], str]], ...] = (
        ("numbers", _numbers),
        ("owner", _owner),
        ("initdata", _initdata),
        ("TLS", _tls),
        ("tunnels", _tunnels),
        ("further networks of pods", _networks),
        ("interface of tunnels", _interface),
        ("warm pool", _pool),
    )
    return [_finding(subject, look, config) for subject, look in looks]


def require(config: AdaptorConfig) -> None:
    """See that the adaptor can serve. Blocks.

    Raises:
        SettingError: The first thing that does not pass; names the setting, and says what to do.
    """
    for each in examine(config):
        if not each.passed:
            raise SettingError(each.detail)


def pool_of(config: AdaptorConfig) -> tuple[Sequence[Wish], Budget]:
    """Which machines shall wait for pods, and what they may cost. Reads a small file.

    Raises:
        SettingError: It cannot be understood.
    """
    wanted = wishes(config.warm_pool, multi_nic=config.ext_network_via_podvm)
    path = config.warm_pool_prices
    return wanted, Budget(config.warm_pool_budget, prices(Path(path), "-warm-pool-prices") if path else {})


def _finding(subject: str, look: Callable[[AdaptorConfig], str], config: AdaptorConfig) -> Finding:
    try:
        return Finding(subject, True, look(config))
    except AdaptorError as error:
        return Finding(subject, False, str(error))


def _numbers(config: AdaptorConfig) -> str:
    config.verify()
    return "within their bounds"


def _owner(config: AdaptorConfig) -> str:
    return owner_of_this_node(config.owner)


def _initdata(config: AdaptorConfig) -> str:
    if not config.initdata:
        return "none but pods' own"
    try:
        read_initdata(unpack_initdata(config.initdata.encode()))
    except MalformedConfig as error:
        raise SettingError(f"-initdata: {error}; it is made by: gzip -c initdata.toml | base64 -w0") from error
    return "for pods that bring none"


def _tls(config: AdaptorConfig) -> str:
    profile = profile_of(config)
    if not (profile.ca_file or profile.cert_file):
        profile.check()
        return "none" if profile.disable else "an authority of the adaptor's own"
    with tempfile.TemporaryDirectory() as directory:  # an authority that nobody will miss
        Tls(profile, Path(directory)).check()
    return profile.ca_file or profile.cert_file


def _tunnels(config: AdaptorConfig) -> str:
    return node.require(config) or config.tunnel_type


def _networks(config: AdaptorConfig) -> str:
    for cidr in config.pod_subnet_cidrs:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise SettingError(
                f"-pod-subnet-cidrs: {cidr!r} is no network: {error}; write it as 10.128.0.0/14 or fd01::/48"
            ) from None
    return ", ".join(config.pod_subnet_cidrs) or "none"


def _interface(config: AdaptorConfig) -> str:
    if not config.host_interface:
        return "that of the node's default route"
    try:
        return f"{config.host_interface}, {node_address(config.host_interface)}"
    except AdaptorError as error:
        raise SettingError(
            f"-host-interface: {error}; name one that `ip address` shows with an address, or leave it empty"
        ) from error


def _pool(config: AdaptorConfig) -> str:
    wanted, _ = pool_of(config)
    return ", ".join(f"{each.name}={each.count}" for each in wanted) or "none"
