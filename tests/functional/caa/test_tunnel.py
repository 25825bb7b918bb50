"""The tunnel, both of its ends: a node in this namespace, pods and pod VMs in others."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_caa.apf import Neighbor, PodNetwork, Route
from kata_caa.errors import TunnelError
from kata_caa.tunnel import inspection, notrack, vni, vxlan
from kata_py.netlink.rtnetlink import Rtnetlink
from tests.conftest import REPOSITORY
from tests.functional.caa.cloud import (
    Node,
    Room,
    datagram,
    ip,
    namespace_state,
    node,
    ping,
    state,
    transfer,
    tunnel_of,
)
from tests.netns import Pod

pytestmark = pytest.mark.root

BOTH_CLOUDS = pytest.mark.parametrize("cloud", ["IPv4", "IPv6"], indirect=True)


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A node, in a cloud of IPv4 unless the test says otherwise."""
    with node(tmp_path, ipv6=getattr(request, "param", "IPv4") == "IPv6") as made:
        yield made


async def inspected(peer: Pod, number: int = 0, **settings: Any) -> PodNetwork:
    """What an adaptor finds, numbered."""
    return vni.numbered(await inspection.inspect(peer.path, **settings), number, 555000, vni.held() | taken())


def taken() -> set[int]:
    """What records would hold: here, pods have no names in /run/netns."""
    with_number = (line.partition("[vni:")[2] for line in state().splitlines())
    return {int(line.partition("]")[0]) for line in with_number if line}


async def connected(cloud: Node, peer: Pod, vm: Pod, remote: str, **settings: Any) -> tuple[vxlan.Tunnel, Room]:
    """Both ends of a tunnel, made."""
    network = await inspected(peer, **settings)
    tunnel = tunnel_of(peer, network, remote)
    await vxlan.set_up(tunnel, network)
    return tunnel, await asyncio.to_thread(cloud.start_forwarder, vm, network)


@BOTH_CLOUDS
async def test_pods_reach_a_peer_pod_and_it_them(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    before = state(peer)

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))

    for address in ("10.244.0.11", "fd00:244::11"):
        ping(plain, address)
        transfer(plain, inside, address)
    for address in ("10.244.0.10", "fd00:244::10"):
        ping(inside, address)
        transfer(inside, plain, address)
    ping(inside, "10.244.0.1")
    assert "vxlan" not in ip("link show")
    await vxlan.tear_down(tunnel)
    assert state(peer) == before
    await vxlan.tear_down(tunnel)
    assert state(peer) == before


@BOTH_CLOUDS
async def test_who_sends_packets_that_do_not_fit_is_told_which_do(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    fits = 1430 if cloud.ipv6 else 1450

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))

    assert f"mtu {fits}" in inside.ip("link show eth0")
    for address in ("10.244.0.11", "fd00:244::11"):
        assert datagram(plain, inside, address, 1500) == fits
    for address in ("10.244.0.10", "fd00:244::10"):
        assert datagram(inside, plain, address, fits) == fits
    plain.run("ping", "-c1", "-W5", "-M", "dont", "-s", "4000", "10.244.0.11")
    await vxlan.tear_down(tunnel)


async def test_two_peer_pods_reach_each_other_and_end_apart(cloud: Node) -> None:
    plain = cloud.add_pod(10)
    one, other = cloud.add_pod(11), cloud.add_pod(12)
    one_vm, other_vm = cloud.add_vm(2), cloud.add_vm(3)
    before = state(one, other)

    first, one_inside = await connected(cloud, one, one_vm, cloud.address(2))
    second, other_inside = await connected(cloud, other, other_vm, cloud.address(3))

    assert (first.vni, second.vni) == (555000, 555001)
    transfer(one_inside, other_inside, "10.244.0.12")
    transfer(other_inside, one_inside, "fd00:244::11")
    await vxlan.tear_down(first)
    ping(other_inside, "10.244.0.10")
    transfer(plain, other_inside, "10.244.0.12")
    await vxlan.tear_down(second)
    assert state(one, other) == before


async def test_a_pod_with_two_interfaces_has_both_in_its_machine(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    for each, number in ((plain, 10), (peer, 11)):
        ip(f"link add net{number} type veth peer name net1 netns {each.pid}")
        cloud.stack.callback(ip, f"link del net{number}")
        ip(f"link set net{number} master cni0 up")
        each.ip(f"addr add 10.245.0.{number}/24 dev net1")
        each.ip("link set net1 up")
    peer.ip("route add 10.246.0.0/16 via 10.245.0.10 dev net1")
    before = state(peer)

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))

    assert "10.246.0.0/16 via 10.245.0.10 dev net1" in inside.ip("route")
    transfer(plain, inside, "10.245.0.11")
    transfer(inside, plain, "10.245.0.10")
    transfer(plain, inside, "10.244.0.11")
    assert inside.ip("-br link show net1").split()[2] == peer.ip("-br link show net1").split()[2]
    await vxlan.tear_down(tunnel)
    assert state(peer) == before


