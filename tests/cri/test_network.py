"""A pod's network: its address, whom it reaches, and who reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cri.conftest import ON_BOTH
from tests.cri.pods import Container, Pod, Pods, attempts
from tests.cri.proto import cri_pb2 as cri
from tools.cri import GATEWAY, SUBNET, CriContainerd

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

TIMEOUT = 20.0  # seconds
PORT = 8080
MIB = 1 << 20

# Answers each connection with what it asks; and with a page.
ECHO = ("nc", "-ll", "-p", str(PORT), "-e", "cat")
WEB = ("sh", "-c", f"mkdir /www; hostname > /www/index.html; exec httpd -f -p {PORT} -h /www")


async def address(pod: Pod) -> str:
    """The pod's address."""
    return (await pod.status()).network.ip


async def talk(host: str, port: int, data: bytes) -> bytes:
    """Send to a server and return its answer; it is tried until it listens."""
    async for _ in attempts(TIMEOUT, f"nobody listens at {host}:{port}"):
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), TIMEOUT)
        except OSError:
            continue
        try:
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            return await asyncio.wait_for(reader.read(-1), TIMEOUT)
        finally:
            writer.close()
    raise AssertionError


@contextlib.asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    """A server of the node that gives everybody the same answer; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, GATEWAY)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await listening.wait_closed()


async def fetch(container: Container, host: str) -> str:
    """What a container gets from a web server, once that listens."""
    got = f"wget -q -O - http://{host}:{PORT}/"
    return await container.sh(f"until {got} 2>/dev/null; do sleep 0.05; done")


@ON_BOTH
async def test_the_pods_address_is_the_containers(pods: Pods) -> None:
    async with pods.run() as pod:
        ip = await address(pod)
        assert ipaddress.ip_address(ip) in ipaddress.ip_network(SUBNET)
        shown = (await pod.outcome("ip", "-4", "address", "show", "dev", "eth0")).stdout.decode()
        assert f"inet {ip}/24 " in shown


async def test_two_pods_have_two_addresses(pods: Pods) -> None:
    async with pods.run() as one, pods.run() as two:
        assert await address(one) != await address(two)


async def test_the_containers_of_a_pod_have_one_address(shared_pod: Pod) -> None:
    shown = {(await shared_pod.outcome("ip", "-4", "address", "show", "dev", "eth0")).stdout for _ in range(2)}
    assert len(shown) == 1


async def test_the_way_out_is_the_bridge(shared_pod: Pod) -> None:
    routes = (await shared_pod.outcome("ip", "route")).stdout.decode()
    assert f"default via {GATEWAY} dev eth0" in routes
    assert f"{SUBNET} dev eth0" in routes


async def test_the_loopback_is_up(shared_pod: Pod) -> None:
    assert (await shared_pod.outcome("ping", "-c", "1", "-W", "5", "127.0.0.1")).code == 0


@pytest.mark.parametrize("what", ["mtu", "address"])
async def test_the_link_is_as_the_network_made_it_in_its(shared_pod: Pod, what: str) -> None:
    container = await shared_pod.run("sleep", "1000")
    namespaces = (await shared_pod.info())["runtimeSpec"]["linux"]["namespaces"]
    path = next(namespace["path"] for namespace in namespaces if namespace["type"] == "network")
    command = ["nsenter", f"--net={path}", "ip", "-o", "link", "show", "dev", "eth0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    words = (await process.communicate())[0].decode().split()
    expected = words[words.index({"mtu": "mtu", "address": "link/ether"}[what]) + 1]
    assert await container.sh(f"cat /sys/class/net/eth0/{what}") == expected
    await container.remove()


@ON_BOTH
async def test_a_pod_reaches_the_node(pods: Pods) -> None:
    async with pods.run() as pod, server(b"hello from the node\n") as port:
        assert (await pod.outcome("ping", "-c", "1", "-W", "5", GATEWAY)).code == 0
        assert (await pod.outcome("nc", GATEWAY, str(port))).stdout == b"hello from the node\n"


@ON_BOTH
async def test_the_node_reaches_a_pod(pods: Pods) -> None:
    async with pods.run() as pod:
        await pod.run(*ECHO)
        assert await talk(await address(pod), PORT, b"hello to the pod\n") == b"hello to the pod\n"


@ON_BOTH
async def test_one_pod_reaches_another(pods: Pods) -> None:
    async with pods.run(hostname="serving") as serving, pods.run() as asking:
        await serving.run(*WEB)
        container = await asking.run("sleep", "1000")
        assert await fetch(container, await address(serving)) == "serving"


@ON_BOTH
async def test_the_containers_of_a_pod_reach_each_other_by_the_loopback(pods: Pods) -> None:
    async with pods.run(hostname="inside") as pod:
        await pod.run(*WEB)
        container = await pod.run("sleep", "1000")
        assert await fetch(container, "127.0.0.1") == "inside"


async def test_a_port_is_taken_once_in_a_pod(shared_pod: Pod) -> None:
    first = await shared_pod.run("nc", "-l", "-p", "9999")
    await first.sh("until grep -q ':270F ' /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done")
    second = await shared_pod.outcome("nc", "-l", "-p", "9999")
    assert second.code != 0
    await first.remove()


async def test_pods_listen_on_the_same_port(pods: Pods) -> None:
    async with pods.run() as one, pods.run() as two:
        for pod in (one, two):
            await pod.run(*ECHO)
        for pod in (one, two):
            name = pod.config.hostname.encode()
            assert await talk(await address(pod), PORT, name) == name


@ON_BOTH
async def test_a_published_port_of_the_node_is_the_pods(pods: Pods) -> None:
    mapping = cri.PortMapping(protocol=cri.TCP, container_port=PORT, host_port=38080)
    async with pods.run(port_mappings=[mapping]) as pod:
        await pod.run(*ECHO)
        assert await talk(GATEWAY, 38080, b"published\n") == b"published\n"


async def test_a_published_port_is_free_after_its_pod(pods: Pods) -> None:
    mapping = cri.PortMapping(protocol=cri.TCP, container_port=PORT, host_port=38081)
    for _ in range(2):
        async with pods.run(port_mappings=[mapping]) as pod:
            await pod.run(*ECHO)
            assert await talk(GATEWAY, 38081, b"again\n") == b"again\n"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(GATEWAY, 38081)


@ON_BOTH
async def test_much_data_arrives_whole_in_both_directions(pods: Pods) -> None:
    data = os.urandom(8 * MIB)
    async with pods.run() as pod, server(data) as port:
        received = await pod.outcome("sh", "-c", f"nc {GATEWAY} {port} | sha256sum")
        assert received.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
        giver = f"head -c {len(data)} /dev/zero | tr '\\0' k"
        await pod.run("nc", "-l", "-p", str(PORT), "-e", "sh", "-c", giver)
        assert await talk(await address(pod), PORT, b"") == b"k" * len(data)


async def test_datagrams_arrive(shared_pod: Pod) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((GATEWAY, 0))
        receiver.setblocking(False)
        port = receiver.getsockname()[1]
        script = f"syslogd -R {GATEWAY}:{port}; until [ -S /dev/log ]; do :; done; logger by datagram; sleep 1000"
        container = await shared_pod.run("sh", "-c", script)
        got = b""
        while b"by datagram" not in got:
            got = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(receiver, 4096), TIMEOUT)
    await container.remove()


async def test_several_connections_are_open_at_once(pods: Pods) -> None:
    async with pods.run() as pod:
        await pod.run(*ECHO)
        ip = await address(pod)
        await talk(ip, PORT, b"warm")
        opened = [await asyncio.open_connection(ip, PORT) for _ in range(10)]
        for number, (_, writer) in enumerate(opened):
            writer.write(f"number {number}\n".encode())
        lines = [await asyncio.wait_for(reader.readline(), TIMEOUT) for reader, _ in opened]
        assert lines == [f"number {number}\n".encode() for number in range(10)]
        for _, writer in opened:
            writer.close()
            await writer.wait_closed()


async def test_an_address_is_given_back_when_its_pod_stops(pods: Pods, containerd: CriContainerd) -> None:
    store = containerd.directory / "cni" / "addresses" / "kata-py"
    async with pods.run() as pod:
        ip = await address(pod)
        assert (store / ip).exists()
        await pod.stop()
        assert not (store / ip).exists()


async def test_a_pods_namespace_goes_with_it(pods: Pods) -> None:
    async with pods.run() as pod:
        namespaces = (await pod.info())["runtimeSpec"]["linux"]["namespaces"]
        path = Path(next(namespace["path"] for namespace in namespaces if namespace["type"] == "network"))
        assert path.exists()
    assert not path.exists()


async def test_a_container_that_may_configures_the_network_of_its_pod(pods: Pods) -> None:
    async with pods.run() as pod:
        context = cri.LinuxContainerSecurityContext(capabilities=cri.Capability(add_capabilities=["NET_ADMIN"]))
        script = "ip address add 192.0.2.1/32 dev lo"
        linux = cri.LinuxContainerConfig(security_context=context)
        assert (await pod.outcome("sh", "-c", script, linux=linux)).code == 0
        assert "192.0.2.1" in (await pod.outcome("ip", "address")).stdout.decode()
        assert (await pod.outcome("sh", "-c", script.replace("2.1", "2.2"))).code != 0
