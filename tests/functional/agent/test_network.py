"""Interfaces, routes and neighbours of the real agent's network namespace, seen by ip(8) from outside."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kata_protos import agent_pb2 as agent
from kata_protos.agent_types_pb2 import ARPNeighbor, Interface, IPAddress, Route, v4, v6
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import TIMEOUT, Pod

pytestmark = pytest.mark.root

MAC = "02:00:00:00:00:0A"
ONLINK = 4  # RTNH_F_ONLINK
NOARP = 0x80  # IFF_NOARP


class Network:
    """The agent's network: its own calls, and ip(8) to check them by."""

    def __init__(self, pod: Pod) -> None:
        self._calls = pod.calls
        self.pid = pod.agent_pid

    def ip(self, words: str) -> Any:
        """Run ip(8) there; returns what it lists."""
        command = ["nsenter", "-t", str(self.pid), "-n", "ip", "-json", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout or "[]")

    def disable_ipv6(self) -> None:
        """Turn IPv6 off, for the links there are and those to come."""
        script = "for each in all default; do echo 1 >/proc/sys/net/ipv6/conf/$each/disable_ipv6; done"
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "sh", "-c", script], check=True)

    def link(self, name: str) -> Any:
        """What ip(8) knows of a link."""
        return self.ip(f"addr show dev {name}")[0]

    def addresses(self, name: str) -> dict[str, Any]:
        """A link's addresses with their prefixes, and what else is told of them."""
        return {f"{each['local']}/{each['prefixlen']}": each for each in self.link(name)["addr_info"]}

    async def update(self, **fields: Any) -> Interface:
        """UpdateInterface."""
        fields["IPAddresses"] = [ip_address(text) for text in fields.pop("addresses", [])]
        request = agent.UpdateInterfaceRequest(interface=Interface(**fields))
        return await self._calls.UpdateInterface(request, timeout=TIMEOUT)

    async def route(self, *routes: Route) -> list[Route]:
        """UpdateRoutes."""
        request = agent.UpdateRoutesRequest(routes=agent.Routes(Routes=routes))
        return list((await self._calls.UpdateRoutes(request, timeout=TIMEOUT)).Routes)

    async def interfaces(self) -> dict[str, Interface]:
        """ListInterfaces, by name."""
        answer = await self._calls.ListInterfaces(agent.ListInterfacesRequest(), timeout=TIMEOUT)
        return {each.name: each for each in answer.Interfaces}

    async def routes(self) -> list[Route]:
        """ListRoutes."""
        return list((await self._calls.ListRoutes(agent.ListRoutesRequest(), timeout=TIMEOUT)).Routes)

    async def neighbour(self, *neighbours: ARPNeighbor) -> None:
        """AddARPNeighbors."""
        request = agent.AddARPNeighborsRequest(neighbors=agent.ARPNeighbors(ARPNeighbors=neighbours))
        await self._calls.AddARPNeighbors(request, timeout=TIMEOUT)


def ip_address(text: str) -> IPAddress:
    address, _, prefix = text.partition("/")
    return IPAddress(family=v6 if ":" in address else v4, address=address, mask=prefix)


@pytest.fixture
def network(pod: Pod) -> Network:
    """A network with a link as the host plugs it in, and its other end, which is up."""
    network = Network(pod)
    network.ip(f"link add ens4 address {MAC} type veth peer name far")
    network.ip("link set far up")
    return network


@pytest.fixture
async def eth0(network: Network) -> Network:
    """A network whose link is configured."""
    await network.update(name="eth0", hwAddr=MAC, mtu=1500, addresses=["192.0.2.2/24", "2001:db8::2/64"])
    return network


def hide(pod: Pod, directory: str) -> None:
    """Let the agent see a directory empty."""
    subprocess.run(
        ["nsenter", "-t", str(pod.agent_pid), "-m", "mount", "-n", "-t", "tmpfs", "tmpfs", directory], check=True
    )


