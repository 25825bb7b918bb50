"""The pod's network in a real guest: its driver, its devices by their paths, its packet filter."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bench.guest_machine import Boot, run
from bench.guest_machine import guest as built
from kata_protos import agent_pb2 as agent
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.agent_types_pb2 import ARPNeighbor, Interface, IPAddress, Route, v4, v6
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

pytestmark = pytest.mark.qemu

CALL = 30.0  # seconds
MAC = "02:00:00:00:00:0A"

NETWORK = (
    "-device", "pci-bridge,chassis_nr=1,id=bridge,bus=pcie.0,addr=1e",
    "-netdev", "hubport,id=first,hubid=0", "-device", "virtio-net-pci,netdev=first,bus=pcie.0,addr=1d",
    "-netdev", "hubport,id=second,hubid=1", "-device", f"virtio-net-pci,netdev=second,bus=bridge,addr=3,mac={MAC}",
)  # fmt: skip

RULES = {
    False: """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:MESH - [0:0]
-A INPUT -p tcp -m tcp --dport 15006 -j MESH
-A MESH -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "known already" -j RETURN
-A MESH -s 192.0.2.0/24 -p tcp -m multiport --dports 80,443 -j ACCEPT
-A MESH -m limit --limit 5/min -j LOG --log-prefix "mesh: "
-A MESH -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -j REDIRECT --to-ports 15006
-A OUTPUT -m owner --uid-owner 1337 -j RETURN
-A POSTROUTING ! -o lo -j MASQUERADE
COMMIT
""",
    True: """\
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p ipv6-icmp -j ACCEPT
-A INPUT -s 2001:db8::/32 -p tcp -m tcp --dport 443 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp6-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 53 -j DNAT --to-destination [2001:db8::53]:5353
COMMIT
""",
}


@pytest.fixture
def boot(guest: Path) -> Boot:
    """The built guest, on little memory."""
    return replace(built(), memory=512)


async def test_a_device_behind_a_bridge_becomes_the_pods_interface(boot: Boot) -> None:
    interface = Interface(
        name="eth0",
        mtu=1400,
        hwAddr=MAC,
        devicePath="1e/03",
        IPAddresses=[
            IPAddress(family=v4, address="192.0.2.2", mask="24"),
            IPAddress(family=v6, address="2001:db8::2", mask="64"),
        ],
    )
    routes = [
        Route(device="eth0", gateway="192.0.2.1", source="192.0.2.2", family=v4),
        Route(device="eth0", dest="2001:db8:1::/48", gateway="2001:db8::1", family=v6, mtu=1300),
    ]
    neighbour = ARPNeighbor(
        toIPAddress=IPAddress(family=v4, address="192.0.2.1"), device="eth0", lladdr="02:00:00:00:00:01", state=128
    )
    async with run(replace(boot, arguments=NETWORK)) as machine, machine.agent() as (client, _):
        calls = AgentClient(client)
        answer = await calls.UpdateInterface(agent.UpdateInterfaceRequest(interface=interface), timeout=CALL)
        assert answer == interface
        known = await calls.UpdateRoutes(agent.UpdateRoutesRequest(routes=agent.Routes(Routes=routes)), timeout=CALL)
        request = agent.AddARPNeighborsRequest(neighbors=agent.ARPNeighbors(ARPNeighbors=[neighbour]))
        await calls.AddARPNeighbors(request, timeout=CALL)
        listed = await calls.ListInterfaces(agent.ListInterfacesRequest(), timeout=CALL)

    by_name = {each.name: each for each in listed.Interfaces}
    assert set(by_name) == {"lo", "eth0", "eth1"}
    eth0 = by_name["eth0"]
    assert (eth0.hwAddr, eth0.mtu) == (MAC, 1400)
    assert {("192.0.2.2", "24"), ("2001:db8::2", "64")} <= {(each.address, each.mask) for each in eth0.IPAddresses}
    assert {(route.dest, route.gateway, route.device, route.mtu) for route in known.Routes} >= {
        ("192.0.2.0/24", "", "eth0", 0),
        ("0.0.0.0", "192.0.2.1", "eth0", 0),
        ("2001:db8:1::/48", "2001:db8::1", "eth0", 1300),
    }


async def test_a_device_that_is_plugged_in_late_is_waited_for(boot: Boot) -> None:
    port = (
        "-device",
        "pcie-root-port,id=late-port,bus=pcie.0,addr=1c,chassis=1,slot=1",
        "-netdev",
        "hubport,id=late,hubid=0",
    )
    wanted = Interface(
        name="eth0", hwAddr=MAC, devicePath="1c/00", IPAddresses=[IPAddress(address="192.0.2.2", mask="24")]
    )
    late = replace(boot, arguments=port, parameters=(*boot.parameters, "agent.hotplug_timeout=20"))
    async with run(late) as machine, machine.agent() as (client, _):
        calls = AgentClient(client)
        async with asyncio.TaskGroup() as group:
            update = calls.UpdateInterface(agent.UpdateInterfaceRequest(interface=wanted), timeout=CALL)
            waiting = group.create_task(update)
            await calls.ListRoutes(agent.ListRoutesRequest(), timeout=CALL)  # after the request: the agent has begun
            assert not waiting.done()
            await machine.plug("virtio-net-pci", id="nic", netdev="late", bus="late-port", mac=MAC)
        listed = await calls.ListInterfaces(agent.ListInterfacesRequest(), timeout=CALL)
    assert {each.name: each.hwAddr for each in listed.Interfaces}["eth0"] == MAC


async def test_rules_come_back_as_they_were_set_and_bad_ones_are_refused(boot: Boot) -> None:
    async with run(boot) as machine, machine.agent() as (client, _):
        calls = AgentClient(client)
        for is_ipv6, rules in RULES.items():
            request = agent.SetIPTablesRequest(is_ipv6=is_ipv6, data=rules.encode())
            await calls.SetIPTables(request, timeout=CALL)
        for is_ipv6, rules in RULES.items():
            saved = (await calls.GetIPTables(agent.GetIPTablesRequest(is_ipv6=is_ipv6), timeout=CALL)).data.decode()
            assert [line for line in saved.splitlines() if not line.startswith("#")] == rules.splitlines()
        bad = b"*filter\n-A NOWHERE -j DROP\nCOMMIT\n"
        with pytest.raises(StatusError, match=r"/usr/sbin/iptables-restore failed: .*line 2") as refusal:
            await calls.SetIPTables(agent.SetIPTablesRequest(data=bad), timeout=CALL)
        assert refusal.value.code is Code.INTERNAL


async def test_the_modules_that_pods_ask_for_can_be_loaded(boot: Boot) -> None:
    names = ("bridge", "dummy", "ip6_tables", "ip_tables", "ipvlan", "macvlan", "tun", "veth")
    request = agent.CreateSandboxRequest(kernel_modules=[agent.KernelModule(name=name) for name in names])
    async with run(boot) as machine, machine.agent() as (client, _):
        await AgentClient(client).CreateSandbox(request, timeout=CALL)
