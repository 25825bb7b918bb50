"""A peer pod's network: a pod of this node and one in a machine elsewhere reach each other, and nothing stays behind.

The machine is a namespace with a cable to ours; the pods have a bridge, as a network plug-in makes it.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kata_caa.apf import PodNetwork
from kata_caa.errors import TunnelError
from kata_caa.tunnel import notrack, pod, worker
from kata_caa.tunnel.inspection import Wishes, inspect, vnis_in_use
from kata_caa.tunnel.links import ends, free_vnis
from kata_py.netlink import traffic
from kata_py.netlink.rtnetlink import Rtnetlink
from kata_py.resource.netns import NetworkNamespace
from tests import netns

pytestmark = pytest.mark.root

UNDERLAY = "kptunnel"  # the node's end of the cable to machines
PORT = 9000
BRIDGES = {"eth0": "kpbr0", "net1": "kpbr1"}


def run(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}"
    return done.stdout


def ip(words: str) -> str:
    return run("ip", *words.split())


@dataclass(frozen=True)
class Machine:
    """A machine: a namespace with a cable, and the place of the pod's own namespace in it."""

    holder: netns.Pod
    address: str
    podns: Path

    def in_pod(self, *argv: str) -> str:
        """Run a program where the pod's containers are."""
        return run("nsenter", f"--net={self.podns}", *argv)


@dataclass
class Node:
    """The node: bridges for pods, a cable to machines, and what was there before."""

    stack: ExitStack
    directory: Path
    pods: int = 0
    machines: int = 0
    connected: list[Path] = field(default_factory=list)

    def pod(self, *, mtu: int = 1500, second: bool = False) -> netns.Pod:
        """A pod with addresses of both families, as a plug-in makes it."""
        made = self.stack.enter_context(netns.pod())
        self.pods += 1
        number = self.pods
        for index, (name, bridge) in enumerate(BRIDGES.items()):
            if index and not second:
                break
            here = f"kpv{index}{number}"
            ip(f"link add {here} mtu {mtu} type veth peer name {name} mtu {mtu} netns {made.pid}")
            ip(f"link set {here} master {bridge} up")
            made.ip(f"addr add 10.77.{index}.{number + 1}/24 dev {name}")
            made.ip(f"addr add fd77:{index}::{number + 1}/64 dev {name} nodad")
            made.ip(f"link set {name} up")
        made.ip("route add default via 10.77.0.1 dev eth0")
        made.ip("-6 route add default via fd77:0::1 dev eth0")
        return made

    def machine(self) -> Machine:
        """A machine that the node reaches over the cable."""
        holder = self.stack.enter_context(netns.pod())
        self.machines += 1
        number = self.machines + 1
        here = f"kpm{number}"
        ip(f"link add {here} type veth peer name eth0 netns {holder.pid}")
        ip(f"link set {here} master {UNDERLAY} up")
        holder.ip(f"addr add 198.18.0.{number}/24 dev eth0")
        holder.ip(f"addr add fd18::{number}/64 dev eth0 nodad")
        holder.ip("link set eth0 up")
        return Machine(holder, f"198.18.0.{number}", self.directory / f"podns{number}")

    def connect(self, peer: netns.Pod, machine: Machine, network: PodNetwork | None = None) -> PodNetwork:
        """Do what the adaptor and the forwarder do."""
        network = network or announced(peer, taken=self.connected)
        self.connected.append(peer.path)
        self.stack.callback(worker.tear_down, peer.path, network)
        worker.set_up(peer.path, network, machine.address)
        in_namespace(machine, lambda: asyncio.run(pod.set_up(network, machine.podns)))
        self.stack.callback(run, "umount", str(machine.podns))
        return network


def announced(peer: netns.Pod, *, taken: Sequence[Path] = (), **wishes: object) -> PodNetwork:
    """What the adaptor finds of a pod."""
    network = inspect(peer.path, replace(Wishes(host_interface=UNDERLAY, port=PORT), **wishes))
    first, *others = free_vnis(1 + len(network.interfaces), 555000, vnis_in_use([peer.path, *taken]))
    interfaces = tuple(replace(each, vxlan_id=vni) for each, vni in zip(network.interfaces, others, strict=True))
    return replace(network, vxlan_id=first, interfaces=interfaces)


