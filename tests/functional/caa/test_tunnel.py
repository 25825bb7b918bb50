"""The tunnel, both of its ends: a node in this namespace, pods and pod VMs in others."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_caa.apf import ForwarderConfig, Neighbor, PodNetwork, Route
from kata_caa.config import AdaptorConfig
from kata_caa.errors import TunnelError
from kata_caa.node import NodeTunnel
from kata_caa.providers.api import InstanceSpec
from kata_caa.record import PodRecord, PodRecords, State
from kata_caa.tunnel import inspection, notrack, pod, vni, vxlan
from kata_caa.tunnel.keys import NodeKey
from kata_py.netlink import wireguard
from kata_py.netlink.connection import Connection
from tests.conftest import REPOSITORY
from tests.functional.caa.cloud import (
    Node,
    Room,
    captured,
    datagram,
    first_datagram,
    forgery,
    ip,
    namespace_state,
    node,
    ping,
    say,
    state,
    transfer,
    tunnel_of,
    udp_ports,
)
from tests.netns import Pod

pytestmark = pytest.mark.root

PLAIN = ("IPv4", "IPv6")
ENCRYPTED = tuple(pytest.param(f"{each}, encrypted", marks=pytest.mark.wireguard) for each in PLAIN)
ALL_CLOUDS = pytest.mark.parametrize("cloud", [*PLAIN, *ENCRYPTED], indirect=True)
WITH_AND_WITHOUT = pytest.mark.parametrize("cloud", [PLAIN[0], ENCRYPTED[0]], indirect=True)
WITH_ENCRYPTION = pytest.mark.parametrize("cloud", ENCRYPTED[:1], indirect=True)


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A node, in a cloud of IPv4 with tunnels as they are unless the test says otherwise."""
    words = getattr(request, "param", "IPv4")
    with node(tmp_path, ipv6="IPv6" in words, encrypted="encrypted" in words) as made:
        yield made


async def inspected(peer: Pod, number: int = 0, **settings: Any) -> PodNetwork:
    """What an adaptor finds, numbered."""
    return vni.numbered(await inspection.inspect(peer.path, **settings), number, 555000, vni.held() | taken())


def taken() -> set[int]:
    """What records would hold: here, pods have no names in /run/netns."""
    with_number = (line.partition("[vni:")[2] for line in state().splitlines())
    return {int(line.partition("]")[0]) for line in with_number if line}


def with_keys(cloud: Node, network: PodNetwork) -> PodNetwork:
    """A pod's network, with keys if the cloud's tunnels are encrypted."""
    if cloud.key is None:
        return network
    return replace(network, encryption=cloud.key.issue(51820, 51821 + network.vxlan_id - 555000))


async def set_up(cloud: Node, tunnel: vxlan.Tunnel, network: PodNetwork) -> None:
    """The node's end."""
    end = None
    if cloud.key is not None and network.encryption is not None:
        end = cloud.key.end(network.encryption, ipaddress.ip_address(tunnel.remote))
    await vxlan.set_up(tunnel, network, end)


async def connected(cloud: Node, peer: Pod, vm: Pod, remote: str, **settings: Any) -> tuple[vxlan.Tunnel, Room]:
    """Both ends of a tunnel, made."""
    network = with_keys(cloud, await inspected(peer, **settings))
    tunnel = tunnel_of(peer, network, remote)
    await set_up(cloud, tunnel, network)
    return tunnel, await asyncio.to_thread(cloud.start_forwarder, vm, network)


@ALL_CLOUDS
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


@ALL_CLOUDS
async def test_who_sends_packets_that_do_not_fit_is_told_which_do(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    fits = 1430 if cloud.ipv6 else 1450
    if cloud.key is not None:
        fits = 1350 if cloud.ipv6 else 1370

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))

    assert f"mtu {fits}" in inside.ip("link show eth0")
    for address in ("10.244.0.11", "fd00:244::11"):
        assert datagram(plain, inside, address, 1500) == fits
    for address in ("10.244.0.10", "fd00:244::10"):
        assert datagram(inside, plain, address, fits) == fits
    plain.run("ping", "-c1", "-W5", "-M", "dont", "-s", "4000", "10.244.0.11")
    await vxlan.tear_down(tunnel)


@WITH_AND_WITHOUT
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


@WITH_AND_WITHOUT
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


