"""Peer pods for tests: their networks, their specs as CRI-O writes them, and what the cloud has of them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import bundle as bundles
from tests import netns
from tests.manager import Container, Manager
from tests.registry import Registry

BRIDGE, GATEWAY = "kpcloud", "198.18.0.1"  # machines are behind it
PODS = "kppods"  # the bridge of this node's pods
IMAGE_NAME = "io.kubernetes.cri-o.ImageName"
TIMEOUT = 20.0  # seconds
_numbers = itertools.count(2)


@dataclass(frozen=True)
class Network:
    """A pod's network namespace, as a plug-in makes it.

    Attributes:
        namespace: The namespace.
        address: The pod's address.
    """

    namespace: netns.Pod
    address: str


@dataclass(frozen=True)
class Cloud:
    """What the cloud of namespaces has."""

    directory: Path

    @property
    def machines(self) -> list[str]:
        """The names of its machines."""
        return sorted(path.name for path in self.directory.iterdir())

    async def gone(self) -> None:
        """Wait until it has none."""
        async with asyncio.timeout(TIMEOUT):
            while self.machines:  # noqa: ASYNC110 its memory is files
                await asyncio.sleep(0.02)


def ip(words: str) -> None:
    """ip(8)."""
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"


@contextmanager
def bridged() -> Iterator[None]:
    """The networks of machines and of pods."""
    with ExitStack() as stack:
        for name, address in ((BRIDGE, f"{GATEWAY}/24"), (PODS, "10.88.0.1/16")):
            ip(f"link add {name} type bridge")
            stack.callback(ip, f"link delete {name}")
            ip(f"addr add {address} dev {name}")
            ip(f"link set {name} up")
        yield


@contextmanager
def network() -> Iterator[Network]:
    """The network of one pod."""
    number = next(_numbers)
    link, address = f"kpp{number}", f"10.88.0.{number}"
    with netns.pod() as pod:
        ip(f"link add {link} type veth peer name eth0 netns {pod.pid}")
        try:
            ip(f"link set {link} master {PODS} up")
            pod.ip(f"addr add {address}/16 dev eth0")
            pod.ip("link set eth0 up")
            pod.ip("route add default via 10.88.0.1")
            yield Network(pod, address)
        finally:
            ip(f"link delete {link}")


def spec(id: str, *args: str, pod: str = "", path: Path | None = None, image: str = "") -> dict[str, Any]:
    """What CRI-O writes for a container of a pod, or without a pod's id for the pod's first."""
    content = bundles.spec(id, "rootfs", bundles.process(args or ["/never/on/the/host"]))
    content["annotations"] = {
        "io.kubernetes.cri-o.SandboxName": f"k8s_{pod or id}_tests_uid_0",
        "io.kubernetes.cri-o.Namespace": "tests",
        **({IMAGE_NAME: image} if image else {}),
    }
    for namespace in content["linux"]["namespaces"]:
        if namespace["type"] == "network" and path is not None:
            namespace["path"] = str(path)
    return bundles.in_pod(content, pod or id, sandbox=not pod)


@asynccontextmanager
async def running(manager: Manager, content: dict[str, Any], id: str, **options: Any) -> AsyncIterator[Container]:
    """A container that runs."""
    async with manager.container(id, spec=content, create=False, **options) as container:
        container.pid = await container.create()
        await container.start()
        yield container


@asynccontextmanager
async def pod(manager: Manager, id: str, network: Network) -> AsyncIterator[Container]:
    """A peer pod that runs, without containers yet."""
    async with running(manager, spec(id, path=network.namespace.path), id) as first:
        yield first


@asynccontextmanager
async def container(
    manager: Manager, pod: str, id: str, image: str, *args: str, **options: Any
) -> AsyncIterator[Container]:
    """A container in it."""
    async with running(manager, spec(id, *args, pod=pod, image=image), id, **options) as app:
        yield app


@asynccontextmanager
async def living(
    manager: Manager, network: Network, other: Network, image: str, machine: str
) -> AsyncIterator[Container]:
    """A container of a peer pod that was seen to run in a machine, and to reach others and be reached.

    Args:
        manager: Of the runtime class kata-remote.
        network: The pod's.
        other: Another pod's of this node.
        image: What the machine pulls; with busybox.
        machine: What uname says of it.
    """
    async with (
        pod(manager, "peer", network),
        container(manager, "peer", "app", image, "sh", "-c", "echo started; exec sleep 1000") as app,
    ):
        await app.io.until(b"started\n")
        _, said = await app.run("uname", "-rm")
        kernel, there = said.decode().split()
        assert there == machine
        assert kernel != os.uname().release
        code, said = await app.run("ping", "-c", "2", "-W", "5", other.address, timeout=60)
        assert code == 0, said
        other.namespace.run("ping", "-c", "2", "-W", "5", network.address)
        yield app


def initdata(registry: Registry) -> str:
    """What lets machines trust the registry, as an operator gives it: the hub's configuration, in initdata."""
    certificate = json.dumps((registry.directory / "certificate").read_text())
    hub = f"[image]\nextra_root_certificates = [{certificate}]\n"
    text = f'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"cdh.toml" = \'\'\'\n{hub}\'\'\'\n"aa.toml" = ""\n'
    return base64.b64encode(gzip.compress(text.encode())).decode()
