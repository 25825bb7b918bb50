"""Routes as hosts see them: `types.Route`, added to the kernel's main table and listed.

Functions block for a moment: call them off the event loop. Source: kata-containers' `src/agent/src/netlink.rs`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from kata_agent.errors import AgentError
from kata_agent.network.interface import find, ip_bytes, prefix_length
from kata_protos.agent_types_pb2 import Route, v4, v6
from kata_py.netlink import rtnetlink
from kata_py.netlink.rtnetlink import RTNH_F_SETTINGS, Rtnetlink

# Hosts know default routes by these.
_DEFAULT: dict[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::1"}


def update(routes: Iterable[Route]) -> None:
    """Add routes, or replace those to the same destinations; others stay.

    Those without a gateway go first: they are how gateways are reached.

    Args:
        routes: `dest` is `address/prefix`, and the default route if empty. `source` is the address that packets are
            given, with `/0` or nothing behind it; `address/prefix` of IPv6 is the network they must come from.

    Raises:
        LinkNotFound: There is no link named `device`; no route is added then.
        AgentError: A value has not its form, and no route is added; the kernel refuses one.
    """
    with Rtnetlink() as kernel:
        links = kernel.links()
        ordered = sorted(routes, key=lambda route: bool(route.gateway))
        for route, made in [(route, _made(route, find(links, route.device).number)) for route in ordered]:
            try:
                kernel.add_route(made)
            except OSError as error:
                if error.errno == errno.EEXIST:
                    continue
                raise AgentError(
                    f"Failed to add IP v{6 if made.family == socket.AF_INET6 else 4} route "
                    f"(src: {route.source}, dst: {route.dest}, gtw: {route.gateway}, Err: {error.strerror})"
                ) from error


def routes() -> list[Route]:
    """The main table, IPv4 first.

    Raises:
        OSError: The kernel refuses.
    """
    with Rtnetlink() as kernel:
        names = {link.number: link.name for link in kernel.links()}
        found = [*kernel.routes(socket.AF_INET), *kernel.routes(socket.AF_INET6)]
        return [_to_message(route, names) for route in found]


def _made(route: Route, link: int) -> rtnetlink.Route:
    family = socket.AF_INET6 if route.family == v6 else socket.AF_INET
    destination, prefix = _network(route.dest, family, "dest") if route.dest else (None, 0)
    source, source_prefix, preferred = None, 0, None
    if route.source:
        address, bits = _network(route.source, family, "source")
        if "/" not in route.source or bits == 0 or (family == socket.AF_INET and bits == 32):
            preferred = address
        elif family == socket.AF_INET:
            raise AgentError(f"route to {route.dest!r}: IPv4 has no routes by source network, such as {route.source}")
        else:
            source, source_prefix = address, bits
    gateway = _address(route.gateway, family, "gateway") if route.gateway else None
    if not 0 <= route.scope <= 255:
        raise AgentError(f"route to {route.dest!r}: scope {route.scope} is not below 256")
    return rtnetlink.Route(
        family, destination if prefix else None, prefix, source, source_prefix, preferred, gateway, link,
        route.scope, route.flags & RTNH_F_SETTINGS, route.mtu,
    )  # fmt: skip


def _network(text: str, family: int, field: str) -> tuple[bytes, int]:
    """An address and its prefix length, all bits if none is given; `0.0.0.0` and `::1` of a default route are /0."""
    address, slash, bits = text.partition("/")
    if not slash and field == "dest" and text == _DEFAULT[family]:
        return bytes(4 if family == socket.AF_INET else 16), 0
    value = _address(address, family, field)
    return value, prefix_length(bits, family) if slash else len(value) * 8


def _address(text: str, family: int, field: str) -> bytes:
    found, value = ip_bytes(text)
    if found != family:
        raise AgentError(f"{field} {text} of a route is not of the route's family")
    return value


def _to_message(route: rtnetlink.Route, names: dict[int, str]) -> Route:
    def text(address: bytes) -> str:
        return socket.inet_ntop(route.family, address)

    message = Route(
        dest=_DEFAULT[route.family],
        device=names.get(route.link, ""),
        scope=route.scope,
        family=v6 if route.family == socket.AF_INET6 else v4,
        flags=route.flags,
        mtu=route.mtu,
    )
    if route.destination is not None:
        message.dest = f"{text(route.destination)}/{route.prefix}"
    if route.gateway is not None:
        message.gateway = text(route.gateway)
    if route.source is not None:
        message.source = f"{text(route.source)}/{route.source_prefix}"
    elif route.preferred_source is not None:
        message.source = f"{text(route.preferred_source)}/0"
    return message
