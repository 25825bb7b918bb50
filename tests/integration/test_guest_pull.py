"""Pods whose images are pulled in the guest, from manager to registry; nothing of them is on the host."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kata_protos.mount_pb2 import Mount
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle as bundles
from tests import registry as registries
from tests.integration.conftest import ON_NAMESPACES
from tests.manager import Container, Manager
from tests.registry import Entry, layer
from tools import configuration

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean"), ON_NAMESPACES]

IMAGE_NAME = "io.kubernetes.cri-o.ImageName"


@pytest.fixture
def pulling(manager: Manager, driver: str, short_tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """The manager of guests that share nothing with the host, and know their pause."""
    pause = registries.write_pause_bundle(short_tmp / "pause_bundle")
    monkeypatch.setenv("KATA_AGENT_PAUSE_BUNDLE", str(pause))
    for name, value in registries.skopeo_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return manager.using(config=written(short_tmp / f"{driver}-pull.toml", driver))


def written(path: Path, driver: str, runtime: str = "") -> Path:
    configuration.write(path, None, program="the tests", hypervisor=driver, extra='shared_fs = "none"\n')
    with path.open("a") as file:
        file.write(runtime)
    return path


@asynccontextmanager
async def created(
    manager: Manager, id: str, *args: str, pod: str = "", annotations: Mapping[str, str] | None = None,
    rootfs: list[Mount] | None = None,
) -> AsyncIterator[Container]:  # fmt: skip
    """A container of a pod that runs, or without a pod's id the pod's first; there is no root on the host."""
    spec: dict[str, Any] = bundles.spec(id, "rootfs", bundles.process(args or ["/never/on/the/host"]))
    spec["annotations"] = dict(annotations or {})
    async with manager.container(id, spec=bundles.in_pod(spec, pod or id, sandbox=not pod), create=False) as container:
        container.pid = await container.create(rootfs=rootfs or [])
        await container.start()
        yield container


@asynccontextmanager
async def registry_of(
    pod: Container, directory: Path, *, encrypted: bool = False, expired: bool = False
) -> AsyncIterator[registries.Registry]:
    """A registry in the pod's network, which the guest may ask without TLS, or whose certificate it is given."""
    children = Path(f"/proc/{pod.pid}/task/{pod.pid}/children").read_text().split()
    guest = Path(f"/proc/{children[0]}")
    netns = guest / "ns/net"
    async with registries.serving(directory, netns=netns, encrypted=encrypted, expired=expired) as registry:
        told = guest / "root/run/peerpod"
        (told / "certs").mkdir(parents=True)
        if encrypted:
            (told / "certs" / "registry.crt").write_bytes((directory / "certificate").read_bytes())
        else:
            (told / "registries.conf").write_text(registry.configuration)
        yield registry


def volume(image: str, kind: str = "image_guest_pull") -> list[Mount]:
    """The mount that CRI-O gives with `runtime_pull_image`."""
    content = {"volume_type": kind, "source": image, "fs_type": "overlay_fs", "image_pull": {"metadata": {}}}
    option = "io.katacontainers.volume=" + base64.b64encode(json.dumps(content).encode()).decode()
    return [Mount(type="fuse.nydus-overlayfs", source="overlay", options=[option])]


async def test_a_pod_runs_whose_images_the_snapshotter_leaves_to_the_guest(
    pulling: Manager, rootfs: Path, tmp_path: Path
) -> None:
    async with created(pulling, "pod", rootfs=volume("pause")) as pod, registry_of(pod, tmp_path / "r") as registry:
        image = await registry.push("lib/app:1", registries.layer_of(rootfs), layer({"which": Entry(b"pulled\n")}))
        async with created(
            pulling, "app", "sleep", "1000", pod="pod", annotations={IMAGE_NAME: image}, rootfs=volume(image)
        ) as app:
            assert await app.run("cat", "/which") == (0, b"pulled\n")


async def test_a_pod_runs_whose_images_are_pulled_whatever_the_manager_gives(
    pulling: Manager, driver: str, rootfs: Path, short_tmp: Path, tmp_path: Path
) -> None:
    forced = written(short_tmp / f"{driver}-forced.toml", driver, "experimental_force_guest_pull = true\n")
    manager = pulling.using(config=forced)
    ignored = [Mount(type="bind", source="/no/such/place", options=["rbind"])]
    async with created(manager, "pod", rootfs=ignored) as pod, registry_of(pod, tmp_path / "r") as registry:
        image = await registry.push("lib/app:1", registries.layer_of(rootfs), layer({"which": Entry(b"pulled\n")}))
        async with created(manager, "app", "sleep", "1000", pod="pod", annotations={IMAGE_NAME: image}) as app:
            assert await app.run("cat", "/which") == (0, b"pulled\n")

        with pytest.raises(StatusError, match=f"annotation {IMAGE_NAME} is missing") as caught:
            async with created(manager, "nameless", pod="pod"):
                pass
        assert caught.value.code is Code.INVALID_ARGUMENT
        with pytest.raises(StatusError, match=f"image {image}0: the registry has no such image"):
            async with created(manager, "missing", pod="pod", annotations={IMAGE_NAME: f"{image}0"}):
                pass