@WITH_AND_WITHOUT
async def test_a_dedicated_interface_carries_the_tunnel(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    cloud.add_vm(2, "cloud1", "eth1", of=vm)

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2, 1), host_interface="cloud1")

    network = await inspection.inspect(peer.path, host_interface="cloud1")
    assert (network.worker_ip, network.dedicated) == ("10.99.1.1/24", True)
    vm.ip("link set eth0 down")
    transfer(plain, inside, "10.244.0.11")
    await vxlan.tear_down(tunnel)


@WITH_AND_WITHOUT
async def test_who_watches_the_cloud_reads_what_is_not_encrypted_and_nothing_else(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    text = "Attack at dawn. "

    with captured("cloud0vm2") as frames:
        tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))
        transfer(plain, inside, "10.244.0.11", 1 << 16, text)
        transfer(inside, plain, "10.244.0.10", 1 << 16, text)

    assert sum(map(len, frames)) > 2 << 16
    assert (4 * text.encode() in b"".join(frames)) == (cloud.key is None)
    assert (4789 in udp_ports(frames)) == (cloud.key is None)
    assert cloud.key is None or udp_ports(frames) == {51820, 51821}
    await vxlan.tear_down(tunnel)


@ALL_CLOUDS
async def test_a_forged_packet_reaches_a_pod_only_if_its_tunnel_is_not_encrypted(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    forger = cloud.add_vm(3)
    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))
    expected = "forged" if cloud.key is None else "true"

    for source, target, host, end in (
        (plain, inside, "10.244.0.11", cloud.address(2)),
        (inside, plain, "10.244.0.10", cloud.address(1)),
    ):
        forged = forgery(tunnel.vni, target, host, "forged")
        with first_datagram(target) as first:
            say(forger, end, 4789, forged)
            say(source, host, 7000, b"true")
        assert first == [expected]
    await vxlan.tear_down(tunnel)


@WITH_ENCRYPTION
async def test_a_node_whose_port_somebody_has_takes_another(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("", 51821))
        tunnel, inside = await connected(cloud, peer, vm, cloud.address(2))
        transfer(plain, inside, "10.244.0.11")
    await vxlan.tear_down(tunnel)


@WITH_ENCRYPTION
async def test_the_next_adaptor_makes_a_tunnel_anew_with_its_keys_and_takes_it_down(
    cloud: Node, tmp_path: Path
) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    before = state(peer)
    config = AdaptorConfig(
        socket=str(tmp_path / "hypervisor.sock"), pods_dir=str(tmp_path / "pods"), tunnel_encryption="wireguard"
    )
    records = PodRecords(Path(config.pods_dir))
    network = await NodeTunnel(config, records).inspect(peer.path)
    made = PodRecord(
        "id", "web", "shop", str(peer.path), "podvm-web-id", "", "token", InstanceSpec(), State.STARTING,
        addresses=(cloud.address(2),), network=network,
    )  # fmt: skip
    records.create(made, ForwarderConfig(network), "")
    await NodeTunnel(config, records).set_up(made)
    inside = await asyncio.to_thread(cloud.start_forwarder, vm, network)
    ping(inside, "10.244.0.10")

    found, following = records.load("id"), NodeTunnel(replace(config, tunnel_encryption="none"), records)
    assert found is not None
    with captured("cloud0vm2") as frames:
        await following.set_up(found)
        transfer(plain, inside, "10.244.0.11", 1 << 16)
    assert udp_ports(frames) == {51820, 51821}
    await following.tear_down(found)
    assert state(peer) == before


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_number_on_record_is_nobody_elses_though_no_link_bears_it(
    cloud: Node, tmp_path: Path, damaged: bool
) -> None:
    peer = cloud.add_pod(11)
    config = AdaptorConfig(socket=str(tmp_path / "hypervisor.sock"), pods_dir=str(tmp_path / "pods"))
    records = PodRecords(Path(config.pods_dir))
    network = PodNetwork(vxlan_id=555000)
    other = PodRecord("id", "web", "shop", "", "podvm-web-id", "", "token", InstanceSpec(), network=network)
    assert (await NodeTunnel(config, records).inspect(peer.path)).vxlan_id == 555000
    records.create(other, ForwarderConfig(network), "")
    if damaged:
        (tmp_path / "pods" / "id" / "pod.json").write_text("")
    assert (await NodeTunnel(config, records).inspect(peer.path)).vxlan_id == 555001