async def refused(call: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as refusal:
        await call
    return refusal.value


async def test_a_link_gets_what_the_host_wants_of_it(network: Network) -> None:
    answer = await network.update(name="eth0", hwAddr=MAC, mtu=1400, addresses=["192.0.2.2/24", "2001:db8::2/64"])

    link = network.link("eth0")
    assert {"UP", "BROADCAST"} <= set(link["flags"])
    assert "NOARP" not in link["flags"]
    assert (link["address"], link["mtu"]) == (MAC.lower(), 1400)
    assert network.addresses("eth0")["192.0.2.2/24"]["broadcast"] == "192.0.2.255"
    assert [each.address for each in answer.IPAddresses] == ["192.0.2.2", "2001:db8::2"]
    assert (answer.name, answer.hwAddr, answer.mtu) == ("eth0", MAC, 1400)


async def test_an_ipv6_address_can_be_used_at_once(network: Network) -> None:
    await network.update(name="eth0", hwAddr=MAC, mtu=1500, addresses=["2001:db8::2/64"])

    found = network.addresses("eth0")["2001:db8::2/64"]
    assert "tentative" not in found
    assert found["nodad"]
    assert "2001:db8::/64" in {route["dst"] for route in network.ip("-6 route show dev eth0")}


async def test_ipv6_addresses_are_left_out_where_ipv6_is_off(network: Network) -> None:
    network.disable_ipv6()

    await network.update(name="eth0", hwAddr=MAC, mtu=1500, addresses=["2001:db8::2/64", "192.0.2.2/24"])

    assert list(network.addresses("eth0")) == ["192.0.2.2/24"]


async def test_an_update_that_changes_nothing_leaves_routes_and_addresses(eth0: Network) -> None:
    await eth0.route(Route(device="eth0", gateway="192.0.2.1"))
    before = (eth0.link("eth0"), eth0.ip("route"), eth0.ip("-6 route"))

    await eth0.update(name="eth0", hwAddr=MAC, mtu=1500, addresses=["192.0.2.2/24", "2001:db8::2/64"])

    assert (eth0.link("eth0"), eth0.ip("route"), eth0.ip("-6 route")) == before


async def test_more_addresses_join_those_that_are_there(eth0: Network) -> None:
    await eth0.update(name="eth0", hwAddr=MAC, mtu=1500, addresses=["192.0.2.3/32", "192.0.2.2/24"])

    found = eth0.addresses("eth0")
    assert {"192.0.2.2/24", "192.0.2.3/32", "2001:db8::2/64"} <= set(found)
    assert "broadcast" not in found["192.0.2.3/32"]


async def test_a_link_without_arp_and_without_another_mtu(network: Network) -> None:
    await network.update(name="eth0", hwAddr=MAC, raw_flags=NOARP)

    assert "NOARP" in network.link("eth0")["flags"]
    assert network.link("eth0")["mtu"] == 1500

    await network.update(name="eth0", hwAddr=MAC)

    assert "NOARP" not in network.link("eth0")["flags"]


async def test_a_link_that_only_its_name_tells_gets_the_hardware_address(network: Network) -> None:
    network.ip("link set ens4 up")

    await network.update(name="ens4", hwAddr="02:00:00:00:00:0b", mtu=1500)

    assert network.link("ens4")["address"] == "02:00:00:00:00:0b"
    assert "UP" in network.link("ens4")["flags"]


@pytest.mark.parametrize("name", ["eth0", "fifteen-letters"])
@pytest.mark.parametrize("state", ["up", "down"])
async def test_a_link_that_has_the_wanted_name_takes_the_old_one(network: Network, name: str, state: str) -> None:
    network.ip(f"link add {name} type veth peer name other")
    network.ip(f"link set {name} address 02:00:00:00:00:0c {state}")

    await network.update(name=name, hwAddr=MAC, mtu=1500)

    assert network.link(name)["address"] == MAC.lower()
    assert network.link("ens4")["address"] == "02:00:00:00:00:0c"
    assert ("UP" in network.link("ens4")["flags"]) is (state == "up")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mtu": 10}, "mtu 10"),
        ({"name": "bad/name"}, "name bad/name"),
        ({"addresses": ["192.0.2.9/24", "192.0.2.2/33"]}, "prefix length '33'"),
        ({"addresses": ["192.0.2.9/24", "192.0.2.2/24", "ff02::1/64"]}, "Failed to add address"),
    ],
)
async def test_a_change_that_fails_leaves_the_links_as_they_were(
    network: Network, fields: dict[str, Any], text: str
) -> None:
    network.ip("link set ens4 up mtu 1450")
    network.ip("addr add 192.0.2.2/24 dev ens4")
    network.ip("link add eth0 type veth peer name other")
    network.ip("link set eth0 up")

    def links() -> dict[str, tuple[str, int, bool, set[str]]]:
        return {
            each["ifname"]: (
                each["address"],
                each["mtu"],
                "UP" in each["flags"],
                {address["local"] for address in each["addr_info"] if address["family"] == "inet"},
            )
            for each in network.ip("addr show")
        }

    before = links()
    wanted = {"name": "eth0", "hwAddr": MAC, "mtu": 1400, "raw_flags": NOARP} | fields

    error = await refused(network.update(**wanted))

    assert error.code is Code.INTERNAL
    assert "update interface: " in str(error)
    assert text in str(error)
    assert links() == before


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "none", "hwAddr": "02:ff:ff:ff:ff:ff"}, "Address: 02:ff:ff:ff:ff:ff"),
        ({"name": "none"}, "Name: none"),
    ],
)
async def test_hosts_see_that_a_link_is_not_there_yet(network: Network, fields: dict[str, str], told: str) -> None:
    error = await refused(network.update(**fields))

    assert error.code is Code.INTERNAL
    assert f"Link not found ({told})" in str(error)


