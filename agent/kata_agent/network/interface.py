"""Network interfaces as hosts see them: `types.Interface`, applied to a link and listed.

Functions block for a moment: call them off the event loop. Source for what is done in which case: kata-containers'
`src/agent/src/netlink.rs`.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from kata_agent.errors import AgentError
from kata_protos.agent_types_pb2 import Interface, IPAddress, v4, v6
from kata_py.netlink.rtnetlink import IFF_NOARP, IFNAMSIZ, Address, Link, Rtnetlink

_LOG = logging.getLogger(__name__)

_IPV6 = Path("/proc/sys/net/ipv6/conf")
_TEMPORARY = "_temp"


class LinkNotFound(AgentError):
    """There is no such link. Hosts look for the first words of its message, and try again."""

    def __init__(self, by: str, value: str) -> None:
        super().__init__(f"Link not found ({by}: {value})")


def update(wanted: Interface, device: str | None = None) -> None:
    """Make a link what the host wants: hardware address, name, MTU, addresses, up.

    The link is that of the device, else that with the hardware address, else that with the name, which gets the
    hardware address. Addresses it has stay. A link that owns the name gets this one's instead. If anything
    fails, what was changed is changed back.

    Args:
        wanted: What the host wants. Without `name`, `hwAddr` or `mtu` these stay as they are.
        device: Name of the interface of the device that the host means.

    Raises:
        LinkNotFound: There is no such link.
        AgentError: A value has not its form.
        OSError: The kernel refuses.
    """
    address = link_address(wanted.hwAddr) if wanted.hwAddr else None
    ip_addresses = [_ip_address(each) for each in wanted.IPAddresses]
    if not ipv6_enabled():
        ip_addresses = [each for each in ip_addresses if each.family != socket.AF_INET6]
    if len(os.fsencode(wanted.name)) >= IFNAMSIZ:
        raise AgentError(f"name {wanted.name!r} is longer than {IFNAMSIZ - 1} bytes")
    with Rtnetlink() as kernel, ExitStack() as undo:
        link = _choose(kernel.links(), wanted, address, device)
        name = wanted.name or link.name
        change = _Changes(kernel, undo)
        readdressed = address is not None and address != link.address
        stopped = link.is_up and (readdressed or name != link.name)
        if stopped:
            change.up(link, False, was=True)
        if address is not None and readdressed:
            change.address(link, address)
        owner = change.rename(link, name)
        if wanted.mtu not in (0, link.mtu):
            change.mtu(link, wanted.mtu)
        change.arp(link, not wanted.raw_flags & IFF_NOARP)
        change.up(link, True, was=link.is_up and not stopped)
        change.ip_addresses(link, ip_addresses)
        if owner is not None and owner.is_up:
            kernel.set_link(owner, up=True)
        undo.pop_all()


def interfaces() -> list[Interface]:
    """All links with their addresses.

    Raises:
        OSError: The kernel refuses.
    """
    with Rtnetlink() as kernel:
        addresses = kernel.addresses()
        return [
            Interface(
                name=link.name,
                hwAddr=link.address.hex(":").upper(),
                mtu=link.mtu,
                IPAddresses=[_to_message(address) for number, address in addresses if number == link.number],
            )
            for link in kernel.links()
        ]


def find(links: Sequence[Link], name: str) -> Link:
    """The link of that name.

    Raises:
        LinkNotFound: There is none.
    """
    for link in links:
        if link.name == name:
            return link
    raise LinkNotFound("Name", name)


def link_address(text: str) -> bytes:
    """The bytes of a hardware address, written with colons.

    Raises:
        AgentError: It has not that form.
    """
    try:
        return bytes(_octet(word) for word in text.split(":"))
    except ValueError:
        raise AgentError(f"Failed to parse MAC address: {text}") from None


def ip_bytes(text: str) -> tuple[int, bytes]:
    """The family and bytes of an IPv4 or IPv6 address.

    Raises:
        AgentError: It has neither form.
    """
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return family, socket.inet_pton(family, text)
    except OSError:
        raise AgentError(f"Failed to parse IP {text!r}") from None


def prefix_length(text: str, family: int) -> int:
    """The bits of a network, from their number as text.

    Raises:
        AgentError: It is no number, or too large for the family.
    """
    bits = 128 if family == socket.AF_INET6 else 32
    if not (text.isascii() and text.isdecimal() and int(text) <= bits):
        raise AgentError(f"prefix length {text!r} is no number up to {bits}")
    return int(text)


def ipv6_enabled(conf: Path = _IPV6) -> bool:
    """Whether the kernel takes IPv6 addresses: on all interfaces, or on those to come."""
    return any(_is_zero(conf / name / "disable_ipv6") for name in ("all", "default"))


class _Changes:
    """Changes of links, each with its way back on a stack."""

    def __init__(self, kernel: Rtnetlink, undo: ExitStack) -> None:
        self._kernel = kernel
        self._undo = undo

    def up(self, link: Link, up: bool, *, was: bool) -> None:
        self._kernel.set_link(link, up=up)
        self._later(lambda: self._kernel.set_link(link, up=was))

    def address(self, link: Link, address: bytes) -> None:
        self._kernel.set_link(link, address=address)
        self._later(lambda: self._kernel.set_link(link, address=link.address))

    def rename(self, link: Link, name: str) -> Link | None:
        """Give the link the name; who has that gets the link's, and is down then. Returns that other link."""
        if name == link.name:
            return None
        links = self._kernel.links()
        owner = next((other for other in links if other.name == name), None)
        if owner is not None:
            if owner.is_up:
                self.up(owner, False, was=True)
            self._rename(owner, name, _free_name(name, links))
        self._rename(link, link.name, name)
        if owner is not None:
            self._kernel.set_link(owner, name=link.name)
            self._later(lambda: self._kernel.set_link(owner, name=_free_name(name, self._kernel.links())))
        return owner

    def _rename(self, link: Link, old: str, new: str) -> None:
        self._kernel.set_link(link, name=new)
        self._later(lambda: self._kernel.set_link(link, name=old))

    def mtu(self, link: Link, mtu: int) -> None:
        self._kernel.set_link(link, mtu=mtu)
        self._later(lambda: self._kernel.set_link(link, mtu=link.mtu))

    def arp(self, link: Link, arp: bool) -> None:
        self._kernel.set_link(link, arp=arp)
        self._later(lambda: self._kernel.set_link(link, arp=not link.flags & IFF_NOARP))

    def ip_addresses(self, link: Link, wanted: Sequence[Address]) -> None:
        present = {address for number, address in self._kernel.addresses() if number == link.number}
        for address in wanted:
            try:
                self._kernel.add_address(link, address, _broadcast(address))
            except OSError as error:
                raise AgentError(f"Failed to add address {error.filename}: {error.strerror}") from error
            if address not in present:
                self._later(functools.partial(self._kernel.delete_address, link, address))

    def _later(self, change_back: Callable[[], None]) -> None:
        def attempt() -> None:
            try:
                change_back()
            except OSError as error:  # the failure that led here is the one to be told
                _LOG.warning("cannot change back: %s", error)

        self._undo.callback(attempt)


