"""The demo's pod: two containers, a network, a configuration map and an exec, asked for as a kubelet asks.

Two containers of one pod share a machine: they meet over its loopback, and its host name.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import table
from tests.cri import client
from tests.cri.pods import Container, Pod, Pods
from tests.cri.proto import cri_pb2 as cri
from tools.cri import CriContainerd
from tools.steps import expect, show, step

HANDLER = "kata"
PAGE = "hello from a configuration map"


def tour(containerd: CriContainerd, scratch: Path) -> None:
    """Run the pod; each step checks what it shows.

    Args:
        containerd: The node's manager.
        scratch: A directory for the pod's logs and its volume.

    Raises:
        DemoError: A step did not do what it should.
        CriError: The manager refused.
    """
    asyncio.run(_tour(containerd, scratch))


async def _tour(containerd: CriContainerd, scratch: Path) -> None:
    volume = scratch / "config-map"
    _write(volume, 1, PAGE)
    async with client.connected(containerd.address) as manager:
        await client.serving(manager)
        pods = Pods(manager, HANDLER, scratch / "logs")
        step("a pod of two containers, through the CRI, as Kubernetes asks for it")
        async with pods.run("demo-pod") as pod:
            await _pod(pod, volume, containerd)


async def _pod(pod: Pod, volume: Path, containerd: CriContainerd) -> None:
    address = (await pod.status()).network.ip
    show(f"pod {pod.id[:12]} runs in a machine of its own and has the address {address}")
    mounts = [cri.Mount(container_path="/www", host_path=str(volume), readonly=True)]
    await pod.run("httpd", "-f", "-p", "80", "-h", "/www", name="server", mounts=mounts)
    visitor = await pod.run("sleep", "1000", name="visitor")
    for name, state in sorted((await pod.containers()).items()):
        show(f"container {name:<8} {cri.ContainerState.Name(state)}")

    step("the containers meet over the pod's loopback; the page is in a volume")
    expect(await _fetched(visitor, "127.0.0.1") == PAGE, "the page is another")

    step("the node reaches the pod over its network")
    page = await asyncio.to_thread(containerd.fetch, address)
    show(page)
    expect(page == PAGE, "the page is another")

    step("the configuration map changes, and the pod sees it")
    _write(volume, 2, PAGE.upper())
    async with asyncio.timeout(10):
        while await _fetched(visitor, "127.0.0.1", quiet=True) != PAGE.upper():
            pass
    show(PAGE.upper())

    step("an exec: host name and kernel are the machine's")
    await _said(visitor, "hostname; uname -sr; ip -4 -o address show eth0")

    step("where the pod's time went")
    print(table(Record.load(pod.id).timeline))


def _write(volume: Path, generation: int, page: str) -> None:
    """Swap the volume's content, as a kubelet does. Source: kubernetes `pkg/volume/util/atomic_writer.go`."""
    current = volume / f"..{generation}"
    current.mkdir(parents=True)
    (current / "index.html").write_text(page)
    fresh = volume / "..data_tmp"
    fresh.symlink_to(current.name)
    fresh.rename(volume / "..data")
    page_link = volume / "index.html"
    if not page_link.is_symlink():
        page_link.symlink_to("..data/index.html")


async def _fetched(container: Container, address: str, *, quiet: bool = False) -> str:
    return await _said(container, f"until wget -qO- http://{address}/; do :; done", quiet=quiet)


async def _said(container: Container, script: str, *, quiet: bool = False) -> str:
    if not quiet:
        show(f"$ {script}")
    outcome = await container.exec("sh", "-c", script)
    expect(outcome.code == 0, f"{script} ended with {outcome.code}: {outcome.stderr.decode(errors='replace')}")
    said = outcome.stdout.decode().rstrip("\n")
    if not quiet:
        show(said)
    return said
