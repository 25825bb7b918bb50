"""The namespace driver's machines on a pod's network: real connections through tap devices and the wire between."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from kata_protos import health_pb2
from kata_protos.health_ttrpc import HealthClient
from kata_py.hypervisor.api import Boot, VmSpec
from kata_py.network.model import Model
from kata_py.network.network import open_network
from kata_py.network.nic import Nic
from kata_py.resource.blocking import off_loop
from kata_py.resource.netns import NetworkNamespace
from kata_py.ttrpc.client import connect
from tests.conformance.hypervisor.cases import configuration
from tests.drivers.journal import ListJournal
from tests.drivers.namespace import NamespaceHypervisor
from tests.netns import Pod, join

pytestmark = pytest.mark.root

MODELS = pytest.mark.parametrize("model", [Model.TCFILTER, Model.MACVTAP])
HELLO = b"hello" * 100_000


def set_up(machine: Pod, nic: Nic, name: str, address: str) -> None:
    """What the agent does with an interface."""
    (found,) = [line.split(": ")[1] for line in machine.ip("-o link show").splitlines() if nic.mac in line]
    assert found != name
    machine.ip(f"link set {found} name {name} mtu {nic.mtu}")
    machine.ip(f"addr add {address} dev {name}")
    machine.ip(f"link set {name} up")


async def talk(machine: Pod, world: Pod, address: str) -> None:
    """A connection from the machine to the world, with more in it than any buffer on the way holds."""

    def exchange() -> bytes:
        def dial() -> socket.socket:
            return socket.create_connection((address, 7), timeout=10)

        with closing(NetworkNamespace.at(world.path).run(socket.create_server, (address, 7))) as server:
            server.settimeout(10)
            with NetworkNamespace.at(machine.path).run(dial) as ours, server.accept()[0] as theirs:
                theirs.settimeout(10)
                received, stream = b"", theirs.makefile("rb")
                for start in range(0, len(HELLO), 20_000):
                    ours.sendall(HELLO[start : start + 20_000])
                    received += stream.read(20_000)
                return received

    assert await off_loop(exchange) == HELLO


@MODELS
@pytest.mark.parametrize("queues", [1, 2])
async def test_a_machine_speaks_to_the_world_from_the_start_and_over_what_comes_later(
    inside: Pod, world: Pod, short_tmp: Path, model: Model, queues: int
) -> None:
    journal = ListJournal()
    directory = short_tmp / f"{model.value}{queues}"
    async with open_network(inside.path, model, journal, queues=queues) as network:
        spec = VmSpec("wired", directory, Boot(Path("kernel")), devices=network.nics)
        async with (
            NamespaceHypervisor(configuration("namespace")).launch(spec, journal) as vm,
            connect(vm.agent, timeout=20, retry=0.1) as client,
        ):
            await HealthClient(client).Check(health_pb2.CheckRequest(), timeout=20)
            machine = Pod(vm.pid)
            set_up(machine, network.nics[0], "eth0", "10.0.0.2/24")
            await talk(machine, world, "10.0.0.1")
            join(inside, "eth1", world, "veth1")
            inside.ip("addr add 10.0.1.2/24 dev eth1")
            world.ip("addr add 10.0.1.1/24 dev veth1")
            (late,) = await network.rescan()
            plugged = await vm.attach(late.nic)
            set_up(machine, late.nic, "eth1", "10.0.1.2/24")
            await talk(machine, world, "10.0.1.1")
            await vm.detach(plugged)
            assert machine.links() == {"lo", "eth0"}
    assert journal.entries == []
    assert inside.links() == {"lo", "eth0", "eth1"}
