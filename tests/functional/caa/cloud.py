"""A node with pods on a bridge, and pod VMs across a cloud's network, all of them network namespaces.

The node is the namespace of the test itself: a room's.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kata_caa import apf
from kata_caa.apf import ForwarderConfig, PodNetwork
from kata_caa.tunnel.keys import NodeKey
from kata_caa.tunnel.vxlan import Tunnel
from tests.conftest import REPOSITORY
from tests.netns import Pod, pod

_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_SO_RCVBUFFORCE = 33

_SERVER = """
import socket, sys
with socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print(flush=True)
    connection, _ = server.accept()
    size = 0
    while data := connection.recv(1 << 16):
        size += len(data)
    connection.sendall(str(size).encode())
"""
_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=10) as connection:
    connection.sendall(sys.argv[3].encode() * (int(sys.argv[2]) // len(sys.argv[3])))
    connection.shutdown(socket.SHUT_WR)
    print(connection.recv(100).decode())
"""
_LISTENER = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as server:
    server.bind(("", 7000))
    print(flush=True)
    print(server.recv(100).decode())
"""
_SPEAKER = """
import socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[1], int(sys.argv[2])))
"""
# One datagram of IPv4 or IPv6, as large as is said with all headers and not to be fragmented, and its echo. Prints the
# size that the kernel takes for the way's afterwards.
_ECHO = """
import socket, sys
family, = {each[0] for each in socket.getaddrinfo(sys.argv[1], 7)}
with socket.socket(family, socket.SOCK_DGRAM) as server:
    server.bind(("", 7000))
    print(flush=True)
    data, sender = server.recvfrom(1 << 16)
    server.sendto(data[:10], sender)
"""
_DATAGRAM = """
import select, socket, sys
host, size = sys.argv[1], int(sys.argv[2])
v6 = ":" in host
with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    level, discover, mtu = (41, 23, 24) if v6 else (0, 10, 14)
    client.setsockopt(level, discover, 2)
    client.connect((host, 7000))
    while True:
        try:
            client.send(bytes(size - (48 if v6 else 28)))
            client.recv(100)
            break
        except OSError as error:
            if error.errno != 90:
                raise
            size = client.getsockopt(level, mtu)