async def test_a_dedicated_interface_carries_the_tunnel(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    cloud.add_vm(2, "cloud1", "eth1", of=vm)

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2, 1), host_interface="cloud1")

    network = await inspection.inspect(peer.path, host_interface="cloud1")
    assert (network.worker_ip, network.dedicated) == ("10.99.1.1/24", True)
    vm.ip("link set eth0 down")
    transfer(plain, inside, "10.244.0.11")
    await vxlan.tear_down(tunnel)


async def test_a_pod_of_ipv6_alone_works(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    peer.ip("addr del 10.244.0.11/24 dev eth0")

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))

    transfer(plain, inside, "fd00:244::11")
    assert (await inspection.inspect(peer.path)).pod_ip == "fd00:244::11/64"
    await vxlan.tear_down(tunnel)


async def test_the_pods_interface_routes_and_neighbours_are_as_the_plug_in_made_them(cloud: Node) -> None:
    peer, vm = cloud.add_pod(11), cloud.add_vm(2)
    # As Calico does it: an address without a network, and a gateway that is reached by a route and a neighbour alone.
    peer.ip("-4 addr flush dev eth0")
    peer.ip("-6 addr flush dev eth0")
    peer.ip("addr add 10.7.7.7/32 dev eth0")
    peer.ip("route add 169.254.1.1 dev eth0 scope link")
    peer.ip("route add default via 169.254.1.1 dev eth0")
    peer.ip("route add 172.31.0.0/16 via 192.0.2.1 dev eth0 onlink")
    peer.ip("neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent")
    peer.ip("link set eth0 mtu 1400")

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2), pod_subnet_cidrs=["10.128.0.0/14"], port=9000)

    network = await inspection.inspect(peer.path, port=9000)
    assert network.neighbors == (Neighbor("169.254.1.1", "ee:ee:ee:ee:ee:ee", "eth0"),)
    assert network.routes[0] == Route("0.0.0.0/0", "169.254.1.1", "eth0", "boot")
    link = inside.ip("-d link show eth0")
    assert f"link/ether {network.hardware_address} " in link
    assert "mtu 1400" in link
    assert "dstport 9000 nolearning" in link
    assert inside.ip("-o -4 addr show eth0").split()[3] == "10.7.7.7/32"
    assert sorted(line.strip() for line in inside.ip("-4 route").splitlines()) == [
        "10.128.0.0/14 via 169.254.1.1 dev eth0",
        "169.254.1.1 dev eth0 scope link",
        "172.31.0.0/16 via 192.0.2.1 dev eth0 onlink",
        "default via 169.254.1.1 dev eth0",
    ]
    assert "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT" in inside.ip("neigh")
    await vxlan.tear_down(tunnel)


async def test_a_forwarder_that_starts_again_leaves_the_network_alone_or_makes_it_anew(cloud: Node) -> None:
    peer, vm = cloud.add_pod(11), cloud.add_vm(2)
    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))
    network = replace(await inspection.inspect(peer.path), vxlan_id=tunnel.vni)
    before, index = namespace_state(inside), inside.ip("-o link show eth0").split(":")[0]

    cloud.start_forwarder(vm, network)
    assert (namespace_state(inside), inside.ip("-o link show eth0").split(":")[0]) == (before, index)

    inside.ip("route del default")
    cloud.start_forwarder(vm, network)
    assert inside.ip("-o link show eth0").split(":")[0] != index
    assert "default via 10.244.0.1 dev eth0" in inside.ip("route")
    ping(inside, "10.244.0.1")
    await vxlan.tear_down(tunnel)


async def test_a_forwarder_that_ended_at_any_step_makes_the_same_the_next_time(cloud: Node) -> None:
    peer = cloud.add_pod(11)
    peer.ip("neigh add 10.244.0.9 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent")
    network, whole, step = await inspected(peer), "", 0
    vm = cloud.add_vm(2)
    path = cloud.namespace(vm)
    while True:
        step += 1
        ending = cloud.begin_forwarder(vm, network, path, 10.0, str(step))
        output, _ = await asyncio.to_thread(ending.communicate, timeout=20)
        if ending.returncode == 0:
            break
        assert ending.returncode == 9, output
        made = namespace_state(cloud.start_forwarder(vm, network))
        assert made == (whole or made), f"after step {step}"
        whole = made
        Room(path).ip("link del eth0")
    assert step > 8


