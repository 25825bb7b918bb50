"""This node's side of the pods' network, as pods use it."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import replace
from pathlib import Path

from kata_caa.apf import PodNetwork
from kata_caa.config import AdaptorConfig
from kata_caa.errors import SettingError, TunnelError
from kata_caa.providers.api import Finding
from kata_caa.record import PodRecord, PodRecords
from kata_caa.tunnel import encryption, vni, vxlan
from kata_caa.tunnel.inspection import inspect
from kata_caa.tunnel.keys import NodeKey
from kata_py.netlink.vxlan import DEFAULT_PORT
from kata_py.resource.blocking import off_loop

logger = logging.getLogger(__name__)

_PORTS = range(1, 1 << 16)


def check(config: AdaptorConfig) -> list[Finding]:
    """Whether this node can connect pods as it is told to. Blocks while a module is loaded.

    Raises:
        SettingError: Pods are to be connected in a way that there is not.
    """
    if config.tunnel_type != "vxlan":
        raise SettingError(f"-tunnel-type: {config.tunnel_type!r} is not vxlan, the one there is")
    match config.tunnel_encryption:
        case "none":
            return []
        case "wireguard":
            pass
        case other:
            raise SettingError(f"-tunnel-encryption: {other!r} is neither none nor wireguard")
    if config.wireguard_port not in _PORTS or config.wireguard_port == config.vxlan_port:
        raise SettingError(f"-wireguard-port: {config.wireguard_port} is no UDP port, or that of -vxlan-port")
    try:
        why = encryption.obstacle()
    except OSError as error:
        why = f"the kernel cannot be asked for WireGuard: {error}"
    return [Finding("encrypted tunnels", not why, why or f"WireGuard, UDP port {config.wireguard_port} of pod VMs")]


def require(config: AdaptorConfig) -> str:
    """See that this node can connect pods as it is told to; returns how tunnels are encrypted. Blocks likewise.

    Raises:
        SettingError: There is no such way, or not on this node.
    """
    found = check(config)
    for finding in found:
        if not finding.passed:
            raise SettingError(f"-tunnel-encryption: {finding.detail}; or set it to none")
    return "; ".join(finding.detail for finding in found)


class NodeTunnel:
    """Satisfies `kata_caa.peer.Tunnel`. Making one blocks while a module is loaded.

    Args:
        config: The adaptor's settings.
        records: Whose tunnels' numbers are taken.

    Raises:
        SettingError: Pods are to be connected in a way that there is not, or not on this node.
    """

    def __init__(self, config: AdaptorConfig, records: PodRecords) -> None:
        require(config)
        self._config = config
        self._records = records
        self._key = NodeKey(Path(config.socket).parent / "wireguard.key")

    async def inspect(self, netns: Path) -> PodNetwork:
        """As `Tunnel.inspect`."""
        network = await inspect(
            netns,
            host_interface=self._config.host_interface,
            pod_subnet_cidrs=self._config.pod_subnet_cidrs,
            port=self._config.vxlan_port,
            external_via_pod_vm=self._config.ext_network_via_podvm,
        )
        taken = await off_loop(self._taken)
        minimum = self._config.vxlan_min_id
        index = vni.free_vni(minimum, taken) - minimum
        numbered = vni.numbered(network, index, minimum, taken)
        if self._config.tunnel_encryption == "none":
            return numbered
        port = self._config.wireguard_port
        node_port = port + 1 + index  # of this pod alone
        issued = await off_loop(self._key.issue, port, node_port if node_port in _PORTS else 0)
        return replace(numbered, encryption=issued)

    async def set_up(self, record: PodRecord) -> None:
        """As `Tunnel.set_up`; what an adaptor that was ended has left of it makes room first."""
        tunnel = _tunnel(record)
        await vxlan.tear_down(tunnel)
        issued = record.network.encryption
        end = await off_loop(self._key.end, issued, ipaddress.ip_address(tunnel.remote)) if issued else None
        await vxlan.set_up(tunnel, record.network, end)

    async def tear_down(self, record: PodRecord) -> None:
        """As `Tunnel.tear_down`; what stays is told, and holds up nothing."""
        if not record.addresses:
            return  # nothing was made for a machine that nobody has reached
        try:
            await vxlan.tear_down(_tunnel(record))
        except TunnelError as error:
            logger.error("%s: %s", record.instance_name, error)

    def _taken(self) -> set[int]:
        """The numbers that records hold, and the links of this node."""
        return vni.held() | {number for id in self._records.ids() for number in self._records.vnis(id)}


def _tunnel(record: PodRecord) -> vxlan.Tunnel:
    """Where the pod's traffic has an interface of its own, it is the machine's second."""
    number = 1 if record.network.dedicated and len(record.addresses) > 1 else 0
    network = record.network
    return vxlan.Tunnel(
        record.netns,
        network.vxlan_id,
        record.addresses[number],
        network.vxlan_port or DEFAULT_PORT,
        encrypted=network.encryption is not None,
    )