async def test_a_kernel_without_wireguard_is_told_at_either_end_and_nothing_is_left(
    cloud: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wireguard, "KIND", "kata-py-none")
    peer = cloud.add_pod(11)
    before, key = state(peer), NodeKey(tmp_path / "wireguard.key")
    network = await inspected(peer)
    network = replace(network, worker_ip="10.99.0.9/24", encryption=key.issue(51820, 51821))
    tunnel = tunnel_of(peer, network, "10.99.0.2")
    assert network.encryption is not None

    with pytest.raises(TunnelError, match=r"is to be encrypted, and the kernel .* has no WireGuard: load its module"):
        await vxlan.set_up(tunnel, network, key.end(network.encryption, ipaddress.ip_address("10.99.0.2")))
    await vxlan.tear_down(tunnel)
    with pytest.raises(TunnelError, match="has no WireGuard"):
        await pod.set_up(network, tmp_path / "podns")

    assert state(peer) == before
    assert not (tmp_path / "podns").exists()


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


@WITH_AND_WITHOUT
async def test_a_forwarder_that_starts_again_leaves_the_network_alone_or_makes_it_anew(cloud: Node) -> None:
    peer, vm = cloud.add_pod(11), cloud.add_vm(2)
    network = with_keys(cloud, await inspected(peer))
    tunnel = tunnel_of(peer, network, cloud.address(2))
    await set_up(cloud, tunnel, network)
    inside = await asyncio.to_thread(cloud.start_forwarder, vm, network)
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


async def test_ipv6_takes_it_too_where_the_machine_has_ipv6_there(cloud: Node) -> None:
    plain, peer, vm = cloud.add_pod(10), cloud.add_pod(11), cloud.add_vm(2)
    vm.ip("route add default via 10.99.0.1")
    cloud.add_vm(7, "cloud0", "eth1", of=vm)
    ip("-6 addr add fd00:99::1/64 dev cloud0 nodad")
    vm.ip("-6 addr add fd00:99::7/64 dev eth1 nodad")
    vm.ip("-6 route add default via fd00:99::1 dev eth1")

    tunnel, inside = await connected(cloud, peer, vm, cloud.address(2), external_via_pod_vm=True)

    defaults = [line for line in inside.ip("-6 route").splitlines() if line.startswith("default")]
    assert [line.split()[:5] for line in defaults] == [["default", "via", "fd00:99::1", "dev", "eth1"]]
    ping(inside, "fd00:99::1")
    transfer(plain, inside, "fd00:244::11")
    before = namespace_state(inside)
    network = await inspection.inspect(peer.path, external_via_pod_vm=True)
    cloud.start_forwarder(vm, replace(network, vxlan_id=tunnel.vni))
    assert namespace_state(inside) == before
    await vxlan.tear_down(tunnel)


async def test_ipv6_takes_the_tunnel_where_the_machine_has_none_and_this_is_told(cloud: Node) -> None:
    peer, vm = cloud.add_pod(11), cloud.add_vm(2)
    vm.ip("route add default via 10.99.0.1")
    cloud.add_vm(7, "cloud0", "eth1", of=vm)
    network = replace(await inspected(peer, external_via_pod_vm=True))
    path = cloud.namespace(vm)
    done = await asyncio.to_thread(cloud.begin_forwarder, vm, network, path, 10.0)
    said, _ = await asyncio.to_thread(done.communicate, timeout=20)
    assert "IPv6 traffic that leaves the cluster goes through the tunnel: eth1 has no IPv6 address" in said
    assert "default via 10.99.0.1 dev eth1" in Room(path).ip("route")
    assert "default via fd00:244::1 dev eth0" in Room(path).ip("-6 route")


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

    change, run = Connection.change, notrack._run

    def counted_change(self: Connection, *arguments: Any) -> None:
        change(self, *arguments)
        counted()

    async def counted_run(*arguments: Any) -> Any:
        result = await run(*arguments)
        counted()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "change", counted_change)
        patch.setattr(notrack, "_run", counted_run)
        try:
            await call()
        except Doom:
            return True
    return False


@WITH_AND_WITHOUT
async def test_what_a_set_up_leaves_that_ends_at_any_step_is_taken_down(
    cloud: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = cloud.add_pod(11)
    peer.ip("link add net1 type veth peer name net2")
    peer.ip("addr add 10.245.0.11/24 dev net1")
    peer.ip("link set net1 up")
    network = with_keys(cloud, await inspected(peer))
    tunnel, before = tunnel_of(peer, network, "10.99.0.2"), state(peer)
    assert len(network.interfaces) == 1

    step = 1
    while await failing_at(monkeypatch, step, lambda: set_up(cloud, tunnel, network)):
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
        await set_up(cloud, tunnel, network)
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
