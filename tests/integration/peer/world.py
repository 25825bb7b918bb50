"""A node with an adaptor over a cloud in which things go wrong (`tests.drivers.file_cloud`).

The runtime's driver and the adaptor are the real ones, the tunnels too; the cloud's machines are records, and one agent
here answers for all.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kata_caa.pool.machine import MachineRecords, Phase
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG
from kata_caa.record import PodRecords, State
from kata_protos.health_pb2 import CheckRequest
from kata_protos.health_ttrpc import HealthClient
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor.api import Boot, HypervisorError, VmSpec
from kata_py.hypervisor.remote import RemoteHypervisor
from kata_py.ttrpc.address import Address
from kata_py.ttrpc.client import connect
from tests.adaptor import Adaptor
from tests.agents import agents
from tests.drivers.faults import ENVIRONMENT, Faults, Point
from tests.drivers.file_cloud import FileStore
from tests.drivers.journal import ListJournal
from tests.functional.caa.cloud import state
from tests.integration.peer.pods import BRIDGE, Network, ip, network

PROGRAM = "import sys; from tests.drivers.faulty_adaptor import main; sys.exit(main())"
MACHINES = "192.0.2.0/24"  # all of it is this host
BOUND = 10.0  # seconds until all is as it should
BYSTANDER = "bystander"


class Plan(Protocol):
    """What goes wrong; as `tests.drivers.faults.Faults` has it."""

    def plan(self, point: Point | None) -> None: ...

    def pending(self) -> bool: ...

    def seen(self) -> list[tuple[str, int]]: ...


class Store(Protocol):
    """What a cloud has."""

    def ids(self) -> Sequence[str]:
        """All objects."""

    def sandboxes(self, tag: str) -> Sequence[str]:
        """Whose they are, by a tag."""


def swept(place: str) -> bool:
    """Whether a point is one of sweeps, which come at any time."""
    return place == "owned" or place.endswith(OWNER_TAG)


@dataclass
class World:
    """A node with one adaptor, and its cloud.

    Attributes:
        adaptor: The adaptor.
        faults: What goes wrong.
        store: What the cloud has.
        net: The network of the pod that comes and goes.
        pool: How many machines wait for a pod.
        size: How many objects a machine is.
        sweep: A point that each sweep passes.
        tokenless: Points that make an object more when they are passed twice, which goes with its machine.
        fresh: What the node and that network are without it.
        bystander: Where the agent of the pod that lives on is reached.
    """

    adaptor: Adaptor
    faults: Plan
    store: Store
    net: Network
    pool: int = 0
    size: int = 2
    sweep: str = "owned"
    tokenless: tuple[str, ...] = ()
    fresh: str = ""
    bystander: Address | None = None

    def spec(self, id: str, net: Network) -> VmSpec:
        """A pod's machine, as the runtime wants it."""
        annotations = {
            "io.kubernetes.cri.sandbox-name": id,
            "io.kubernetes.cri.sandbox-namespace": "tests",
        }
        return VmSpec(
            id, Path("/nowhere"), Boot(Path("kernel")), annotations=annotations, network_namespace=net.namespace.path
        )

    @property
    def driver(self) -> RemoteHypervisor:
        """The runtime's."""
        config = HypervisorConfig("remote", remote_hypervisor_socket=self.adaptor.socket, remote_hypervisor_timeout=15)
        return RemoteHypervisor(Configuration(config, Path("/nowhere")))

    def wrong(self, *live: str, more: int = 0) -> list[str]:
        """What does not go with the sandboxes that live; objects may be so many more."""
        records, machines = PodRecords(self.adaptor.pods), MachineRecords(self.adaptor.socket.parent / "pool")
        known = [records.load(id) for id in records.ids()]
        kept = [machines.load(id) for id in machines.ids()]
        found = []
        owners = [each.machine or each.sandbox_id for each in known if each] + [each.id for each in kept if each]
        if (in_cloud := self.store.sandboxes(SANDBOX_TAG)) != sorted(owners):
            found.append(f"the cloud has objects of {in_cloud}")
        if [each and each.phase for each in kept] != [Phase.WAITING] * self.pool:
            found.append(f"in the pool are {kept}")
        ids = self.store.ids()
        if len(ids) != self.size * (len(live) + self.pool) + more:
            found.append(f"the cloud has {ids}")
        if lost := [each.instance_id for each in known if each and each.instance_id and each.instance_id not in ids]:
            found.append(f"the cloud has no more {lost}")
        if [each and (each.sandbox_id, each.state) for each in known] != [(id, State.RUNNING) for id in sorted(live)]:
            found.append(f"on record are {known}")
        return found

    async def settled(self, *live: str, more: int = 0) -> list[str]:
        """Wait until what there is goes with the sandboxes that live; what does not in the end."""
        try:
            async with asyncio.timeout(BOUND):
                while self.wrong(*live, more=more):  # noqa: ASYNC110 files have no event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return self.wrong(*live, more=more)
        return []

    async def life(self, id: str, point: Point | None = None) -> tuple[str, list[str]]:
        """Have a pod live, and start the adaptor anew when it dies; how it went, and what was wrong."""
        alive = asyncio.Event()
        reviving = asyncio.create_task(self._revive(alive), name="revival of the adaptor")
        journal, wrong = ListJournal(), []
        more = int(point is not None and point.what == "twice" and point.place in self.tokenless)
        try:
            async with asyncio.timeout(4 * BOUND):
                try:
                    async with self.driver.launch(self.spec(id, self.net), journal):
                        outcome = "ran"
                        wrong += await self.settled(BYSTANDER, id, more=more)
                except HypervisorError as error:
                    outcome = f"was refused: {error}"
                while point is not None and swept(point.place) and self.faults.pending():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)  # a sweep has its turn
                if point is not None and point.what == "kill":
                    await alive.wait()
                wrong += await self.settled(BYSTANDER)
        finally:
            reviving.cancel()
            await asyncio.wait([reviving])
            if not reviving.cancelled():
                reviving.result()
        if journal.entries:
            wrong.append(f"the runtime still has {journal.entries}")
        wrong += await self._left()
        return outcome, wrong

    async def calm(self) -> None:
        """Have two more sweeps; nothing has changed afterwards, and the agent of the pod that lives on answers."""
        self.faults.plan(None)
        async with asyncio.timeout(BOUND):
            while (self.sweep, 3) not in self.faults.seen():  # noqa: ASYNC110 files have no event
                await asyncio.sleep(0.02)
        assert self.wrong(BYSTANDER) == []
        assert self.bystander is not None
        async with connect(self.bystander, timeout=BOUND) as client:
            await HealthClient(client).Check(CheckRequest(), timeout=BOUND)

    async def _left(self) -> list[str]:
        now = await asyncio.to_thread(state, self.net.namespace)
        children = Path(f"/proc/{self.adaptor.pid}/task/{self.adaptor.pid}/children").read_text()
        changed = [line for line in difflib.ndiff(self.fresh.splitlines(), now.splitlines()) if line[0] in "+-"]
        return [*changed, *([f"processes {children}"] if children else [])]

    async def _revive(self, alive: asyncio.Event) -> None:
        while True:
            await self.adaptor.ended()
            await self.adaptor.start()
            alive.set()