async def test_a_device_that_does_not_come_is_told_after_the_bound(network: Network) -> None:
    began = time.monotonic()

    error = await refused(network.update(name="eth0", hwAddr=MAC, devicePath="1f/1f.7"))

    assert "no network interface at 1f/1f.7 within 3 s (agent.hotplug_timeout)" in str(error)
    assert 3 <= time.monotonic() - began < 6


async def test_routes_without_a_gateway_go_first(eth0: Network) -> None:
    known = await eth0.route(
        Route(device="eth0", gateway="198.51.100.1", family=v4),
        Route(device="eth0", dest="198.51.100.1/32", scope=253, family=v4),
        Route(device="eth0", gateway="2001:db8:f::1", family=v6),
        Route(device="eth0", dest="2001:db8:f::1/128", family=v6),
    )

    assert known == await eth0.routes()
    found = {(route.dest, route.gateway) for route in known}
    assert {("0.0.0.0", "198.51.100.1"), ("198.51.100.1/32", ""), ("::1", "2001:db8:f::1")} <= found
    assert eth0.ip("route show 198.51.100.1")[0]["scope"] == "link"
    assert eth0.ip("-6 route show default")[0]["gateway"] == "2001:db8:f::1"


async def test_a_gateway_that_is_on_no_network_is_reached_when_the_route_says_so(eth0: Network) -> None:
    route = Route(device="eth0", dest="203.0.113.0/24", gateway="169.254.1.1", mtu=1280, source="192.0.2.2")
    assert "Failed to add IP v4 route" in str(await refused(eth0.route(route)))
    route.flags = ONLINK

    await eth0.route(route)

    shown = eth0.ip("route show 203.0.113.0/24")[0]
    assert (shown["gateway"], shown["flags"], shown["prefsrc"]) == ("169.254.1.1", ["onlink"], "192.0.2.2")
    assert shown["metrics"] == [{"mtu": 1280}]


async def test_routes_can_be_repeated_and_replaced(eth0: Network) -> None:
    first = [Route(device="eth0", gateway="192.0.2.1"), Route(device="eth0", gateway="2001:db8::1", family=v6)]
    await eth0.route(*first)
    await eth0.route(*first)
    assert len(eth0.ip("route show default")) == len(eth0.ip("-6 route show default")) == 1

    await eth0.route(Route(device="eth0", dest="0.0.0.0/0", gateway="192.0.2.254", source="192.0.2.2/0"))

    shown = eth0.ip("route show default")
    assert [(route["gateway"], route["prefsrc"]) for route in shown] == [("192.0.2.254", "192.0.2.2")]


async def test_what_is_listed_can_be_set_again(eth0: Network) -> None:
    listed = await eth0.route(
        Route(device="eth0", gateway="192.0.2.1", source="192.0.2.2", mtu=1400),
        Route(device="eth0", dest="203.0.113.0/24", gateway="192.0.2.9", family=v4),
        Route(device="eth0", gateway="2001:db8::1", family=v6, mtu=1400),
        Route(device="eth0", dest="2001:db8:9::/48", family=v6, source="2001:db8::2"),
    )
    wanted = [route for route in listed if route.device == "eth0" and not route.dest.startswith("fe80")]
    assert len(wanted) == 6
    wanted.sort(key=lambda route: route.dest)
    eth0.ip("route flush dev eth0")
    eth0.ip("-6 route flush dev eth0")

    await eth0.route(*wanted)

    found = [route for route in await eth0.routes() if not route.dest.startswith("fe80")]
    assert sorted(found, key=lambda route: route.dest) == wanted


async def test_a_route_with_a_link_that_is_not_there_adds_none(eth0: Network) -> None:
    routes = [Route(device="eth0", gateway="192.0.2.1"), Route(device="eth9", dest="198.51.100.0/24")]

    error = await refused(eth0.route(*routes))

    assert error.code is Code.INTERNAL
    assert "Failed to update routes: Link not found (Name: eth9)" in str(error)
    assert eth0.ip("route show default") == []


