from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from kata_caa import apf
from kata_caa.errors import TunnelError
from kata_caa.tunnel.inspection import Dump, pod_network, worker_address
from kata_py.netlink.rtnetlink import IFF_LOOPBACK, NUD_PERMANENT, RTPROT_KERNEL, Address, Link, Neighbour, Route

MAC = bytes.fromhex("0a580a800005")


def ip(text: str, prefix: int) -> Address:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return Address(family, socket.inet_pton(family, text), prefix)


def route(destination: str, link: int, gateway: str = "", **values: int) -> Route:
    text, _, prefix = destination.partition("/")
    made = ip(text, int(prefix))
    return Route(
        made.family, made.address if made.prefix else None, made.prefix, link=link,
        gateway=ip(gateway, 0).address if gateway else None, **values,
    )  # fmt: skip


POD = Dump(
    links=(
        Link(1, "lo", bytes(6), 65536, IFF_LOOPBACK, type=772),
        Link(2, "eth0", MAC, 1400, 1),
        Link(3, "net1", MAC[::-1], 9000, 1),
        Link(4, "tunl0", b"", 1480, 0, type=768),
        Link(5, "bare0", MAC, 1500, 0),
    ),
    addresses=(
        (1, ip("127.0.0.1", 8)),
        (2, ip("10.128.0.5", 23)),
        (2, ip("fe80::5", 64)),
        (2, ip("fd00::5", 64)),
        (3, ip("10.9.0.2", 24)),
    ),
    routes=(
        route("10.128.0.0/23", 2, scope=253, protocol=RTPROT_KERNEL),
        route("0.0.0.0/0", 2, "10.128.0.1", protocol=4),
        route("10.9.0.0/24", 3, scope=253, protocol=RTPROT_KERNEL),
        route("10.1.0.0/16", 2, "10.128.0.1", protocol=186),  # BGP
        route("10.2.0.0/16", 2, type=6),  # blackhole
        route("192.168.0.0/16", 4, scope=253),
        route("fe80::/64", 2, protocol=RTPROT_KERNEL),
        route("::/0", 2, "fd00::1"),
    ),
    neighbours=(
        Neighbour(2, socket.AF_INET, ip("10.128.0.1", 0).address, MAC, NUD_PERMANENT, 0),
        Neighbour(2, socket.AF_INET, ip("10.128.0.9", 0).address, MAC, 2, 0),
        Neighbour(4, socket.AF_INET, ip("10.128.0.8", 0).address, MAC, NUD_PERMANENT, 0),
    ),
)
HOST = Dump(
    links=(Link(2, "ens5", MAC, 9001, 1), Link(3, "ens10", MAC, 9001, 1), Link(4, "cni0", MAC, 1500, 1)),
    addresses=((2, ip("192.168.1.9", 24)), (2, ip("192.168.1.10", 24)), (3, ip("192.168.2.9", 24))),
    routes=(route("0.0.0.0/0", 3, "192.168.2.1", metric=100), route("0.0.0.0/0", 2, "192.168.1.1", metric=100)),
)


def found(pod: Dump = POD, **settings: object) -> apf.PodNetwork:
    return pod_network(pod, "/run/netns/cni-1", worker_ip="192.168.1.9/24", **settings)  # type: ignore[arg-type]


def test_a_pod_is_found_with_all_that_its_machine_must_know() -> None:
    assert found() == apf.PodNetwork(
        pod_ip="10.128.0.5/23",
        hardware_address="0a:58:0a:80:00:05",
        interface="eth0",
        worker_ip="192.168.1.9/24",
        routes=(
            apf.Route("0.0.0.0/0", "10.128.0.1", "eth0", "static"),
            apf.Route("10.128.0.0/23", "", "eth0", "kernel", "link"),
            apf.Route("::/0", "fd00::1", "eth0", "boot"),
            apf.Route("10.9.0.0/24", "", "net1", "kernel", "link"),
        ),
        neighbors=(apf.Neighbor("10.128.0.1", "0a:58:0a:80:00:05", "eth0"),),
        mtu=1400,
        vxlan_port=4789,
        pod_ips=("fd00::5/64",),
        interfaces=(apf.Interface("net1", MAC[::-1].hex(":"), ("10.9.0.2/24",), 9000),),
    )


