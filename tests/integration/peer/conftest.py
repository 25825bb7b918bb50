"""Peer pods on one machine: the real shim, the real adaptor, a cloud of namespaces with real forwarders and agents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import registry as registries
from tests.adaptor import Adaptor
from tests.integration.peer.pods import BRIDGE, GATEWAY, Cloud, bridged
from tests.manager import Manager

CONFIGURATION = """\
[hypervisor.remote]
remote_hypervisor_socket = "{socket}"
remote_hypervisor_timeout = 60
enable_annotations = ["cc_init_data"]
[agent.kata]
dial_timeout = 30
[runtime]
enable_debug = true
internetworking_model = "none"
disable_new_netns = true
static_sandbox_resource_mgmt = true
experimental_force_guest_pull = true
"""


@pytest.fixture(scope="session")
def bridges() -> Iterator[None]:
    """The networks of machines and of pods."""
    with bridged():
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry(bridges: None, short_tmp: Path) -> AsyncIterator[registries.Registry]:
    """A registry that machines reach."""
    async with registries.serving(short_tmp / "registry", host=GATEWAY) as registry:
        yield registry


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def image(registry: registries.Registry, rootfs: Path) -> str:
    """A busybox image in it."""
    return await registry.push("lib/busybox:1", registries.layer_of(rootfs))


@pytest.fixture(scope="session")
def cloud(short_tmp: Path) -> Cloud:
    """What the cloud has."""
    return Cloud(short_tmp / "cloud")


def adaptor_over(cloud: Cloud, directory: Path, registry: registries.Registry, *flags: str) -> Adaptor:
    """An adaptor, not started yet.

    Args:
        cloud: Where its machines are.
        directory: For its files.
        registry: Where machines pull from.
        flags: More of its flags.
    """
    told = directory / "registries.conf"
    told.write_text(registry.configuration)
    own = ["-host-interface", BRIDGE, "-log-level", "debug", "-proxy-timeout", "30s", "-redial-timeout", "3s"]
    return Adaptor(
        directory,
        ["namespace", *own, *flags],
        {
            "KATA_TEST_CLOUD_DIR": str(cloud.directory),
            "KATA_TEST_CLOUD_BRIDGE": BRIDGE,
            "KATA_TEST_CLOUD_NETWORK": f"{GATEWAY}/24",
            "KATA_TEST_REGISTRIES": str(told),
            "KATA_AGENT_PAUSE_BUNDLE": str(registries.write_pause_bundle(directory / "pause_bundle")),
            "OWNER": "tests",
            **registries.skopeo_environment(directory),
        },
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def adaptor(registry: registries.Registry, cloud: Cloud, short_tmp: Path) -> AsyncIterator[Adaptor]:
    """The adaptor, over that cloud."""
    adaptor = adaptor_over(cloud, short_tmp, registry)
    await adaptor.start()
    yield adaptor
    await adaptor.end()
    print(adaptor.log.read_text())  # with what failed


@pytest.fixture(scope="session")
def peers(launcher: Path, adaptor: Adaptor, rootfs: Path, short_tmp: Path) -> Manager:
    """A manager of the runtime class kata-remote."""
    path = short_tmp / "remote.toml"
    path.write_text(CONFIGURATION.format(socket=adaptor.socket))
    return Manager(launcher, short_tmp / "peers", path, rootfs)


@pytest_asyncio.fixture(loop_scope="session")
async def nothing_left(adaptor: Adaptor, cloud: Cloud, clean: None) -> AsyncIterator[None]:
    """Afterwards the cloud has no machine, the adaptor no pod, and this node is as it was."""
    yield
    await cloud.gone()
    assert json.dumps(sorted(path.name for path in adaptor.pods.iterdir())) == "[]"
