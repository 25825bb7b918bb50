"""A pod's real links, told to a fake guest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kata_py.hypervisor.api import Nic
from kata_py.ttrpc.errors import StatusError
from tests import bundle
from tests.fakes import FakeAgent, FakeHypervisor
from tests.netns import Pod, pod
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


@pytest.fixture
def inside() -> Iterator[Pod]:
    """A pod's namespace with eth0."""
    with pod() as made:
        connect(made, "eth0", "10.0.0.2/24")
        yield made


def connect(inside: Pod, name: str, address: str) -> None:
    inside.ip(f"link add {name} type veth peer name {name}-peer")
    inside.ip(f"addr add {address} dev {name}")
    inside.ip(f"link set {name} up")


def in_namespace(path: object) -> dict[str, Any]:
    spec = bundle.spec("c1", "rootfs", bundle.process(["true"]))
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = str(path)
    return spec


async def test_links_are_devices_of_the_machine_and_told_before_the_sandbox_is_made(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor, inside: Pod
) -> None:
    await tasks.create(spec=in_namespace(inside.path))
    [nic] = [device for device in hypervisor.specs[-1].devices if isinstance(device, Nic)]
    [told] = agent.interfaces
    assert (told.name, told.hwAddr) == ("eth0", nic.mac)
    assert told.IPAddresses[0].address == "10.0.0.2"
    calls = [call for call in agent.calls if call in ("UpdateInterface", "CreateSandbox", "CreateContainer")]
    assert calls == ["UpdateInterface", "CreateSandbox", "CreateContainer"]
    await tasks.delete()
    assert inside.links() == {"lo", "eth0", "eth0-peer"}
    assert tasks.leftovers() == []


async def test_a_link_that_the_guest_does_not_have_yet_is_told_again(
    tasks: Tasks, agent: FakeAgent, inside: Pod
) -> None:
    agent.missing_links = 3
    await tasks.create(spec=in_namespace(inside.path))
    assert len(agent.interfaces) == 1


async def test_a_link_that_the_guest_never_has_fails_the_creation(tasks: Tasks, agent: FakeAgent, inside: Pod) -> None:
    agent.missing_links = 10_000
    with pytest.raises(StatusError, match=r"sandbox failed after .*Link not found"):
        await tasks.create(spec=in_namespace(inside.path))
    assert inside.links() == {"lo", "eth0", "eth0-peer"}
    assert tasks.leftovers() == []


async def test_a_link_that_appears_later_is_plugged_in_and_told(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor, inside: Pod
) -> None:
    await tasks.create(spec=in_namespace(inside.path))
    connect(inside, "net1", "10.1.0.2/24")
    await until(lambda: [each.name for each in agent.interfaces][-1] == "net1")
    [plugged] = hypervisor.vm.attached
    assert isinstance(plugged, Nic)
    assert agent.interfaces[-1].devicePath == "01/00"


async def test_a_sandbox_outlives_its_network_namespace(tasks: Tasks, agent: FakeAgent, inside: Pod) -> None:
    await tasks.create(spec=in_namespace(inside.path))
    inside.end()
    await tasks.start()
    agent.process("c1").exit(3)
    assert (await tasks.wait()).exit_status == 3
    await tasks.delete()
    assert tasks.leftovers() == []


async def test_the_hosts_network_is_refused_by_the_fields_name(tasks: Tasks) -> None:
    with pytest.raises(StatusError, match="hostNetwork: true needs another runtime class"):
        await tasks.create(spec=in_namespace("/proc/self/ns/net"))


async def test_a_namespace_that_is_not_there_is_named(tasks: Tasks) -> None:
    with pytest.raises(StatusError, match=r"network failed after .*no network namespace at /run/netns/nowhere"):
        await tasks.create(spec=in_namespace("/run/netns/nowhere"))
    assert tasks.leftovers() == []