def test_what_is_found_is_written_and_read_back_in_the_same_order() -> None:
    config = apf.ForwarderConfig(found(pod_subnet_cidrs=["10.200.0.0/16"]))
    assert apf.load(apf.dump(config)) == config


def test_further_networks_are_reached_by_the_gateway_of_their_family() -> None:
    routes = found(pod_subnet_cidrs=["10.200.0.0/16", "fd77::/48"]).routes
    assert routes[:2] == (
        apf.Route("10.200.0.0/16", "10.128.0.1", "eth0"),
        apf.Route("fd77::/48", "fd00::1", "eth0"),
    )
    with pytest.raises(TunnelError, match=r"'10.200.0.1/16' is no network: .* \(pod-subnet-cidrs\)"):
        found(pod_subnet_cidrs=["10.200.0.1/16"])


def test_a_further_network_takes_the_interface_of_its_familys_default_route() -> None:
    pod = replace(
        POD, routes=(POD.routes[1], route("::/0", 3, "fd09::1")), addresses=(*POD.addresses, (3, ip("fd09::2", 64)))
    )
    assert found(pod, pod_subnet_cidrs=["fd77::/48"]).routes[0] == apf.Route("fd77::/48", "fd09::1", "net1")


def test_a_further_network_of_a_family_that_the_pod_has_not_is_left_out_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pod = replace(POD, routes=POD.routes[:2])
    assert all(each.destination != "fd77::/48" for each in found(pod, pod_subnet_cidrs=["fd77::/48"]).routes)
    assert caplog.messages == [
        "/run/netns/cni-1: the pod has no default route of IPv6, and does not reach fd77::/48 by the tunnel "
        "(pod-subnet-cidrs)"
    ]


def test_a_pod_of_ipv6_alone_has_its_address_first() -> None:
    network = found(Dump(POD.links, ((2, ip("fd00::5", 64)), (2, ip("fd00::6", 64))), (route("::/0", 2, "fd00::1"),)))
    assert (network.pod_ip, network.pod_ips, network.interface) == ("fd00::5/64", ("fd00::6/64",), "eth0")


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (replace(POD, routes=()), "has no default route"),
        (replace(POD, addresses=()), "eth0 has no IP address"),
        (replace(POD, addresses=(*POD.addresses, (2, ip("10.0.0.1", 8)))), "eth0 has several IPv4 addresses"),
        (replace(POD, routes=(route("0.0.0.0/0", 4),)), "tunl0 is no Ethernet interface"),
    ],
)
def test_what_is_missing_is_named_with_the_namespace(pod: Dump, words: str) -> None:
    with pytest.raises(TunnelError, match=f"network namespace /run/netns/cni-1:? .*{words}|{words}"):
        found(pod)


def test_of_sibling_interfaces_with_a_default_route_the_lowest_is_the_nodes() -> None:
    assert worker_address(HOST) == ("192.168.1.9/24", False)
    assert worker_address(HOST, "ens5") == ("192.168.1.9/24", False)
    assert worker_address(HOST, "ens10") == ("192.168.2.9/24", True)


def test_a_node_of_ipv6_alone_has_its_address_there() -> None:
    host = Dump(HOST.links, ((2, ip("fe80::1", 64)), (2, ip("fd00::9", 64))), (route("::/0", 2, "fe80::2"),))
    assert worker_address(host) == ("fd00::9/64", False)


@pytest.mark.parametrize(
    ("host", "interface", "words"),
    [
        (replace(HOST, routes=()), "", "no default route"),
        (HOST, "eth7", "no interface eth7"),
        (HOST, "cni0", "cni0 has no IP address"),
    ],
)
def test_what_is_missing_on_the_node_is_named(host: Dump, interface: str, words: str) -> None:
    with pytest.raises(TunnelError, match=words):
        worker_address(host, interface)