async def test_traffic_that_leaves_the_cluster_takes_the_machines_second_interface(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    vm.ip("route add default via 10.99.0.1")
    cloud.add_vm(7, "cloud0", "eth1", of=vm)

    tunnel, inside = await connected(
        cloud, peer, vm, cloud.address(2), external_via_pod_vm=True, pod_subnet_cidrs=["10.250.0.0/16"]
    )

    assert inside.ip("route").splitlines() == [
        "default via 10.99.0.1 dev eth1 ",
        "10.99.0.0/24 dev eth1 proto kernel scope link src 10.99.0.7 ",
        "10.244.0.0/24 dev eth0 proto kernel scope link ",
        "10.250.0.0/16 via 10.244.0.1 dev eth0 ",
    ]
    assert "eth1" not in vm.links()
    transfer(plain, inside, "10.244.0.11")
    ping(inside, "10.99.0.1")
    before = namespace_state(inside)
    network = await inspection.inspect(peer.path, external_via_pod_vm=True, pod_subnet_cidrs=["10.250.0.0/16"])
    cloud.start_forwarder(vm, replace(network, vxlan_id=tunnel.vni))
    assert namespace_state(inside) == before
    await vxlan.tear_down(tunnel)


async def test_without_a_second_interface_it_takes_the_tunnel(cloud: Node) -> None:
    peer, vm = cloud.add_pod(11), cloud.add_vm(2)
    vm.ip("route add default via 10.99.0.1")
    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2), external_via_pod_vm=True)
    assert "default via 10.244.0.1 dev eth0" in inside.ip("route")
    await vxlan.tear_down(tunnel)


async def test_a_pod_vm_waits_for_its_own_network_and_says_so_in_the_end(cloud: Node) -> None:
    peer, vm = cloud.add_pod(11), cloud.add_vm(2)
    network = await inspected(peer)
    vm.ip("addr del 10.99.0.2/24 dev eth0")
    path = cloud.namespace(vm)

    late = await asyncio.to_thread(cloud.begin_forwarder, vm, network, path, 0.2)
    output, _ = await asyncio.to_thread(late.communicate, timeout=20)
    assert "no route to the node 10.99.0.1, or no address of its own, after 0.2 s" in output
    assert not path.exists()

    waiting = await asyncio.to_thread(cloud.begin_forwarder, vm, network, path, 20.0)
    vm.ip("addr add 10.99.0.2/24 dev eth0")
    output, _ = await asyncio.to_thread(waiting.communicate, timeout=20)
    assert waiting.returncode == 0, output
    assert "eth0" in Room(path).ip("link")


class Doom(Exception):
    """Stands for the end of the daemon."""


async def failing_at(monkeypatch: pytest.MonkeyPatch, step: int, call: Callable[[], Any]) -> bool:
    """Let the nth change to links, traffic or rules be the last thing before a failure; whether it came so far."""
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1
        if count == step:
            raise Doom

    change, run = Rtnetlink.change, notrack._run

    def counted_change(self: Rtnetlink, *arguments: Any) -> None:
        change(self, *arguments)
        counted()

    async def counted_run(*arguments: Any) -> Any:
        result = await run(*arguments)
        counted()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Rtnetlink, "change", counted_change)
        patch.setattr(notrack, "_run", counted_run)
        try:
            await call()
        except Doom:
            return True
    return False


async def test_what_a_set_up_leaves_that_ends_at_any_step_is_taken_down(
    cloud: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = cloud.add_pod(11)
    peer.ip("link add net1 type veth peer name net2")
    peer.ip("addr add 10.245.0.11/24 dev net1")
    peer.ip("link set net1 up")
    network = await inspected(peer)
    tunnel, before = tunnel_of(peer, network, "10.99.0.2"), state(peer)
    assert len(network.interfaces) == 1

    step = 1
    while await failing_at(monkeypatch, step, lambda: vxlan.set_up(tunnel, network)):
        assert state(peer) != before or step == 1
        await vxlan.tear_down(tunnel)
        assert state(peer) == before, f"after step {step}"
        step += 1
    assert step > 17
    whole = state(peer)

    # And what a tear-down leaves that ends at any step.
    step = 1
    while await failing_at(monkeypatch, step, lambda: vxlan.tear_down(tunnel)):
        await vxlan.tear_down(tunnel)
        assert state(peer) == before, f"after step {step}"
        await vxlan.set_up(tunnel, network)
        assert state(peer).count("mirred") == whole.count("mirred") == 4
        step += 1
    assert step > 8
    assert state(peer) == before


async def test_what_a_killed_daemon_leaves_is_taken_down_from_the_record_alone(cloud: Node) -> None:
    peer = cloud.add_pod(11)
    network = await inspected(peer)
    tunnel, before = tunnel_of(peer, network, "10.99.0.2"), state(peer)
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.functional.caa.doomed", str(peer.path), str(tunnel.vni), tunnel.remote,
        cwd=REPOSITORY,
    )  # fmt: skip
    assert await daemon.wait() == -signal.SIGKILL
    assert state(peer) != before

    await vxlan.tear_down(tunnel)

    assert state(peer) == before


