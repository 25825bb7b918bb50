"""This node's side of the pods' network, as pods use it."""

from __future__ import annotations

import logging
from pathlib import Path

from kata_caa.apf import PodNetwork
from kata_caa.config import AdaptorConfig
from kata_caa.errors import SettingError, TunnelError
from kata_caa.record import PodRecord, PodRecords
from kata_caa.tunnel import vni, vxlan
from kata_caa.tunnel.inspection import inspect
from kata_py.netlink.vxlan import DEFAULT_PORT
from kata_py.resource.blocking import off_loop

logger = logging.getLogger(__name__)


class NodeTunnel:
    """Satisfies `kata_caa.peer.Tunnel`.

    Args:
        config: The adaptor's settings.
        records: Whose tunnels' numbers are taken.

    Raises:
        SettingError: Pods are to be connected in a way that there is not.
    """

    def __init__(self, config: AdaptorConfig, records: PodRecords) -> None:
        if config.tunnel_type != "vxlan":
            raise SettingError(f"-tunnel-type: {config.tunnel_type!r} is not vxlan, the one there is")
        self._config = config
        self._records = records

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
        return vni.numbered(network, vni.free_vni(minimum, taken) - minimum, minimum, taken)

    async def set_up(self, record: PodRecord) -> None:
        """As `Tunnel.set_up`; what an adaptor that was ended has left of it makes room first."""
        tunnel = _tunnel(record)
        await vxlan.tear_down(tunnel)
        await vxlan.set_up(tunnel, record.network)

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
        records = [record for id in self._records.ids() if (record := self._records.load(id)) is not None]
        return vni.held() | {number for record in records for number in record.vnis}


def _tunnel(record: PodRecord) -> vxlan.Tunnel:
    """Where the pod's traffic has an interface of its own, it is the machine's second."""
    number = 1 if record.network.dedicated and len(record.addresses) > 1 else 0
    network = record.network
    return vxlan.Tunnel(record.netns, network.vxlan_id, record.addresses[number], network.vxlan_port or DEFAULT_PORT)
