"""What the whole way from a pod's links to its guest's does, for every driver whose machines have a guest.

The agent is told what the network has for it, and the world pings the guest.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kata_protos import agent_pb2 as agent
from kata_protos.agent_ttrpc import AgentClient
from kata_py.network.model import Model
from kata_py.network.network import Network, open_network
from kata_py.resource.netns import NetworkNamespace
from kata_py.ttrpc.client import connect
from tests.conformance.hypervisor.cases import CASES
from tests.drivers.journal import ListJournal
from tests.netns import Pod, join, pod

pytestmark = pytest.mark.root

TIMEOUT = 45.0  # seconds, for a boot on a busy machine
ECHO, ECHO_REPLY = 8, 0


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


async def ping(world: Pod, address: str, size: int = 1000) -> None:
    """An echo from the address, heard by the world."""
    place = NetworkNamespace.at(world.path)
    number, payload = os.getpid() & 0xFFFF, bytes(size)
    body = struct.pack("!BBHHH", ECHO, 0, 0, number, 1) + payload
    body = struct.pack("!BBHHH", ECHO, 0, checksum(body), number, 1) + payload
    loop = asyncio.get_running_loop()
    with place.run(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(10):
            await loop.sock_sendto(sock, body, (address, 0))
            while True:
                data, (source, _) = await loop.sock_recvfrom(sock, 1 << 16)
                header = (data[0] & 0xF) * 4
                kind, _, _, whose, _ = struct.unpack_from("!BBHHH", data, header)
                if (kind, whose, source) == (ECHO_REPLY, number, address):
                    assert data[header + 8 :] == payload
                    return


async def tell(calls: AgentClient, network: Network, paths: dict[str, str] | None = None) -> None:
    """What a sandbox does before it creates its first container."""
    for interface in network.interfaces(paths):
        await calls.UpdateInterface(agent.UpdateInterfaceRequest(interface=interface), timeout=10)
    routes = agent.Routes(Routes=network.routes())
    await calls.UpdateRoutes(agent.UpdateRoutesRequest(routes=routes), timeout=10)
    neighbours = agent.ARPNeighbors(ARPNeighbors=network.neighbours())
    await calls.AddARPNeighbors(agent.AddARPNeighborsRequest(neighbors=neighbours), timeout=10)


@pytest.mark.parametrize(("model", "queues"), [(Model.TCFILTER, 2), (Model.MACVTAP, 1)])
@pytest.mark.parametrize("name", ["namespace", pytest.param("qemu", marks=pytest.mark.qemu)])
async def test_the_world_reaches_the_guest_over_links_old_and_new(
    name: str, model: Model, queues: int, guest: Path, short_tmp: Path
) -> None:
    journal, top = ListJournal(), short_tmp / f"{name}-{model.value}"
    top.mkdir()
    with pod() as inside, pod() as world:
        join(inside, "eth0", world, "veth0")
        inside.ip("addr add 10.0.0.2/24 dev eth0")
        inside.ip("route add default via 10.0.0.1")
        world.ip("addr add 10.0.0.1/24 dev veth0")
        world.ip("addr add 192.0.2.1/32 dev lo")
        before = inside.state()
        async with open_network(inside.path, model, journal, queues=queues) as network:
            spec = CASES[name].spec(top, whole=True)
            spec = replace(spec, devices=(*spec.devices, *network.nics))
            async with (
                CASES[name].driver().launch(spec, journal) as vm,
                asyncio.timeout(TIMEOUT),
                connect(vm.agent, timeout=TIMEOUT, retry=0.1) as client,
            ):
                calls = AgentClient(client)
                await tell(calls, network)
                await ping(world, "10.0.0.2")
                join(inside, "eth1", world, "veth1")
                inside.ip("addr add 10.0.1.2/24 dev eth1")
                world.ip("addr add 10.0.1.1/24 dev veth1")
                (late,) = await network.rescan()
                plugged = await vm.attach(late.nic)
                await tell(calls, network, {late.nic.id: plugged.address})
                await ping(world, "10.0.1.2")
                await ping(world, "10.0.0.2")
                listed = await calls.ListRoutes(agent.ListRoutesRequest(), timeout=10)
                assert "10.0.0.1" in {route.gateway for route in listed.Routes if route.device == "eth0"}
        inside.ip("link del eth1")
        assert inside.state() == before
    assert journal.entries == []