async def test_without_the_namespace_only_rules_are_left_to_remove(cloud: Node, tmp_path: Path) -> None:
    peer = cloud.add_pod(11)
    before = state()
    network = await inspected(peer)
    tunnel = tunnel_of(peer, network, "10.99.0.2")
    await vxlan.set_up(tunnel, network)
    peer.end()
    ip("link set cni0 up")

    await vxlan.tear_down(tunnel)
    left = tmp_path / "a-file-that-was-a-mount-point"
    left.touch()
    await vxlan.tear_down(replace(tunnel, netns=str(left)))

    assert "peerpod" not in state()
    assert "vxlan" not in before


async def test_set_up_refuses_a_link_that_somebody_else_filters_and_tear_down_spares_it(cloud: Node) -> None:
    peer = cloud.add_pod(11)
    network = await inspected(peer)
    tunnel = tunnel_of(peer, network, "10.99.0.2")
    peer.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    before = state(peer)

    with pytest.raises(TunnelError, match="eth0 has an ingress queueing discipline already"):
        await vxlan.set_up(tunnel, network)
    await vxlan.tear_down(tunnel)

    assert state(peer) == before


async def test_a_number_that_is_taken_is_named(cloud: Node) -> None:
    one, other = cloud.add_pod(11), cloud.add_pod(12)
    network = await inspected(one)
    first, second = (tunnel_of(each, network, f"10.99.0.{n}") for each, n in ((one, 2), (other, 3)))
    await vxlan.set_up(first, network)
    before = namespace_state(one)

    with pytest.raises(TunnelError, match=r"tunnel 555000 in network namespace .* exists"):
        await vxlan.set_up(second, network)
    await vxlan.tear_down(second)

    assert namespace_state(one) == before
    await vxlan.tear_down(first)


async def test_numbers_in_namespaces_with_a_name_are_held(cloud: Node, tmp_path: Path) -> None:
    peer = cloud.add_pod(11)
    network = await inspected(peer)
    tunnel = tunnel_of(peer, network, "10.99.0.2")
    await vxlan.set_up(tunnel, network)
    (tmp_path / "cni-1").symlink_to(peer.path)
    (tmp_path / "stale").touch()

    assert vni.held(tmp_path) == {555000}
    assert vni.free_vni(555000, vni.held(tmp_path)) == 555001
    await vxlan.tear_down(tunnel)
    assert vni.held(tmp_path) == set()


async def test_many_change_the_rules_at_once_and_none_is_lost(cloud: Node) -> None:
    before, remote = state(), ipaddress.ip_address("10.99.0.2")
    numbers = range(700, 706)
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(notrack.add(number, remote, 4789))
    assert taken() == set(numbers)
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(notrack.remove(number, 4))
    assert state() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("route del default", "has no default route"),
        ("addr add 10.244.0.99/24 dev eth0", "eth0 has several IPv4 addresses: 10.244.0.11/24, 10.244.0.99/24"),
    ],
)
async def test_what_is_missing_in_a_namespace_is_named(cloud: Node, change: str, words: str) -> None:
    peer = cloud.add_pod(11)
    peer.ip("-6 route del default")
    peer.ip("-6 addr flush dev eth0")
    peer.ip(change)
    with pytest.raises(TunnelError, match=f"network namespace {peer.path}.*{words}"):
        await inspection.inspect(peer.path)


async def test_the_nodes_own_namespace_and_none_are_refused(cloud: Node) -> None:
    with pytest.raises(TunnelError, match="is the node's own"):
        await inspection.inspect(Path(f"/proc/{os.getpid()}/ns/net"))
    with pytest.raises(TunnelError, match="there is no network namespace at /no/such"):
        await inspection.inspect(Path("/no/such"))
