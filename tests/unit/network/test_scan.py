"""What is taken from the kernel's messages, in the form in which pyroute2 decodes them."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

from kata_py.network.endpoint import Address, Kind, Neighbour, Route
from kata_py.network.errors import UnsupportedLink
from kata_py.network.scan import Dump, endpoints

UP = 0x11043


def link(index: int, name: str, kind: str = "veth", *, flags: int = UP, type: int = 1, **extra: str) -> dict[str, Any]:
    attributes: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", name), ("IFLA_MTU", 1500), ("IFLA_ADDRESS", f"02:00:00:00:00:{index:02x}"), *extra.items(),
    ]  # fmt: skip
    if kind:
        attributes.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}))
    return {"index": index, "flags": flags, "ifi_type": type, "attrs": attributes}


def address(index: int, ip: str, prefix: int = 24, **more: str) -> dict[str, Any]:
    return {"index": index, "prefixlen": prefix, "attrs": [("IFA_ADDRESS", ip), *more.items()]}


def route(index: int, **fields: Any) -> dict[str, Any]:
    header = {"family": 2, "dst_len": 24, "table": 254, "proto": 3, "type": 1, "scope": 0, "flags": 0}
    header |= {key: value for key, value in fields.items() if key in header}
    attributes = [(key, value) for key, value in fields.items() if key not in header]
    return {**header, "attrs": [("RTA_TABLE", header["table"]), ("RTA_OIF", index), *attributes]}


def neighbour(index: int, ip: str | None, state: int, mac: str = "02:00:00:00:00:99") -> dict[str, Any]:
    attributes = [("NDA_DST", ip), ("NDA_LLADDR", mac)] if ip else [("NDA_LLADDR", mac)]
    return {"ifindex": index, "state": state, "flags": 0, "attrs": attributes}


@pytest.mark.parametrize(
    ("kind", "told"),
    [("veth", Kind.DEVICE), ("", Kind.DEVICE), ("bond", Kind.DEVICE), ("macvlan", Kind.MACVLAN),
     ("ipvlan", Kind.IPVLAN), ("macvtap", Kind.MACVTAP), ("tun", Kind.TAP)],
)  # fmt: skip
def test_a_link_is_of_the_kind_that_upstream_tells_the_agent(kind: str, told: Kind) -> None:
    (found,) = endpoints(Dump((link(2, "eth0", kind),), (address(2, "10.0.0.2"),)))
    assert found.kind is told
    assert (found.name, found.index, found.mac, found.mtu) == ("eth0", 2, "02:00:00:00:00:02", 1500)


def test_loopback_bare_links_and_known_ones_are_passed_over() -> None:
    links = (link(1, "lo", "", flags=0x49, type=772), link(2, "tunl0", "ipip", type=768), link(3, "eth0"))
    links += (link(4, "eth1"),)
    addresses = tuple(address(index, "10.0.0.2") for index in (1, 3, 4))
    assert [found.name for found in endpoints(Dump(links, addresses), known={3})] == ["eth1"]


@pytest.mark.parametrize("bus", ["pci", "vmbus"])
def test_a_physical_device_is_refused_by_name_and_place(bus: str) -> None:
    physical = link(2, "ens1", "", IFLA_PARENT_DEV_BUS_NAME=bus, IFLA_PARENT_DEV_NAME="0000:01:00.0")
    with pytest.raises(UnsupportedLink, match=f"ens1 is a physical device .{bus} 0000:01:00.0., which needs VFIO"):
        endpoints(Dump((physical,), (address(2, "10.0.0.2"),)))


def test_what_is_no_ethernet_link_is_refused() -> None:
    with pytest.raises(UnsupportedLink, match=r"wg0 \(wireguard\) is not an Ethernet link"):
        endpoints(Dump((link(2, "wg0", "wireguard", type=65534),), (address(2, "10.0.0.2"),)))


def test_a_point_to_point_address_is_our_end_of_it() -> None:
    (found,) = endpoints(Dump((link(2, "eth0"),), (address(2, "10.0.0.1", 32, IFA_LOCAL="10.0.0.2"),)))
    assert found.addresses == (Address("10.0.0.2", 32),)


def test_a_link_that_resolves_no_addresses_is_told() -> None:
    (found,) = endpoints(Dump((link(2, "eth0", flags=UP | 0x80),), (address(2, "10.0.0.2"),)))
    assert found.noarp


def test_routes_are_those_of_the_main_table_that_somebody_made() -> None:
    made = {"RTA_DST": "192.0.2.0"}
    routes = (
        route(2, **made, RTA_GATEWAY="10.0.0.1", flags=4 | 16),
        route(2, RTA_DST="0.0.0.0", dst_len=0, RTA_GATEWAY="10.0.0.1"),
        route(2, **made, RTA_PREFSRC="10.0.0.2", scope=253, RTA_METRICS={"attrs": [("RTAX_MTU", 1400)]}),
        route(2, RTA_DST="fd00::", dst_len=64, family=10),
        route(3, **made),
        route(2, **made, proto=2),
        route(2, **made, table=255),
        route(2, **made, type=6),
        route(2, **made, flags=0x200),
    )
    (found,) = endpoints(Dump((link(2, "eth0"),), (address(2, "10.0.0.2"),), routes))
    assert found.routes == (
        Route("192.0.2.0/24", "10.0.0.1", onlink=True),
        Route("", "10.0.0.1"),
        Route("192.0.2.0/24", source="10.0.0.2", scope=253, mtu=1400),
        Route("fd00::/64", is_v6=True),
    )


def test_a_route_that_cannot_be_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    hops = route(0, RTA_DST="192.0.2.0", RTA_MULTIPATH=[{"oif": 2}, {"oif": 3}])
    via = route(2, RTA_DST="198.51.100.0", RTA_VIA={"family": 10, "addr": "fe80::1"})
    with caplog.at_level(logging.WARNING):
        (found,) = endpoints(Dump((link(2, "eth0"),), (address(2, "10.0.0.2"),), (hops, via)))
    assert found.routes == ()
    assert caplog.messages == [
        "route to 192.0.2.0 has several next hops, which a guest cannot be told",
        "route to 198.51.100.0 has a gateway of another family, which a guest cannot be told",
    ]


def test_neighbours_are_permanent_ones_and_gateways_that_answered() -> None:
    routes = (route(2, RTA_DST="", dst_len=0, RTA_GATEWAY="10.0.0.1"),)
    seen = (
        neighbour(2, "10.0.0.1", 0x02), neighbour(2, "10.0.0.5", 0x80), neighbour(2, "10.0.0.6", 0x02),
        neighbour(2, "10.0.0.7", 0x20), neighbour(3, "10.0.0.8", 0x80), neighbour(2, None, 0x80),
    )  # fmt: skip
    (found,) = endpoints(Dump((link(2, "eth0"),), (address(2, "10.0.0.2"),), routes, seen))
    assert found.neighbours == (
        Neighbour("10.0.0.1", "02:00:00:00:00:99", 0x02),
        Neighbour("10.0.0.5", "02:00:00:00:00:99", 0x80),
    )


def test_the_netlink_library_is_loaded_when_a_namespace_is_scanned_and_not_before() -> None:
    code = "import sys, kata_py.network.network; print('pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"
