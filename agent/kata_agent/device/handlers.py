"""One function per kind of device: each waits for it and tells what a container's spec must say of it.

Source: kata-containers' `src/agent/src/device/`.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_agent.device import environment, node
from kata_agent.device.address import pci_address
from kata_agent.device.node import Node
from kata_agent.errors import AgentError, InvalidArgument

if TYPE_CHECKING:
    from kata_agent.device.finder import Finder
    from kata_protos.agent_pb2 import Device
    from kata_py.oci.spec import LinuxDevice, Spec

_LOG = logging.getLogger(__name__)

INFINIBAND = Path("/dev/infiniband")
CRYPTO = "/dev/z90crypt"


class Update(NamedTuple):
    """What one device changes.

    Attributes:
        node: Its node; None where the container uses it by other means.
        addresses: Its PCI addresses, the host's and the guest's.
    """

    node: Node | None
    addresses: tuple[tuple[str, str], ...] = ()


Handler = Callable[["Finder", "Device"], Awaitable[Update]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What all devices of a container change.

    Attributes:
        nodes: Nodes by path in the container.
        addresses: The guest's PCI addresses by the host's.
        more: Nodes that come along.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    more: tuple[LinuxDevice, ...] = ()

    def made(self, spec: Spec) -> Spec:
        """The spec with the changes made.

        Raises:
            AgentError: It does not name the devices.
        """
        result = node.with_nodes(spec, self.nodes, self.more)
        process = result.get("process")
        if process and process.get("env"):
            process = process.copy()
            process["env"] = environment.translated(process["env"], self.addresses)
            result["process"] = process
        return result


async def find(finder: Finder, devices: Iterable[Device], infiniband: Path = INFINIBAND) -> Changes:
    """Wait for a container's devices.

    Args:
        finder: Finds them.
        devices: What the host says of them.
        infiniband: Where the guest has its RDMA devices, which come along with those of VFIO.

    Raises:
        InvalidArgument: A device is not described in full.
        AgentError: A device did not appear, or cannot be used as is asked for.
    """
    nodes: dict[str, Node] = {}
    addresses: dict[str, str] = {}
    has_vfio = False
    for device in devices:
        _check(device)
        handler = HANDLERS.get(device.type)
        if handler is None:
            raise AgentError(f"Failed to find the device handler {device.type}")
        update = await handler(finder, device)
        if update.node is not None and nodes.setdefault(device.container_path, update.node) is not update.node:
            raise AgentError(f"Conflicting device updates for {device.container_path}")
        for host, guest in update.addresses:
            if addresses.setdefault(host, guest) != guest:
                raise AgentError(f"Conflicting guest address for host device {host} ({guest} versus {addresses[host]})")
        has_vfio = has_vfio or device.type.startswith("vfio-pci")
    return Changes(nodes, addresses, tuple(_character_devices(infiniband)) if has_vfio else ())


def _check(device: Device) -> None:
    if not device.type:
        raise InvalidArgument(f"invalid type for device {device.id or device.vm_path!r}")
    if not device.id and not device.vm_path:
        raise InvalidArgument(f"invalid ID and VM path for device of type {device.type}")
    if not device.container_path:
        raise InvalidArgument(f"invalid container path for device {device.id or device.vm_path!r}")


async def _virtio_block(finder: Finder, device: Device) -> Update:
    return Update(Node.of(await (finder.virtio_block(device.id) if device.id else finder.block(device.vm_path))))


async def _ccw_block(finder: Finder, device: Device) -> Update:
    return Update(Node.of(await finder.ccw_block(device.id)))


async def _named(finder: Finder, device: Device) -> Update:
    return Update(Node.of(await finder.block(device.vm_path)))


async def _pmem(finder: Finder, device: Device) -> Update:
    return Update(Node.of(await finder.pmem(device.vm_path)))


async def _scsi(finder: Finder, device: Device) -> Update:
    return Update(Node.of(await finder.scsi_disk(device.id)))


async def _vfio_pci(finder: Finder, device: Device) -> Update:
    """For a container that has its own driver: the group's node."""
    addresses = await _appeared(finder, device)
    groups = {await finder.vfio_node(guest): guest for _, guest in addresses}
    if len(groups) != 1:
        cause = "no device was given" if not groups else f"{', '.join(groups.values())} are not in one IOMMU group"
        raise AgentError(f"failed to get VFIO group for {device.id}: {cause}")
    _, path = next(iter(groups))
    return Update(Node.of(path, path), addresses)


async def _vfio_pci_guest_kernel(finder: Finder, device: Device) -> Update:
    """For a container that uses what the guest's kernel makes of it."""
    return Update(None, await _appeared(finder, device))


async def _appeared(finder: Finder, device: Device) -> tuple[tuple[str, str], ...]:
    """The host's and the guest's PCI address of all functions that the options name, once they are there."""
    addresses = []
    for option in device.options:
        host, found, path = option.partition("=")
        if not found or "=" in path:
            raise InvalidArgument(f"Malformed VFIO PCI option {option!r}")
        if not path:
            _LOG.warning("device %s: the host knows no guest PCI path of %s; it is skipped", device.id, host)
            continue
        addresses.append((pci_address(host), await finder.pci_device(path)))
    return tuple(addresses)


async def _vfio_ap(finder: Finder, device: Device) -> Update:
    try:
        await finder.scan_ap()
    except OSError as error:
        raise AgentError(f"VFIO-AP is only supported on s390x: {error}") from error
    return await _vfio_ap_cold(finder, device)


async def _vfio_ap_cold(finder: Finder, device: Device) -> Update:
    for queue in device.options:
        await finder.ap_queue(queue)
    return Update(Node.of(CRYPTO, CRYPTO))


def _character_devices(directory: Path) -> Iterable[LinuxDevice]:
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        found = path.stat()
        if stat.S_ISCHR(found.st_mode):
            device = Node.of(path)
            yield {
                "path": str(path),
                "type": "c",
                "major": device.major,
                "minor": device.minor,
                "fileMode": stat.S_IMODE(found.st_mode),
                "uid": found.st_uid,
                "gid": found.st_gid,
            }


HANDLERS: dict[str, Handler] = {
    "blk": _virtio_block,
    "blk-ccw": _ccw_block,
    "mmioblk": _named,
    "nvdimm": _pmem,
    "scsi": _scsi,
    "vfio-ap": _vfio_ap,
    "vfio-ap-cold": _vfio_ap_cold,
    "vfio-pci": _vfio_pci,
    "vfio-pci-gk": _vfio_pci_guest_kernel,
}
