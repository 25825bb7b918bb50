"""How fast a pod's tunnel is: TCP from a pod of this node to a peer pod in its machine, against one to another pod.

All are network namespaces in a room of their own (root), so what is compared is the way of the kernel: pairs of
veths and a bridge, or those, the redirection, and a VXLAN tunnel over a pair of veths. No wire limits either.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.adaptor import ROOM

Figure = tuple[str, str, str]

RUNS = 7
SECONDS = 1.0

_SERVER = """
import socket, time
with socket.create_server(("0.0.0.0", 7000)) as server:
    print(flush=True)
    connection, _ = server.accept()
    buffer, size = bytearray(1 << 20), 0
    began = time.perf_counter()
    while got := connection.recv_into(buffer):
        size += got
    print(size / (time.perf_counter() - began), flush=True)
"""
_CLIENT = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7000), timeout=10) as connection:
    data, end = bytes(1 << 20), time.perf_counter() + float(sys.argv[2])
    while time.perf_counter() < end:
        connection.sendall(data)
"""


def figures() -> list[Figure]:
    """Measure; takes about twenty seconds."""
    line = [ROOM, sys.executable, "-m", "bench.tunnel", "inside"]
    told = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=120).stdout
    plain, into, out = (sorted(each)[len(each) // 2] for each in json.loads(told.splitlines()[-1]))
    return [
        ("tunnel: TCP between pods of this node, without one", f"{plain / 1e6:,.0f} MB/s", ""),
        ("tunnel: TCP to a peer pod, as a share of it", f"{into / 1e6:,.0f} MB/s, {into / plain:.2f}", ""),
        ("tunnel: TCP from a peer pod, as a share of it", f"{out / 1e6:,.0f} MB/s, {out / plain:.2f}", ""),
    ]


async def inside() -> list[list[float]]:
    """Bytes per second between two pods, to a peer pod, and from one; in turns."""
    from kata_caa.tunnel import inspection, vni, vxlan
    from tests.functional.caa.cloud import ip, node, tunnel_of
    from tests.netns import pod

    found: list[list[float]] = [[], [], []]
    with tempfile.TemporaryDirectory() as top, node(Path(top)) as here:
        one, other, peer = here.add_pod(10), here.add_pod(11), here.add_pod(12)
        machine = here.stack.enter_context(pod())
        # Not behind a bridge as in tests: a bridge cuts large packets of tunnels apart, network cards do not.
        ip(f"link add uplink type veth peer name eth0 netns {machine.pid}")
        ip("addr add 10.98.0.1/24 dev uplink")
        ip("link set uplink up")
        machine.ip("addr add 10.98.0.2/24 dev eth0")
        machine.ip("link set eth0 up")
        ip("route replace default via 10.98.0.2 dev uplink")
        network = vni.numbered(await inspection.inspect(peer.path), 0, 555000, vni.held())
        tunnel = tunnel_of(peer, network, "10.98.0.2")
        await vxlan.set_up(tunnel, network)
        inside = await asyncio.to_thread(here.start_forwarder, machine, network)
        for _ in range(RUNS):
            found[0].append(rate(one.path, other.path, "10.244.0.11"))
            found[1].append(rate(one.path, inside.path, "10.244.0.12"))
            found[2].append(rate(inside.path, one.path, "10.244.0.10"))
        await vxlan.tear_down(tunnel)
    return found


def rate(source: Path, target: Path, address: str) -> float:
    """Bytes per second of one connection."""
    line = ["nsenter", f"--net={target}", sys.executable, "-c", _SERVER]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        client = ["nsenter", f"--net={source}", sys.executable, "-c", _CLIENT, address, str(SECONDS)]
        subprocess.run(client, check=True, timeout=30)
        return float(server.stdout.readline())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(inside())))
    else:
        for name, value, bar in figures():
            print(f"{name:65} {value:>25}   {bar}")