@pytest.mark.parametrize(
    ("route", "text"),
    [
        (Route(device="eth0", dest="198.51.100.0/24", source="192.0.2.0/24"), "IPv4 has no routes by source network"),
        (Route(device="eth0", gateway="2001:db8::1", family=v4), "gateway 2001:db8::1"),
        (Route(device="eth0", dest="nowhere/24"), "Failed to parse IP 'nowhere'"),
        (Route(device="eth0", dest="198.51.100.1/24"), "Failed to add IP v4 route"),
    ],
)
async def test_a_route_that_cannot_be_is_refused(eth0: Network, route: Route, text: str) -> None:
    error = await refused(eth0.route(route))

    assert error.code is Code.INTERNAL
    assert text in str(error)


async def test_neighbours_are_known_as_told(eth0: Network) -> None:
    await eth0.neighbour(
        ARPNeighbor(device="eth0", toIPAddress=IPAddress(address="192.0.2.1"), lladdr="02:00:00:00:00:01"),
        ARPNeighbor(
            device="eth0", toIPAddress=IPAddress(address="2001:db8::1"), lladdr="02:00:00:00:00:02", state=2, flags=128
        ),
    )
    await eth0.neighbour(
        ARPNeighbor(device="eth0", toIPAddress=IPAddress(address="192.0.2.1"), lladdr="02:00:00:00:00:03", state=128)
    )

    shown = {each["dst"]: each for each in eth0.ip("neigh show dev eth0")}
    assert (shown["192.0.2.1"]["lladdr"], shown["192.0.2.1"]["state"]) == ("02:00:00:00:00:03", ["PERMANENT"])
    assert (shown["2001:db8::1"]["lladdr"], shown["2001:db8::1"]["state"]) == ("02:00:00:00:00:02", ["REACHABLE"])
    assert "router" in shown["2001:db8::1"]


@pytest.mark.parametrize(
    ("neighbour", "text"),
    [
        (ARPNeighbor(device="eth0"), "Unable to determine ip address"),
        (ARPNeighbor(device="eth9", toIPAddress=IPAddress(address="192.0.2.1")), "Link not found (Name: eth9)"),
        (ARPNeighbor(device="eth0", toIPAddress=IPAddress(address="192.0.2.1"), lladdr="no"), "parse MAC address: no"),
        (ARPNeighbor(device="eth0", toIPAddress=IPAddress(address="192.0.2.1"), state=-1), "state -1"),
    ],
)
async def test_a_neighbour_that_cannot_be_is_refused(eth0: Network, neighbour: ARPNeighbor, text: str) -> None:
    error = await refused(eth0.neighbour(neighbour))

    assert error.code is Code.INTERNAL
    assert "Failed to add ARP neighbours: " in str(error)
    assert text in str(error)


async def test_interfaces_are_listed_with_their_addresses(eth0: Network) -> None:
    listed = await eth0.interfaces()

    assert set(listed) == {"lo", "eth0", "far"}
    assert (listed["eth0"].hwAddr, listed["eth0"].mtu) == (MAC, 1500)
    found = {(each.address, each.mask, each.family) for each in listed["eth0"].IPAddresses}
    assert {("192.0.2.2", "24", v4), ("2001:db8::2", "64", v6)} <= found
    assert ("127.0.0.1", "8", v4) in {(each.address, each.mask, each.family) for each in listed["lo"].IPAddresses}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda calls: calls.UpdateInterface(agent.UpdateInterfaceRequest(), timeout=TIMEOUT), "update interface"),
        (lambda calls: calls.UpdateRoutes(agent.UpdateRoutesRequest(), timeout=TIMEOUT), "update routes"),
        (lambda calls: calls.AddARPNeighbors(agent.AddARPNeighborsRequest(), timeout=TIMEOUT), "arp neighbours"),
    ],
)
async def test_a_request_without_its_message_is_refused(
    pod: Pod, call: Callable[[Any], Awaitable[object]], text: str
) -> None:
    error = await refused(call(pod.calls))

    assert error.code is Code.INVALID_ARGUMENT
    assert text in str(error)


async def test_changes_at_the_same_time_do_not_meet(network: Network) -> None:
    network.ip("link add eth0 type veth peer name other")
    other = network.link("eth0")["address"]

    async with asyncio.TaskGroup() as group:
        for turn in range(6):
            wanted = (MAC, "eth0") if turn % 2 else (other, "eth0")
            group.create_task(network.update(hwAddr=wanted[0], name=wanted[1], mtu=1500))

    assert {network.link(name)["address"] for name in ("eth0", "ens4")} == {MAC.lower(), other}


async def test_a_guest_without_iptables_says_so(pod: Pod) -> None:
    hide(pod, "/usr/sbin")  # to which /sbin leads

    error = await refused(pod.calls.GetIPTables(agent.GetIPTablesRequest(is_ipv6=True), timeout=TIMEOUT))

    assert error.code is Code.INTERNAL
    assert "this guest has no ip6tables-save in /usr/sbin or /sbin" in str(error)