@asynccontextmanager
async def worlds(top: Path, *, pool: int = 0, tls: bool = False) -> AsyncIterator[World]:
    """A world with a bystander in it, whose cloud is files.

    Args:
        top: For its files; of a short path.
        pool: How many machines shall wait for a pod.
        tls: Whether agents are reached by TLS.
    """
    for each in ("cloud", "faults"):
        (top / each).mkdir(parents=True)
    faults, store = Faults(top / "faults"), FileStore(directory=top / "cloud")
    environ = {"KATA_TEST_CLOUD_DIR": str(store.directory), ENVIRONMENT: str(faults.directory)}
    flags = ["-warm-pool", f"default={pool}"] if pool else []
    arguments = ["file", "-log-level", "debug", *flags]
    async with inhabited(top, arguments, environ, MACHINES, faults, store, tls=tls) as world:
        world.pool = pool
        await settle(world)
        yield world


@asynccontextmanager
async def inhabited(
    top: Path,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    machines: str,
    faults: Plan,
    store: Store,
    *,
    tls: bool = False,
) -> AsyncIterator[World]:
    """A world with a bystander in it, which is about to be.

    Args:
        top: For its files; of a short path.
        arguments: The provider, and flags of its own.
        environ: Added to the adaptor's environment.
        machines: The network that machines are reached in; all of it becomes this host.
        faults: What goes wrong.
        store: What the cloud has.
        tls: Whether machines are spoken to by TLS.
    """
    async with AsyncExitStack() as stack:
        ip(f"route add local {machines} dev lo")
        stack.callback(ip, f"route del local {machines} dev lo")
        port = await stack.enter_async_context(agents(top / "tls" if tls else None))
        flags = [
            "-host-interface", BRIDGE, "-forwarder-port", str(port), "-proxy-timeout", "5s",
            "-sweep-interval", "200ms", "-owner", "tests", *([] if tls else ["-disable-tls"]),
        ]  # fmt: skip
        adaptor = Adaptor(top, [*arguments, *flags], environ, PROGRAM)
        await adaptor.start()
        stack.push_async_callback(adaptor.end)
        stack.callback(lambda: print(adaptor.log.read_text()[-20000:]))
        other = stack.enter_context(network())
        world = World(adaptor, faults, store, stack.enter_context(network()))
        stack.push_async_callback(world.settled)
        vm = await stack.enter_async_context(world.driver.launch(world.spec(BYSTANDER, other), ListJournal()))
        world.bystander = vm.agent
        yield world


async def settle(world: World) -> None:
    """Wait until the bystander is all that there is, and remember the node as it is then."""
    assert await world.settled(BYSTANDER) == []
    world.fresh = state(world.net.namespace)


async def points(world: World) -> list[tuple[str, int]]:
    """All that a pod's life passes, in order; of sweeps one."""
    world.faults.plan(None)
    assert await world.life("first") == ("ran", [])
    return list(dict.fromkeys((place, 1 if swept(place) else number) for place, number in world.faults.seen()))


async def tried(world: World, planned: Sequence[Point]) -> None:
    """Have a pod live through each, and tell of it."""
    bad = []
    for number, point in enumerate(planned):
        world.faults.plan(point)
        began = time.monotonic()
        outcome, wrong = await world.life(f"victim-{number}", point)
        if world.faults.pending():
            wrong.append("it never happened")
        print(f"{point!s:45} {time.monotonic() - began:5.2f} s  {outcome}")
        for each in wrong:
            print(f"    {each}")
        if wrong:
            bad.append((str(point), wrong))
    print(f"{len(planned)} points")
    assert bad == []
    await world.calm()
