"""Redirecting what comes in on a link: its ingress queueing discipline, and a filter that matches all.

Source: tc(8), tc-u32(8), tc-mirred(8); Linux `include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h`,
`include/uapi/linux/tc_act/tc_mirred.h`.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from kata_py.netlink import wire
from kata_py.netlink.rtnetlink import Link, Rtnetlink

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC, _RTM_NEWTFILTER, _RTM_GETTFILTER = 36, 37, 38, 44, 46
_TC_H_INGRESS = 0xFFFFFFF1
_INGRESS = 0xFFFF0000  # ffff:, the number that every ingress discipline has
_ETH_P_ALL = 3
_PRIORITY = 1
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_U32_SEL, _TCA_U32_ACT = 5, 7
_TCA_ACT_KIND, _TCA_ACT_OPTIONS, _TCA_MIRRED_PARMS = 1, 2, 2
_TC_U32_TERMINAL, _TC_ACT_STOLEN, _TCA_EGRESS_REDIR = 1, 4, 1

_TCMSG = struct.Struct("=B3xiIII")  # family, index, handle, parent, info
_U32_SEL = struct.Struct("=BBBxHHhhI")  # flags, offshift, nkeys, offmask, off, offoff, hoff, hmask
_U32_KEY = struct.Struct("=IIii")  # mask, value, off, offmask
_MIRRED = struct.Struct("=IIiiiiI")  # index, capab, action, refcnt, bindcnt, eaction, ifindex


class Filter(NamedTuple):
    """A filter of what comes in on a link.

    Attributes:
        kind: `u32`, `bpf`, …
        target: Number of the link that all is redirected to, 0 if that is gone; None if the filter does something else.
    """

    kind: str
    target: int | None


def add_ingress(kernel: Rtnetlink, link: Link) -> None:
    """Give a link the discipline that filters of incoming frames hang on.

    Raises:
        OSError: It has one already (EEXIST), among others.
    """
    payload = _TCMSG.pack(0, link.number, _INGRESS, _TC_H_INGRESS, 0) + _kind("ingress")
    kernel.change(_RTM_NEWQDISC, wire.NLM_F_CREATE | wire.NLM_F_EXCL, payload, f"{link.name}, ingress discipline")


def delete_ingress(kernel: Rtnetlink, link: Link) -> None:
    """Take that discipline from a link, and its filters with it.

    Raises:
        OSError: The kernel refuses.
    """
    payload = _TCMSG.pack(0, link.number, _INGRESS, _TC_H_INGRESS, 0)
    kernel.change(_RTM_DELQDISC, 0, payload, f"{link.name}, ingress discipline")


def ingress_links(kernel: Rtnetlink) -> set[int]:
    """The numbers of the links that have that discipline, or clsact, which takes its place.

    Raises:
        OSError: The kernel refuses.
    """
    found = set()
    for payload in kernel.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0), "queueing disciplines"):
        _family, index, handle, _parent, _info = _TCMSG.unpack_from(payload)
        if handle == _INGRESS:
            found.add(index)
    return found


def redirect(kernel: Rtnetlink, source: Link, target: Link) -> None:
    """Send every frame that comes in on one link, and has the ingress discipline, out on another.

    Raises:
        OSError: The kernel refuses.
    """
    options = _redirect_options(target.number)
    info = _PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    payload = _TCMSG.pack(0, source.number, 0, _INGRESS, info) + _kind("u32") + wire.attribute(_TCA_OPTIONS, options)
    flags = wire.NLM_F_CREATE | wire.NLM_F_EXCL
    kernel.change(_RTM_NEWTFILTER, flags, payload, f"{source.name}, redirection to {target.name}")


def filters(kernel: Rtnetlink, link: Link) -> list[Filter]:
    """The filters of what comes in on a link.

    Raises:
        OSError: The kernel refuses.
    """
    found = []
    request = _TCMSG.pack(0, link.number, 0, _INGRESS, 0)
    for payload in kernel.dump(_RTM_GETTFILTER, request, f"{link.name}, filters"):
        values = wire.decode_attributes(payload[_TCMSG.size :])
        kind = values[_TCA_KIND].rstrip(b"\0").decode()
        options = wire.decode_attributes(values.get(_TCA_OPTIONS, b""))
        if kind != "u32" or _TCA_U32_SEL in options:  # the others are u32's hash tables, which are no filters
            found.append(Filter(kind, _target(options.get(_TCA_U32_ACT, b"")) if kind == "u32" else None))
    return found


def _redirect_options(target: int) -> bytes:
    selector = _U32_SEL.pack(_TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _U32_KEY.pack(0, 0, 0, 0)
    mirred = _MIRRED.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, target)
    action = wire.attribute(_TCA_ACT_KIND, b"mirred\0") + wire.attribute(
        _TCA_ACT_OPTIONS, wire.attribute(_TCA_MIRRED_PARMS, mirred)
    )
    return wire.encode_attributes(((_TCA_U32_SEL, selector), (_TCA_U32_ACT, wire.attribute(1, action))))


def _target(actions: bytes) -> int | None:
    action = wire.decode_attributes(wire.decode_attributes(actions).get(1, b""))
    if action.get(_TCA_ACT_KIND, b"").rstrip(b"\0") != b"mirred":
        return None
    parameters = wire.decode_attributes(action.get(_TCA_ACT_OPTIONS, b"")).get(_TCA_MIRRED_PARMS)
    if parameters is None:
        return None
    *_, what, target = _MIRRED.unpack_from(parameters)
    return int(target) if what == _TCA_EGRESS_REDIR else None


def _kind(name: str) -> bytes:
    return wire.attribute(_TCA_KIND, name.encode() + b"\0")