def in_namespace(machine: Machine, function: Callable[[], object]) -> None:
    """Call a function in a machine's network."""
    NetworkNamespace.at(machine.holder.path).run(function)


@contextmanager
def _links() -> Iterator[None]:
    try:
        for bridge in (*BRIDGES.values(), UNDERLAY):
            ip(f"link add {bridge} type bridge")
            ip(f"link set {bridge} up")
        for index, bridge in enumerate(BRIDGES.values()):
            ip(f"addr add 10.77.{index}.1/24 dev {bridge}")
            ip(f"addr add fd77:{index}::1/64 dev {bridge} nodad")
        ip(f"addr add 198.18.0.1/24 dev {UNDERLAY}")
        yield
    finally:
        for bridge in (*BRIDGES.values(), UNDERLAY):
            run("ip", "link", "delete", bridge)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    before = run("iptables-save", "-t", "raw") + run("ip6tables-save", "-t", "raw")
    with ExitStack() as stack:
        stack.enter_context(_links())
        yield Node(stack, tmp_path)
    assert rules(run("iptables-save", "-t", "raw") + run("ip6tables-save", "-t", "raw")) == rules(before)


def rules(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A")]


def answers(runner: Callable[..., str], address: str, *options: str) -> None:
    """A ping that is answered; the first may be lost while neighbours are found."""
    deadline = time.monotonic() + 10
    while True:
        try:
            runner("ping", "-c", "1", "-W", "1", *options, address)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def test_a_peer_pod_and_one_of_this_node_reach_each_other_by_both_families(node: Node) -> None:
    peer, other, machine = node.pod(), node.pod(), node.machine()
    node.connect(peer, machine)
    for runner, four, six in ((machine.in_pod, "10.77.0.3", "fd77:0::3"), (other.run, "10.77.0.2", "fd77:0::2")):
        answers(runner, four)
        answers(runner, six)
    answers(machine.in_pod, "10.77.0.1")  # the node itself, by the default route's gateway


def test_packets_as_large_as_the_other_pod_s_link_takes_arrive(node: Node) -> None:
    peer, other, machine = node.pod(), node.pod(), node.machine()
    node.connect(peer, machine)
    answers(other.run, "10.77.0.2", "-M", "do", "-s", "1472")  # 1500 bytes, not to be cut
    answers(machine.in_pod, "10.77.0.3", "-M", "do", "-s", "1422")  # 1450, what its own link takes
    answers(machine.in_pod, "10.77.0.3", "-s", "4000")


def test_in_the_machine_the_pod_s_interface_is_as_it_was_on_the_node(node: Node) -> None:
    peer, machine = node.pod(), node.machine()
    network = node.connect(peer, machine)
    assert network.pod_ip == "10.77.0.2/24"
    assert network.pod_ips == ("fd77::2/64",)
    link = machine.in_pod("ip", "-d", "link", "show", "eth0")
    assert network.hardware_address in link
    assert "mtu 1450" in link
    assert f"vxlan id {network.vxlan_id}" in link
    routes = machine.in_pod("ip", "route")
    assert "default via 10.77.0.1 dev eth0" in routes
    assert "10.77.0.0/24 dev eth0 proto kernel scope link" in routes
    assert "default via fd77::1 dev eth0" in machine.in_pod("ip", "-6", "route")


def test_all_of_a_pod_s_interfaces_go_with_it(node: Node) -> None:
    peer, other, machine = node.pod(second=True), node.pod(second=True), node.machine()
    network = node.connect(peer, machine)
    assert [end.interface.name for end in ends(network)] == ["eth0", "net1"]
    answers(machine.in_pod, "10.77.1.3")
    answers(other.run, "10.77.1.2")
    answers(other.run, "10.77.0.2")


def test_two_peer_pods_reach_each_other(node: Node) -> None:
    peers, machines = [node.pod(), node.pod()], [node.machine(), node.machine()]
    networks = [node.connect(peer, machine) for peer, machine in zip(peers, machines, strict=True)]
    assert networks[0].vxlan_id != networks[1].vxlan_id
    answers(machines[0].in_pod, "10.77.0.3")
    answers(machines[1].in_pod, "10.77.0.2")


def test_permanent_neighbours_go_with_the_pod(node: Node) -> None:
    peer, machine = node.pod(), node.machine()
    peer.ip("neigh add 10.77.0.99 lladdr 02:00:00:00:00:63 dev eth0 nud permanent")
    node.connect(peer, machine)
    assert "10.77.0.99 dev eth0 lladdr 02:00:00:00:00:63 PERMANENT" in machine.in_pod("ip", "neigh")


def test_connections_of_the_tunnel_are_not_followed(node: Node) -> None:
    peer, machine = node.pod(), node.machine()
    network = node.connect(peer, machine)
    saved = run("iptables-save", "-t", "raw")
    comment = f'--comment "peerpod [vni:{network.vxlan_id}]"'
    assert saved.count(comment) == 2
    assert f"-d {machine.address}/32 -p udp -m udp --dport {PORT} -m comment {comment} -j CT --notrack" in saved
    worker.tear_down(peer.path, network)
    assert "peerpod" not in run("iptables-save", "-t", "raw")


def test_tearing_down_leaves_the_pod_as_it_was_and_again_is_fine(node: Node) -> None:
    peer, machine = node.pod(second=True), node.machine()
    before = peer.state()
    network = node.connect(peer, machine)
    assert peer.state() != before
    worker.tear_down(peer.path, network)
    assert peer.state() == before
    worker.tear_down(peer.path, network)
    peer.end()
    worker.tear_down(peer.path, network)


def test_rules_go_even_when_the_namespace_went_first(node: Node) -> None:
    peer, machine = node.pod(), node.machine()
    network = node.connect(peer, machine)
    path = peer.path
    peer.end()
    worker.tear_down(path, network)
    assert "peerpod" not in run("iptables-save", "-t", "raw")


def test_setting_up_again_takes_the_place_of_what_was_there(node: Node) -> None:
    peer, other, machine, second = node.pod(), node.pod(), node.machine(), node.machine()
    network = node.connect(peer, machine)
    node.connect(peer, second, network)
    answers(other.run, "10.77.0.2")
    answers(second.in_pod, "10.77.0.3")
    in_namespace(second, lambda: asyncio.run(pod.set_up(network, second.podns)))  # the forwarder is started anew
    answers(second.in_pod, "10.77.0.3")


@pytest.mark.parametrize("step", range(10))
def test_a_failure_at_any_step_leaves_only_what_tearing_down_removes(
    node: Node, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    peer, machine = node.pod(), node.machine()
    before, network = peer.state(), announced(peer)
    left = step

    def failing(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            if not left:
                raise OSError(5, "as the test wants it")
            left -= 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (notrack, "_restore"),
            (Rtnetlink, "add_link"),
            (Rtnetlink, "keep_silent"),
            (traffic, "add_ingress"),
            (traffic, "redirect"),
            (Rtnetlink, "set_link"),
        ):
            patch.setattr(owner, name, failing(getattr(owner, name)))
        if step < 9:
            with pytest.raises((TunnelError, OSError)):
                worker.set_up(peer.path, network, machine.address)
        else:
            worker.set_up(peer.path, network, machine.address)
    worker.tear_down(peer.path, network)
    assert peer.state() == before
    assert "peerpod" not in run("iptables-save", "-t", "raw")


def test_numbers_in_use_are_seen(node: Node) -> None:
    peer, machine = node.pod(), node.machine()
    network = node.connect(peer, machine)
    assert network.vxlan_id in vnis_in_use([peer.path])


def test_what_a_namespace_lacks_is_told(node: Node) -> None:
    empty = node.stack.enter_context(netns.pod())
    with pytest.raises(TunnelError, match="has no default route"):
        announced(empty)
    with pytest.raises(TunnelError, match="cannot be looked at"):
        inspect(Path("/nowhere"), Wishes())
    two = node.pod()
    two.ip("addr add 10.77.0.200/24 dev eth0")
    with pytest.raises(TunnelError, match="more than one IPv4 address"):
        announced(two)
    with pytest.raises(TunnelError, match="this node has no kpnone"):
        announced(node.pod(), host_interface="kpnone")
    with pytest.raises(TunnelError, match="-pod-subnet-cidrs"):
        announced(node.pod(), subnets=("many",))


def test_further_networks_are_reached_through_the_tunnel(node: Node) -> None:
    network = announced(node.pod(), subnets=("10.96.0.0/12",))
    assert [route.gateway for route in network.routes if route.destination == "10.96.0.0/12"] == ["10.77.0.1"]
