from __future__ import annotations

from kata_protos import agent_types_pb2 as types_pb2
from kata_py.network import messages
from kata_py.network.endpoint import Address, Endpoint, Kind, Neighbour, Route

ENDPOINT = Endpoint(
    Kind.MACVLAN,
    "eth0",
    2,
    "02:00:00:00:00:0a",
    1400,
    (Address("10.0.0.2", 24), Address("127.0.0.5", 8), Address("fd00::2", 64)),
    (
        Route("192.0.2.0/24", "10.0.0.1", "10.0.0.2", onlink=True, mtu=1300),
        Route("", "fd00::1", is_v6=True),
        Route("10.9.0.0/16", scope=253),
    ),
    (Neighbour("10.0.0.1", "02:00:00:00:00:01", 0x80, 2), Neighbour("fd00::1", "", 0x02)),
    noarp=True,
)


def test_an_interface_is_told_with_its_addresses_but_not_those_of_loopback() -> None:
    assert messages.interface(ENDPOINT, "02/00") == types_pb2.Interface(
        device="eth0",
        name="eth0",
        IPAddresses=[
            types_pb2.IPAddress(family=types_pb2.v4, address="10.0.0.2", mask="24"),
            types_pb2.IPAddress(family=types_pb2.v6, address="fd00::2", mask="64"),
        ],
        mtu=1400,
        hwAddr="02:00:00:00:00:0a",
        devicePath="02/00",
        type="macvlan",
        raw_flags=0x80,
    )
    assert messages.interface(ENDPOINT).devicePath == ""


def test_routes_are_told_with_all_that_makes_them() -> None:
    assert messages.routes(ENDPOINT) == [
        types_pb2.Route(dest="192.0.2.0/24", gateway="10.0.0.1", device="eth0", source="10.0.0.2", flags=4, mtu=1300),
        types_pb2.Route(gateway="fd00::1", device="eth0", family=types_pb2.v6),
        types_pb2.Route(dest="10.9.0.0/16", device="eth0", scope=253),
    ]


def test_neighbours_are_told_in_the_state_they_were_found_in() -> None:
    v4, v6 = types_pb2.IPAddress(address="10.0.0.1"), types_pb2.IPAddress(family=types_pb2.v6, address="fd00::1")
    assert messages.neighbours(ENDPOINT) == [
        types_pb2.ARPNeighbor(toIPAddress=v4, device="eth0", lladdr="02:00:00:00:00:01", state=0x80, flags=2),
        types_pb2.ARPNeighbor(toIPAddress=v6, device="eth0", state=0x02),
    ]