print(size)
"""


@dataclass(frozen=True)
class Room:
    """A namespace that has a path; `run` as of `Pod`."""

    path: Path

    def run(self, *argv: str) -> str:
        return _run("nsenter", f"--net={self.path}", *argv)

    def ip(self, words: str) -> str:
        return self.run("ip", *words.split())


@dataclass
class Node:
    """The node, and what belongs to it.

    Attributes:
        top: Where files go.
        stack: Removes what is made.
        ipv6: Whether the cloud's network is one of IPv6.
        key: The node's, if tunnels are encrypted.
    """

    top: Path
    stack: ExitStack
    ipv6: bool = False
    key: NodeKey | None = None
    namespaces: list[Path] = field(default_factory=list)

    def add_pod(self, number: int) -> Pod:
        """A pod at the bridge: 10.244.0.<number>, fd00:244::<number>."""
        made = self.stack.enter_context(pod())
        ip(f"link add pod{number} type veth peer name eth0 netns {made.pid}")
        self.stack.callback(_remove, f"pod{number}")
        ip(f"link set pod{number} master cni0 up")
        made.ip(f"addr add 10.244.0.{number}/24 dev eth0")
        made.ip(f"addr add fd00:244::{number}/64 dev eth0 nodad")
        made.ip("link set eth0 up")
        made.ip("route add default via 10.244.0.1")
        made.ip("-6 route add default via fd00:244::1")
        return made

    def add_vm(self, number: int, cloud: str = "cloud0", link: str = "eth0", of: Pod | None = None) -> Pod:
        """A pod VM at the cloud's network, 10.99.0.<number> or fd00:99::<number>; or another link of one."""
        made = of or self.stack.enter_context(pod())
        port = f"{cloud}vm{number}"
        ip(f"link add {port} type veth peer name {link} netns {made.pid}")
        self.stack.callback(_remove, port)
        ip(f"link set {port} master {cloud} up")
        subnet = cloud.removeprefix("cloud")
        if self.ipv6:
            made.ip(f"-6 addr add fd00:99:{subnet}::{number}/64 dev {link} nodad")
        else:
            made.ip(f"addr add 10.99.{subnet}.{number}/24 dev {link}")
        # As in a cloud, an interface answers for its own address alone: else the node may learn that the second one has
        # the first one's address, and a moment later it is with the pod.
        made.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{link}/arp_ignore")
        made.ip(f"link set {link} up")
        return made

    def address(self, number: int, cloud: int = 0) -> str:
        """Address of a pod VM."""
        return f"fd00:99:{cloud}::{number}" if self.ipv6 else f"10.99.{cloud}.{number}"

    def start_forwarder(self, vm: Pod, network: PodNetwork, *, timeout: float = 10) -> Room:
        """Let a pod VM make its pod's network; gives its namespace."""
        path = self.namespace(vm)
        done = self.begin_forwarder(vm, network, path, timeout)
        output, _ = done.communicate(timeout=30)
        assert done.returncode == 0, output
        return Room(path)

    def namespace(self, vm: Pod) -> Path:
        """Where a pod VM's namespace for its pod is."""
        path = self.top / f"podns-{vm.pid}"
        if path not in self.namespaces:
            self.namespaces.append(path)
            self.stack.callback(subprocess.run, ["umount", "--lazy", path], stderr=subprocess.DEVNULL)
        return path

    def begin_forwarder(
        self, vm: Pod, network: PodNetwork, path: Path, timeout: float, *more: str
    ) -> subprocess.Popen[str]:
        """What makes a pod's network in its pod VM, running."""
        configuration = self.top / f"apf-{vm.pid}.json"
        configuration.write_text(apf.dump(ForwarderConfig(network)))
        return subprocess.Popen(
            ["nsenter", f"--net={vm.path}", sys.executable, "-m", "tests.functional.caa.podvm", configuration, path,
             str(timeout), *more],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@contextmanager
def node(top: Path, *, ipv6: bool = False, encrypted: bool = False) -> Iterator[Node]:
    """A node with a bridge `cni0` for its pods, and `cloud0`, its primary interface."""
    with ExitStack() as stack:
        made = Node(top, stack, ipv6, NodeKey(top / "wireguard.key") if encrypted else None)
        for name in ("cni0", "cloud0", "cloud1"):
            ip(f"link add {name} type bridge")
            stack.callback(_remove, name)
            ip(f"link set {name} up")
        ip("addr add 10.244.0.1/24 dev cni0")
        ip("-6 addr add fd00:244::1/64 dev cni0 nodad")
        for number in (0, 1):
            if ipv6:
                ip(f"-6 addr add fd00:99:{number}::1/64 dev cloud{number} nodad")
            else:
                ip(f"addr add 10.99.{number}.1/24 dev cloud{number}")
        ip("-6 route add default via fd00:99:0::ff dev cloud0" if ipv6 else "route add default via 10.99.0.254")
        yield made


def ip(words: str) -> str:
    """ip(8) on the node."""
    return _run("ip", *words.split())


def tunnel_of(netns: Pod, network: PodNetwork, remote: str) -> Tunnel:
    """What a record of the tunnel holds."""
    encrypted = network.encryption is not None
    return Tunnel(str(netns.path), network.vxlan_id, remote, network.vxlan_port, encrypted)


def state(*namespaces: Pod | Room) -> str:
    """All that a tunnel changes of the node and of namespaces."""
    rules = "".join(_run(tool, "-t", "raw", "-S") for tool in ("iptables", "ip6tables"))
    links = sorted((link["ifname"], link["mtu"]) for link in json.loads(ip("-j link")))
    return f"{rules}{links}\n" + "".join(namespace_state(each) for each in namespaces)


def namespace_state(each: Pod | Room) -> str:
    """Links, addresses, routes, disciplines and filters of a namespace."""
    links = json.loads(each.ip("-j -d link"))
    known = [
        (link["ifname"], "UP" in link["flags"], link["mtu"], link["address"], link.get("master")) for link in links
    ]
    filters = "".join(each.run("tc", "filter", "show", "dev", link["ifname"], "ingress") for link in links)
    addresses = [
        (link["ifname"], address["local"], address["prefixlen"])
        for link in json.loads(each.ip("-j addr"))
        for address in link["addr_info"]
        if not address["local"].startswith("fe80:")  # which come when they have been found free
    ]
    routes = (each.ip("route show table all") + each.ip("-6 route show table all")).splitlines()
    lasting = [route for route in routes if "fe80:" not in route]
    return f"{known}\n{addresses}\n{lasting}\n" + each.run("tc", "qdisc", "show") + filters


def ping(source: Pod | Room, host: str) -> None:
    """One echo that has to come back within five seconds."""
    source.run("ping", "-c1", "-W5", host)


def transfer(source: Pod | Room, target: Pod | Room, host: str, size: int = 4 << 20, text: str = "kata") -> None:
    """Send bytes by TCP, a text again and again, and have them all arrive."""
    assert _exchange(source, target, host, _SERVER, _CLIENT, size, text) == size


def datagram(source: Pod | Room, target: Pod | Room, host: str, size: int) -> int:
    """Send a packet that may not be fragmented, smaller once the kernel knows it too large; the size that arrived."""
    return _exchange(source, target, host, _ECHO, _DATAGRAM, size)


def say(source: Pod | Room, host: str, port: int, what: bytes) -> None:
    """Send a datagram."""
    source.run(sys.executable, "-IS", "-c", _SPEAKER, host, str(port), what.hex())


@contextmanager
def first_datagram(target: Pod | Room) -> Iterator[list[str]]:
    """What the first datagram says that reaches port 7000, of all that are sent meanwhile; it is there in the end."""
    found: list[str] = []
    line = ["nsenter", f"--net={target.path}", sys.executable, "-IS", "-c", _LISTENER]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as listening:
        try:
            assert listening.stdout is not None
            listening.stdout.readline()
            yield found
            found.append(listening.stdout.readline().strip())
        finally:
            listening.kill()


def forgery(vni: int, target: Pod | Room, host: str, words: str) -> bytes:
    """What a VXLAN carries if a datagram is sent to port 7000 of a pod: RFC 7348, section 5."""
    hardware = bytes.fromhex(target.ip("-br link show eth0").split()[2].replace(":", ""))
    datagram = struct.pack("!HHHH", 7000, 7000, 8 + len(words), 0) + words.encode()
    addresses = socket.inet_aton("10.244.0.77") + socket.inet_aton(host)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    checksum = 0xFFFF - (total + (total >> 16) & 0xFFFF)
    packet = header[:10] + checksum.to_bytes(2, "big") + header[12:] + datagram
    frame = hardware + b"\x02\0\0\0\0\x77" + _ETH_P_IP.to_bytes(2, "big") + packet
    return struct.pack("!BxxxI", 8, vni << 8) + frame


@contextmanager
def captured(link: str) -> Iterator[list[bytes]]:
    """The frames that pass a link of the node, both ways; they are there in the end."""
    frames: list[bytes] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        tap.bind((link, 0))
        tap.setblocking(False)
        yield frames
        with suppress(BlockingIOError):
            while True:
                frames.append(tap.recv(1 << 16))


def udp_ports(frames: list[bytes]) -> set[int]:
    """The ports that datagrams among frames come from and go to."""
    found: set[int] = set()
    for frame in frames:
        family, header = int.from_bytes(frame[12:14], "big"), 14 + (frame[14] & 15) * 4
        if family == _ETH_P_IP and frame[23] == socket.IPPROTO_UDP:
            found.update(struct.unpack_from("!HH", frame, header))
        if family == _ETH_P_IPV6 and frame[20] == socket.IPPROTO_UDP:
            found.update(struct.unpack_from("!HH", frame, 54))
    return found


def _exchange(
    source: Pod | Room, target: Pod | Room, host: str, server: str, client: str, size: int, *more: str
) -> int:
    line = ["nsenter", f"--net={target.path}", sys.executable, "-IS", "-c", server, host]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as serving:
        try:
            assert serving.stdout is not None
            serving.stdout.readline()
            return int(source.run(sys.executable, "-IS", "-c", client, host, str(size), *more))
        finally:
            serving.kill()


def _remove(link: str) -> None:
    subprocess.run(["ip", "link", "del", link], stderr=subprocess.DEVNULL)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}"
    return done.stdout
