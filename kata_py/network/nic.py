"""A network interface of a virtual machine, as a value that a hypervisor driver is given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface whose host side is a tap device, open already.

    The descriptors stay their owner's; a driver passes them on and never closes them. Their frames carry a
    virtio-net header (`IFF_VNET_HDR`, `IFF_NO_PI`).

    Attributes:
        id: Its name in the machine: `network-<n>`.
        mac: Its hardware address, by which the guest finds it.
        tap_fds: One open queue of the tap device for each queue pair.
        vhost_fds: `/dev/vhost-net`, opened once for each queue; none when frames go through the hypervisor.
        mtu: In bytes.
        name: The tap device, for people.
    """

    id: str
    mac: str
    tap_fds: tuple[int, ...]
    vhost_fds: tuple[int, ...] = ()
    mtu: int = 1500
    name: str = ""
