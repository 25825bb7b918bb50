"""This node's side of the pods' network, as pods use it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from kata_caa.apf import PodNetwork
from kata_caa.config import AdaptorConfig
from kata_caa.errors import SettingError, TunnelError
from kata_caa.record import PodRecord, PodRecords
from kata_caa.tunnel import worker
from kata_caa.tunnel.inspection import Wishes, inspect, vnis_in_use
from kata_caa.tunnel.links import free_vnis
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
        self._wishes = Wishes(
            config.host_interface, config.pod_subnet_cidrs, config.ext_network_via_podvm, config.vxlan_port
        )
        self._minimum = config.vxlan_min_id
        self._records = records

    async def inspect(self, netns: Path) -> PodNetwork:
        """As `Tunnel.inspect`."""
        return await off_loop(self._inspect, netns)

    async def set_up(self, record: PodRecord) -> None:
        """As `Tunnel.set_up`; where the pod's traffic has an interface of its own, it is the machine's second."""
        number = 1 if record.network.dedicated and len(record.addresses) > 1 else 0
        await off_loop(worker.set_up, Path(record.netns), record.network, record.addresses[number])

    async def tear_down(self, record: PodRecord) -> None:
        """As `Tunnel.tear_down`; what stays is told, and holds up nothing."""
        try:
            await off_loop(worker.tear_down, Path(record.netns), record.network)
        except TunnelError as error:
            logger.error("%s: %s", record.instance_name, error)

    def _inspect(self, netns: Path) -> PodNetwork:
        network = inspect(netns, self._wishes)
        records = [record for id in self._records.ids() if (record := self._records.load(id)) is not None]
        taken = vnis_in_use(Path(record.netns) for record in records) | {vni for each in records for vni in each.vnis}
        first, *others = free_vnis(1 + len(network.interfaces), self._minimum, frozenset(taken))
        interfaces = (replace(each, vxlan_id=vni) for each, vni in zip(network.interfaces, others, strict=True))
        return replace(network, vxlan_id=first, index=first - self._minimum, interfaces=tuple(interfaces))
