"""Machines that wait for pods: kept as many as shall be, taken, and lost by no restart. Their forwarders are real."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kata_caa import apf, deletion, userdata
from kata_caa.apf import ForwarderConfig
from kata_caa.credentials import Issued
from kata_caa.dialing import Endpoint
from kata_caa.errors import Fault, InvalidRequest, ProviderError
from kata_caa.faults import RetryPolicy
from kata_caa.forwarder import binding
from kata_caa.forwarder.service import listening
from kata_caa.pool import pool as pools
from kata_caa.pool.machine import Machine, MachineRecords, Phase
from kata_caa.pool.parts import PoolParts
from kata_caa.pool.pool import Pool
from kata_caa.pool.wish import Budget, Wish
from kata_caa.providers.api import Finding, Instance, InstanceRequest, InstanceSpec, Owned, Target
from kata_caa.turns import Turns
from kata_caa.userdata import APF, SCRATCH_MARKER, File, render
from kata_py.ttrpc.server import Server

BOUND = 10.0  # seconds that anything here may take
SMALL, LARGE = InstanceSpec("small"), InstanceSpec("large")
OF_POD = ForwarderConfig(pod_name="web", pod_namespace="shop")
USER_DATA = render([File(APF, apf.dump(OF_POD))])


@dataclass
class Running:
    """A machine in the cloud."""

    request: InstanceRequest
    port: int
    stop: asyncio.Event
    bound: asyncio.Task[ForwarderConfig | None]

    def end(self) -> None:
        self.stop.set()


@dataclass
class Cloud:
    """A cloud whose machines are forwarders here; it resolves wishes for nothing to the small type."""

    top: Path
    image: str = "image-1"
    machines: dict[str, Running] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    failures: list[ProviderError] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    most: int = 0  # machines that were being made at a time
    _making: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def resolve(self, spec: InstanceSpec) -> InstanceSpec:
        if spec.vcpus > 64:
            raise ProviderError(Fault.FATAL, "nothing is that large")
        return InstanceSpec(spec.instance_type or "small", image=spec.image or self.image)

    async def create(self, request: InstanceRequest) -> Instance:
        self.created.append(request.spec.instance_type or "small")
        self._making += 1
        self.most = max(self.most, self._making)
        try:
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self._making -= 1
        root, stop = self.top / request.target.name, asyncio.Event()
        listener = listening("127.0.0.1", 0)

        async def run() -> ForwarderConfig | None:
            with listener:
                return await binding.wait(listener, None, stop, root=root)

        port = listener.getsockname()[1]
        self.machines[request.target.sandbox_id] = Running(request, port, stop, asyncio.create_task(run()))
        return Instance(f"i-{request.target.sandbox_id}", ("127.0.0.1",), request.spec.instance_type or "small")

    async def delete(self, target: Target) -> None:
        if machine := self.machines.pop(target.sandbox_id, None):
            machine.end()

    async def owned(self, owner: str) -> Sequence[Owned]:
        return []

    async def check(self) -> Sequence[Finding]:
        return []


class Credentials:
    def issue(self, name: str) -> Issued:
        return Issued("material", ForwarderConfig(tls_server_key=f"key of {name}"))


@dataclass
class Times:
    told: list[tuple[str, str]] = field(default_factory=list)

    async def waits(self, machine: Machine) -> None:
        self.told.append(("waits", machine.id))

    async def waited(self, machine: Machine) -> None:
        self.told.append(("waited", machine.id))


class Node:
    """A node: what survives an adaptor, and the pool of the moment."""

    def __init__(self, top: Path) -> None:
        self.cloud = Cloud(top / "machines")
        self.records = MachineRecords(top / "pool")
        self.times = Times()
        self.turns = Turns(8)
        self.settings = "1"

    async def endpoint(self, machine: Machine) -> Endpoint:
        running = self.cloud.machines.get(machine.id)
        return Endpoint("127.0.0.1", running.port if running else 1, machine.name, None)

    @asynccontextmanager
    async def pool(
        self,
        *wishes: Wish,
        budget: Budget | None = None,
        claimed: Sequence[str] = (),
        is_whole: bool = True,
        scratch: bool = False,
    ) -> AsyncIterator[Pool]:
        parts = PoolParts(
            provider=self.cloud,
            records=self.records,
            credentials=Credentials(),
            endpoint=self.endpoint,
            turns=self.turns,
            tags=lambda machine: (("sandbox", machine.id),),
            observer=self.times,
            timeout=1.0,
            settings=self.settings,
            scratch=scratch,
            calls=RetryPolicy(backoffs={}),
        )
        pool = Pool(parts, wishes, budget or Budget())
        await pool.restore(claimed, is_whole=is_whole)
        pool.begin()
        try:
            yield pool
        finally:
            await pool.aclose()

    @property
    def on_record(self) -> list[Machine]:
        return [machine for id in self.records.ids() if (machine := self.records.load(id)) is not None]

    def end(self) -> None:
        for machine in self.cloud.machines.values():
            machine.end()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "PAUSE", 0.01)
    monkeypatch.setattr(pools, "PAUSE", 0.01)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not true():  # noqa: ASYNC110 several tasks and threads do their part
            await asyncio.sleep(0.005)


def wish(spec: InstanceSpec = InstanceSpec(), count: int = 1) -> Wish:
    return Wish(spec.instance_type or "default", spec, count)


def phases(node: Node) -> list[Phase]:
    return [machine.phase for machine in node.on_record]


async def test_as_many_machines_wait_as_shall(node: Node):
    async with node.pool(wish(count=2), wish(LARGE)) as pool:
        await until(lambda: len(pool.waiting) == 3)
        assert sorted(node.cloud.created) == ["large", "small", "small"]
        assert phases(node) == [Phase.WAITING] * 3
        request = next(iter(node.cloud.machines.values())).request
        assert request.tags == (("sandbox", request.target.sandbox_id),)
        (file,) = userdata.parse(request.user_data)
        config = apf.load(file.content)
        assert config == ForwarderConfig(tls_server_key=f"key of {request.target.name}", unbound=True)


async def test_a_machine_is_told_of_its_scratch_space_when_it_boots(node: Node):
    async with node.pool(wish(), scratch=True) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (machine,) = node.cloud.machines.values()
        _, marker = userdata.parse(machine.request.user_data)
        assert marker == File(SCRATCH_MARKER, "")


async def test_a_machine_that_has_no_scratch_space_is_deleted_if_a_pod_that_wants_one_comes_to_it(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        async with pool.taken(SMALL, render([File(APF, apf.dump(OF_POD)), File(SCRATCH_MARKER, "")])) as machine:
            assert machine is None
        await until(lambda: node.cloud.machines == {} and node.on_record == [])


async def test_a_machine_is_on_record_before_the_cloud_is_asked(node: Node):
    node.cloud.gate.clear()
    async with node.pool(wish()):
        await until(lambda: node.cloud.created != [])
        assert phases(node) == [Phase.MAKING]


async def test_a_pod_of_its_kind_gets_a_machine_that_knows_of_it_and_another_takes_its_place(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        async with pool.taken(SMALL, USER_DATA) as machine:  # what a pod that asks for nothing gets
            assert machine is not None
            assert phases(node) == [Phase.BINDING]
            assert await node.cloud.machines[machine.id].bound == OF_POD
        await until(lambda: node.on_record == [])
        assert machine.id in node.cloud.machines  # it is the pod's
        assert node.times.told == [("waits", machine.id), ("waited", machine.id)]
        assert len(node.cloud.created) == 1  # until the pod runs
        pool.refill()
        await until(lambda: len(pool.waiting) == 1)


async def test_a_pod_of_another_kind_gets_none(node: Node, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        for spec in (LARGE, InstanceSpec(image="image-2"), InstanceSpec(vcpus=99)):
            async with pool.taken(spec, USER_DATA) as machine:
                assert machine is None
        assert len(pool.waiting) == 1
    assert "no machine of the pool is of kind large@image-1; there is: small@image-1" in caplog.text


async def test_two_pods_at_once_get_two_machines_or_one_of_them_none(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        async with pool.taken(SMALL, USER_DATA) as one, pool.taken(SMALL, USER_DATA) as two:
            assert one is not None
            assert two is None


async def test_of_two_that_wait_the_first_is_taken(node: Node):
    async with node.pool(wish(count=2)) as pool:
        await until(lambda: len(pool.waiting) == 2)
        first, _ = pool.waiting
        async with pool.taken(SMALL, USER_DATA) as machine:
            assert machine is not None
            assert machine.id == first.id


async def test_a_machine_of_a_pod_that_fails_meanwhile_is_deleted(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        with pytest.raises(ZeroDivisionError):
            async with pool.taken(SMALL, USER_DATA):
                raise ZeroDivisionError
        await until(lambda: node.cloud.machines == {} and node.on_record == [])


async def test_a_machine_that_does_not_answer_is_deleted_and_the_next_is_taken(node: Node):
    async with node.pool(wish(count=2)) as pool:
        await until(lambda: len(pool.waiting) == 2)
        first, second = pool.waiting
        node.cloud.machines[first.id].end()
        await node.cloud.machines[first.id].bound
        async with pool.taken(SMALL, USER_DATA) as machine:
            assert machine is not None
            assert machine.id == second.id
        await until(lambda: first.id not in node.cloud.machines)
        assert second.id in node.cloud.machines


async def test_user_data_that_no_machine_takes_costs_one_and_no_more(node: Node):
    async with node.pool(wish(count=2)) as pool:
        await until(lambda: len(pool.waiting) == 2)
        with pytest.raises(InvalidRequest, match=r"there is no /run/peerpod/apf\.json in it"):
            async with pool.taken(SMALL, render([])):
                pass
        assert len(pool.waiting) == 1


async def test_a_pod_that_is_stopped_while_it_is_bound_leaves_no_machine(node: Node, monkeypatch: pytest.MonkeyPatch):
    reached = asyncio.Event()

    async def hang(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        monkeypatch.setattr("kata_caa.pool.unbound.bind", hang)

        async def take() -> None:
            async with pool.taken(SMALL, USER_DATA):
                raise AssertionError

        task = asyncio.create_task(take())
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: node.cloud.machines == {} and node.on_record == [])


async def test_a_kind_that_cannot_be_made_is_tried_again_and_leaves_nothing(node: Node):
    node.cloud.failures = [ProviderError(Fault.CAPACITY, "nothing left") for _ in range(3)]
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        assert len(node.cloud.created) == 4
        await until(lambda: phases(node) == [Phase.WAITING])


async def test_a_kind_that_cannot_be_made_does_not_hold_up_another(node: Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "PAUSE", 3600.0)
    node.cloud.failures = [ProviderError(Fault.QUOTA, "too many")]
    async with node.pool(wish(), wish(LARGE)) as pool:
        await until(lambda: [each.instance_type for each in pool.waiting] == ["large"])


async def test_a_machine_with_another_forwarder_is_told_and_deleted(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def serve(listener: socket.socket, tls: None, stop: asyncio.Event, *, root: Path) -> None:
        server = Server()
        await server.serve(listener.dup())
        await stop.wait()
        server.close()

    monkeypatch.setattr(pools, "PAUSE", 3600.0)
    monkeypatch.setattr(binding, "wait", serve)
    async with node.pool(wish()):
        await until(lambda: "does not wait for a pod: a warm pool needs an image with" in caplog.text)
        await until(lambda: node.cloud.machines == {} and node.on_record == [])


async def test_a_machine_that_waits_no_more_is_replaced(node: Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "LOOK_INTERVAL", 0.01)
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (first,) = pool.waiting
        node.cloud.machines[first.id].end()
        await until(lambda: len(pool.waiting) == 1 and pool.waiting != (first,))
        await until(lambda: first.id not in node.cloud.machines)


async def test_pods_have_most_of_the_turns(node: Node):
    node.cloud.gate.clear()
    async with node.pool(wish(count=5)) as pool:
        await until(lambda: len(node.cloud.created) == 2)
        async with node.turns.turn():  # a pod's, at once
            pass
        node.cloud.gate.set()
        await until(lambda: len(pool.waiting) == 5)
        assert node.cloud.most == 2


async def test_no_more_machines_wait_than_the_budget_has_money_for(node: Node, caplog: pytest.LogCaptureFixture):
    budget = Budget(0.3, {"small": 0.1, "large": 0.25})
    async with node.pool(wish(LARGE), wish(count=5), budget=budget) as pool:
        await until(lambda: "of default: the budget" in caplog.text)
        await until(lambda: [each.instance_type for each in pool.waiting] == ["large"])
    assert node.cloud.created == ["large"]
    async with node.pool(wish(count=5), budget=budget) as pool:
        await until(lambda: [each.instance_type for each in pool.waiting] == ["small"] * 3)


async def test_a_budget_that_is_less_now_costs_the_machines_of_the_kinds_that_are_named_last(node: Node):
    async with node.pool(wish(LARGE), wish(count=2)) as pool:
        await until(lambda: len(pool.waiting) == 3)
    budget = Budget(0.35, {"small": 0.1, "large": 0.25})
    async with node.pool(wish(LARGE), wish(count=2), budget=budget) as pool:
        await until(lambda: sorted(each.instance_type for each in pool.waiting) == ["large", "small"])
        await until(lambda: len(node.cloud.machines) == 2)
    assert len(node.cloud.created) == 3


async def test_two_wishes_that_lead_to_the_same_kind_have_their_machines_each(node: Node):
    async with node.pool(wish(count=2), wish(SMALL)) as pool:
        await until(lambda: len(pool.waiting) == 3)
        async with pool.taken(SMALL, USER_DATA):
            pass
        pool.refill()
        await until(lambda: len(pool.waiting) == 3)
    assert len(node.cloud.created) == 4


async def test_a_budget_without_a_price_is_told_and_nothing_is_made(node: Node, caplog: pytest.LogCaptureFixture):
    async with node.pool(wish(), budget=Budget(1.0, {})):
        await until(lambda: caplog.text.count("the price of small is not known") == 3)  # it is looked at again
        assert node.cloud.created == []


async def test_machines_outlive_the_adaptor(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        before = pool.waiting
    async with node.pool(wish()) as pool:
        assert pool.waiting == before
        async with pool.taken(SMALL, USER_DATA) as machine:
            assert machine == replace(before[0], phase=Phase.BINDING)
        assert await node.cloud.machines[before[0].id].bound == OF_POD


async def test_machines_of_another_image_are_deleted_and_replaced(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
    node.cloud.image = "image-2"
    async with node.pool(wish()) as pool:
        await until(lambda: [each.spec.image for each in pool.waiting] == ["image-2"])
        await until(lambda: len(node.cloud.machines) == 1)


async def test_machines_that_were_made_by_other_settings_are_deleted_and_replaced(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (before,) = pool.waiting
    node.settings = "2"  # confidential machines, say, or another subnet
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1 and before.id not in node.cloud.machines)
        assert pool.waiting[0].settings == "2"


async def test_machines_that_were_told_otherwise_of_a_scratch_space_are_deleted_and_replaced(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (before,) = pool.waiting
    async with node.pool(wish(), scratch=True) as pool:
        await until(lambda: len(pool.waiting) == 1 and before.id not in node.cloud.machines)
        assert pool.waiting[0].scratch


async def test_machines_that_are_not_wanted_any_more_are_deleted(node: Node):
    async with node.pool(wish(count=3), wish(LARGE)) as pool:
        await until(lambda: len(pool.waiting) == 4)
    async with node.pool(wish()) as pool:
        await until(lambda: len(node.cloud.machines) == 1 and len(pool.waiting) == 1)
        assert pool.waiting[0].instance_type == "small"
    async with node.pool():
        await until(lambda: node.cloud.machines == {} and node.on_record == [])


@pytest.mark.parametrize("phase", [Phase.MAKING, Phase.BINDING, Phase.LEAVING])
async def test_what_an_adaptor_did_not_get_done_is_deleted_by_the_next(node: Node, phase: Phase):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (machine,) = pool.waiting
    node.records.write(replace(machine, phase=phase))
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1 and machine.id not in node.cloud.machines)


async def test_a_machine_that_is_on_a_pods_record_is_the_pods(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (machine,) = pool.waiting
    node.records.write(replace(machine, phase=Phase.BINDING))
    async with node.pool(claimed=[machine.id]):
        assert node.on_record == []
        assert machine.id in node.cloud.machines
    assert node.times.told[-1] == ("waited", machine.id)  # the first adaptor may not have come to it


async def test_a_machine_that_may_be_the_pods_whose_record_is_damaged_is_left_alone(node: Node):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (machine,) = pool.waiting
    node.records.write(replace(machine, phase=Phase.BINDING))
    async with node.pool(is_whole=False):
        assert phases(node) == [Phase.BINDING]
    async with node.pool():
        await until(lambda: node.cloud.machines == {} and node.on_record == [])


async def test_a_damaged_record_of_a_machine_is_passed_over_and_stays(
    node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        (machine,) = pool.waiting
    (tmp_path / "pool" / f"{machine.id}.json").write_text("{")
    async with node.pool(wish()) as pool:
        await until(lambda: len(pool.waiting) == 1)
        assert machine.id in node.cloud.machines
        assert machine.id in node.records.ids()
    assert f"{machine.id}.json" in caplog.text
    async with node.pool(claimed=[machine.id]):
        assert machine.id not in node.records.ids()


async def test_without_wishes_nothing_is_asked_for_and_nobody_gets_any(node: Node):
    async with node.pool() as pool, pool.taken(SMALL, USER_DATA) as machine:
        assert machine is None
    assert node.cloud.created == []