def _choose(links: Sequence[Link], wanted: Interface, address: bytes | None, device: str | None) -> Link:
    if device is not None:
        return find(links, device)
    if address is not None:
        for link in links:
            if link.address == address:
                return link
        if all(link.name != wanted.name for link in links):
            raise LinkNotFound("Address", wanted.hwAddr)
    return find(links, wanted.name)


def _free_name(name: str, links: Sequence[Link]) -> str:
    """A name for a link that is in the way: its own with an ending, shortened to what a name may have."""
    taken = {link.name for link in links}
    endings = (_TEMPORARY, *(f"{_TEMPORARY}{number}" for number in range(len(links))))
    names = (os.fsencode(name)[: IFNAMSIZ - 1 - len(ending)] + ending.encode() for ending in endings)
    return next(free for each in names if (free := os.fsdecode(each)) not in taken)


def _ip_address(message: IPAddress) -> Address:
    family, address = ip_bytes(message.address)
    return Address(family, address, prefix_length(message.mask, family))


def _to_message(address: Address) -> IPAddress:
    return IPAddress(
        family=v6 if address.family == socket.AF_INET6 else v4,
        address=socket.inet_ntop(address.family, address.address),
        mask=str(address.prefix),
    )


def _broadcast(address: Address) -> bytes | None:
    if address.family != socket.AF_INET or address.prefix > 30:
        return None
    hosts = (1 << (32 - address.prefix)) - 1
    return (int.from_bytes(address.address) | hosts).to_bytes(4)


def _octet(word: str) -> int:
    if not (len(word) <= 2 and word.isascii() and word.isalnum()):
        raise ValueError(word)
    return int(word, 16)


def _is_zero(path: Path) -> bool:
    try:
        return path.read_text().strip() == "0"
    except FileNotFoundError:  # a kernel without IPv6
        return False
