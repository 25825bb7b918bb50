from __future__ import annotations

import ipaddress
import subprocess
import sys
from dataclasses import replace

import pytest

from kata_caa.apf import Interface, PodNetwork
from kata_caa.errors import TunnelError
from kata_caa.tunnel import pod
from kata_caa.tunnel.way import Way
from tests.conftest import REPOSITORY

NETWORK = PodNetwork(
    pod_ip="10.128.0.5/23",
    hardware_address="0a:58:0a:80:00:05",
    interface="eth0",
    worker_ip="192.168.1.9/24",
    mtu=1500,
    vxlan_id=555000,
    pod_ips=("fd00::5/64",),
    interfaces=(Interface("net1", "0a:58:0a:80:00:06", ("10.9.0.2/24",), 1400, 555001),),
)
WAY = Way(ipaddress.ip_address("192.168.1.9"), 1500)


@pytest.mark.parametrize(
    ("pod_mtu", "worker", "underlay", "mtu"),
    [
        (1500, "192.168.1.9/24", 1500, 1450),
        (1500, "fd00::9/64", 1500, 1430),
        (9001, "192.168.1.9/24", 9001, 1450),
        (1400, "192.168.1.9/24", 1500, 1400),
        (0, "192.168.1.9/24", 1500, 1450),
        (1500, "192.168.1.9/24", 1460, 1410),  # GCP
        (1500, "192.168.1.9/24", 1300, 1280),  # what IPv6 needs; the tunnel's packets are cut
    ],
)
def test_packets_fit_into_the_tunnel(pod_mtu: int, worker: str, underlay: int, mtu: int) -> None:
    way = Way(ipaddress.ip_interface(worker).ip, underlay)
    first, _ = pod.interfaces(replace(NETWORK, mtu=pod_mtu), way)
    assert first.mtu == mtu


def test_each_interface_is_a_tunnel_of_its_own() -> None:
    first, second = pod.interfaces(replace(NETWORK, vxlan_port=9000), WAY)
    assert (first.name, second.name, second.mtu) == ("eth0", "net1", 1400)
    assert (first.tunnel.vni, second.tunnel.vni, second.tunnel.port) == (555000, 555001, 9000)
    assert str(first.tunnel.remote) == str(second.tunnel.remote) == "192.168.1.9"
    assert [(address.prefix, len(address.address)) for address in first.addresses] == [(23, 4), (64, 16)]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (replace(NETWORK, interface=""), "the pod's interface"),
        (replace(NETWORK, pod_ip="", pod_ips=()), "its address"),
        (replace(NETWORK, hardware_address="nonsense"), "'nonsense'"),
    ],
)
def test_what_is_missing_in_the_configuration_is_named(network: PodNetwork, words: str) -> None:
    with pytest.raises(TunnelError, match=words):
        pod.interfaces(network, WAY)


async def test_an_address_of_the_node_that_is_none_is_named() -> None:
    with pytest.raises(TunnelError, match="worker-node-ip"):
        await pod.set_up(replace(NETWORK, worker_ip=""))


def loaded_by(module: str) -> set[str]:
    """What is loaded with a module, where there is nothing but the standard library."""
    paths = [str(REPOSITORY / name) for name in ("caa", ".")]
    program = f"import sys; sys.path[:0] = {paths!r}; import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_guest_needs_nothing_but_what_it_carries() -> None:
    loaded = loaded_by("kata_caa.tunnel.pod")

    assert {name for name in loaded if name.startswith("kata_caa.")} == {
        "kata_caa.apf", "kata_caa.errors", "kata_caa.tunnel", "kata_caa.tunnel.external",
        "kata_caa.tunnel.notrack", "kata_caa.tunnel.pod", "kata_caa.tunnel.way",
    }  # fmt: skip
    assert {name for name in loaded if name.startswith("kata_py.") and not name.startswith("kata_py.netlink")} == set()
    assert loaded.isdisjoint({"ctypes", "pyroute2", "google", "kata_py.netlink.wireguard"})


def test_its_encryption_needs_nothing_more() -> None:
    assert "cryptography" not in loaded_by("kata_caa.tunnel.encryption")
