"""The life of peer pods: started, stopped, and taken up by the next adaptor, with nothing lost in the cloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from kata_caa import apf, daemon, deletion, pods
from kata_caa.credentials import Issued
from kata_caa.errors import (
    AdaptorError,
    Fault,
    InvalidRequest,
    ProviderError,
    SandboxExists,
    TunnelError,
    UnknownSandbox,
)
from kata_caa.faults import Backoff, RetryPolicy
from kata_caa.orphans import on_record
from kata_caa.peer import Failure, Late, Observer, Parts, Stopped
from kata_caa.pods import Pods
from kata_caa.pool.machine import Machine, MachineRecords, Phase
from kata_caa.providers.api import Finding, Instance, InstanceRequest, InstanceSpec, Owned, Target
from kata_caa.record import PodRecord, PodRecords, RecordError, State
from kata_caa.request import PodRequest
from kata_caa.turns import Turns
from tests.tasks import until

BOUND = 10.0  # seconds that anything here may take
WAITING = Machine(
    "7" * 32, InstanceSpec(), "material", "token", Phase.BINDING, instance_id="i-7", addresses=("192.0.2.7",)
)


class News:
    """Something has happened; whoever waits for something looks again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND):
            while not true():
                self._event.clear()
                await self._event.wait()


@dataclass
class Cloud:
    """A cloud in memory, with machines by sandbox; it can be made to wait, or to fail."""

    news: News
    machines: dict[str, InstanceRequest] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failures: list[ProviderError] = field(default_factory=list)
    delete_failures: list[Exception] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    strays: list[Owned] = field(default_factory=list)
    deleted: list[Target] = field(default_factory=list)

    async def create(self, request: InstanceRequest) -> Instance:
        self.asked.append(request.token)
        self.news.tell()
        if self.failures:
            raise self.failures.pop(0)
        self.machines[request.target.sandbox_id] = request
        await self.gate.wait()
        return Instance(f"i-{request.target.sandbox_id}", ("192.0.2.1",))

    async def delete(self, target: Target) -> None:
        self.news.tell()
        if self.delete_failures:
            raise self.delete_failures.pop(0)
        self.machines.pop(target.sandbox_id, None)
        self.deleted.append(target)
        self.news.tell()

    async def owned(self, owner: str) -> Sequence[Owned]:
        machines = [Owned("instance", f"i-{id}", id, each.target.name) for id, each in self.machines.items()]
        return [*machines, *self.strays]

    async def check(self) -> Sequence[Finding]:
        return []


@dataclass
class Tunnel:
    up: list[str] = field(default_factory=list)
    down: list[str] = field(default_factory=list)

    async def inspect(self, netns: Path) -> apf.PodNetwork:
        return apf.PodNetwork(pod_ip="10.0.0.2/24", vxlan_id=555000)

    async def set_up(self, record: PodRecord) -> None:
        self.up.append(record.sandbox_id)

    async def tear_down(self, record: PodRecord) -> None:
        self.down.append(record.sandbox_id)


@dataclass
class Shelf:
    """Machines that wait; what the real pool does with them has tests of its own."""

    machines: list[Machine] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refills: int = 0

    @asynccontextmanager
    async def taken(self, spec: InstanceSpec, user_data: str) -> AsyncIterator[Machine | None]:
        if not self.machines:
            yield None
            return
        machine = self.machines.pop(0)
        self.told.append(user_data)
        try:
            yield machine
        except BaseException:
            self.failed.append(machine.id)
            raise

    def refill(self) -> None:
        self.refills += 1


class Proxy:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def ready(self) -> None:
        if self._node.agent_error is not None:
            raise self._node.agent_error
        if self._node.agent_gate is not None:
            self._node.news.tell()
            await self._node.agent_gate.wait()

    @property
    def met(self) -> str:
        return "connection refused, for 80.0 s"


class Credentials:
    def issue(self, name: str) -> Issued:
        return Issued("material", apf.ForwarderConfig(tls_server_key=f"key of {name}"))


@dataclass
class Watcher:
    news: News
    told: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    async def created(self, record: PodRecord) -> None:
        self.told.append(f"created {record.instance_id}")

    async def failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.told.append(f"failed {failure.message}")
        self.news.tell()

    async def deleted(self, record: PodRecord) -> None:
        self.told.append("deleted")
        self.news.tell()
        raise RuntimeError("nobody listens")

    async def auth_json(self, namespace: str, pod: str) -> str:
        return '{"auths": {}}'


class Node:
    """A node: what survives an adaptor, and the adaptor of the moment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.news = News()
        self.cloud = Cloud(self.news)
        self.tunnel = Tunnel()
        self.records = PodRecords(directory / "pods")
        self.netns = directory / "netns"
        self.netns.touch()
        self.watcher = Watcher(self.news)
        self.observer: Observer | None = None  # in the watcher's place
        self.calls = RetryPolicy(backoffs={})
        self.turns = Turns(2)
        self.proxies: list[str] = []
        self.shelf = Shelf()
        self.agent_error: AdaptorError | None = None
        self.agent_gate: asyncio.Event | None = None

    async def proxy(self, record: PodRecord) -> AbstractAsyncContextManager[Proxy]:
        return self._proxy(record)

    @asynccontextmanager
    async def _proxy(self, record: PodRecord) -> AsyncIterator[Proxy]:
        self.proxies.append(record.sandbox_id)
        try:
            yield Proxy(self)
        finally:
            self.proxies.remove(record.sandbox_id)

    @asynccontextmanager
    async def adaptor(self, *, alone: bool = True) -> AsyncIterator[Pods]:
        parts = Parts(
            self.cloud, self.tunnel, self.proxy, self.records, self.turns, self.observer or self.watcher,
            lambda record: (("a", "b"),), self.shelf, self.calls,
        )  # fmt: skip
        adaptor = Pods(
            parts,
            Credentials(),
            self.watcher,
            owner="node",
            on_record=partial(on_record, self.records, MachineRecords(self.directory / "pool")),
        )
        await adaptor.restore(alone=alone)
        try:
            yield adaptor
        finally:
            await adaptor.aclose()

    def request(self, id: str = "one") -> PodRequest:
        netns = self.netns if id == "one" else self.directory / f"netns-{id}"
        netns.touch()
        return PodRequest(id, f"pod-{id}", "shop", str(netns))

    def state(self, id: str = "one") -> State | None:
        record = self.records.load(id)
        return record.state if record else None

    async def gone(self, id: str = "one") -> None:
        """Wait until nothing of a pod is left on record."""
        await self.news.until(lambda: self.state(id) is None)

    async def asked_for(self, count: int = 1) -> None:
        """Wait until the cloud was asked for so many machines."""
        await self.news.until(lambda: len(self.cloud.asked) >= count)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "PAUSE", 0.01)


async def test_a_pod_is_on_record_before_the_cloud_is_asked(node: Node):
    async with node.adaptor() as adaptor:
        socket = await adaptor.create(node.request())
        assert socket == node.records.socket("one")
        assert node.state() is State.CREATED
        assert node.cloud.asked == []
        starting = asyncio.create_task(adaptor.start("one"))
        await node.asked_for()
        assert node.state() is State.STARTING
        node.cloud.gate.set()
        await starting
        assert node.state() is State.RUNNING
        assert node.tunnel.up == ["one"]
        assert node.proxies == ["one"]
        assert node.watcher.told == ["created i-one"]


async def test_a_machine_reads_key_network_and_registries_credentials(node: Node):
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
    request = node.cloud.machines["one"]
    assert "key of podvm-pod-one-one" in request.user_data
    assert "/run/peerpod/auth.json" in request.user_data
    assert request.tags == (("a", "b"),)
    assert "key of" not in repr(request)


async def test_stopping_answers_at_once_and_goes_on_until_the_cloud_confirms(node: Node):
    node.cloud.gate.set()
    node.cloud.delete_failures = [ProviderError(Fault.TRANSIENT, "later")] * 3
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        await adaptor.stop("one")
        await node.gone()
        with pytest.raises(UnknownSandbox):
            await adaptor.stop("one")
    assert node.cloud.machines == {}
    assert node.tunnel.down == ["one"]
    assert node.cloud.deleted == [Target("one", "podvm-pod-one-one", "i-one")]
    assert node.proxies == []


async def test_a_pod_that_was_stopped_is_deleted_though_the_adaptor_dies_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        node.cloud.delete_failures = [ProviderError(Fault.TRANSIENT, "later")]
        monkeypatch.setattr(deletion, "PAUSE", 3600.0)
        await adaptor.stop("one")
        assert node.state() is State.STOPPING


async def test_a_pod_is_deleted_though_its_record_cannot_be_written_any_more(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        monkeypatch.setattr(node.records, "update", _raiser(RecordError("no space left on device")))
        await adaptor.stop("one")
        await node.gone()
    assert node.cloud.machines == {}
    assert node.tunnel.down == ["one"]


async def test_a_record_that_cannot_be_removed_yet_is_removed_later(node: Node, monkeypatch: pytest.MonkeyPatch):
    node.cloud.gate.set()
    remove, failures = node.records.remove, [RecordError("read-only file system")] * 3

    def fail_first(sandbox_id: str) -> None:
        if failures:
            raise failures.pop()
        remove(sandbox_id)

    monkeypatch.setattr(node.records, "remove", fail_first)
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        await adaptor.stop("one")
        await node.gone()
        with pytest.raises(UnknownSandbox):
            await adaptor.stop("one")


async def test_whatever_a_deletion_fails_with_it_goes_on(node: Node, monkeypatch: pytest.MonkeyPatch):
    node.cloud.gate.set()
    node.cloud.delete_failures = [KeyError("a cloud that says what nobody expects")] * 2
    monkeypatch.setattr(node.tunnel, "tear_down", _raiser(OSError("no buffer space available")))
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        await adaptor.stop("one")
        await node.gone()
    assert node.cloud.machines == {}


async def test_a_start_that_fails_with_what_nobody_expects_costs_its_machine(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    node.cloud.gate.set()
    monkeypatch.setattr(node.tunnel, "set_up", _raiser(KeyError("eth0")))
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(KeyError):
            await adaptor.start("one")
        await node.gone()
    assert node.cloud.machines == {}
    assert "failed KeyError: 'eth0'" in node.watcher.told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TunnelError("/run/netns/pod has no default route"), "/run/netns/pod has no default route"),
        (KeyError("eth0"), "KeyError: 'eth0'"),
    ],
)
async def test_of_a_pod_that_cannot_be_announced_its_user_is_told_too(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
):
    monkeypatch.setattr(node.tunnel, "inspect", _raiser(error))
    async with node.adaptor() as adaptor:
        with pytest.raises(type(error)):
            await adaptor.create(node.request())
    assert node.watcher.failures == [Failure("shop", "pod-one", said, ("podvm-pod-one-one", "one"))]


async def test_whoever_waits_no_longer_is_told_which_stage_the_start_has_come_to(node: Node):
    node.cloud.failures = [ProviderError(Fault.THROTTLE, "slow down", code="RequestLimitExceeded")]
    node.calls = RetryPolicy(backoffs={Fault.THROTTLE: Backoff(again=1)})
    node.agent_gate = asyncio.Event()
    async with node.adaptor() as adaptor:
        for id in "abcd":
            await adaptor.create(node.request(id))
        starting = []
        for id, asked, waiting in (("a", 2, 0), ("b", 3, 0), ("c", 3, 1), ("d", 3, 2)):
            starting.append(asyncio.create_task(adaptor.start(id)))
            await node.asked_for(asked)
            await until(lambda waiting=waiting: node.turns.waiting == waiting)
        for id, stage in (
            ("a", r"the cloud throttles: slow down \[RequestLimitExceeded\]; it is asked again"),
            ("b", "the cloud makes its machine"),
            ("c", "waits its turn, 0 before it and 2 being made"),
            ("d", "waits its turn, 1 before it and 2 being made"),
        ):
            with pytest.raises(Late, match=f"the pod does not run after 0 s: {stage}"):
                await adaptor.start(id, 0.01)
        node.cloud.gate.set()
        await node.news.until(lambda: len(node.proxies) == 4)
        with pytest.raises(Late, match=r"runs as i-d; its forwarder: connection refused, for 80\.0 s"):
            await adaptor.start("d", 0.01)
        await node.news.until(lambda: len(node.watcher.failures) == 5)
        assert {each.name for each in node.watcher.failures} == {"pod-a", "pod-b", "pod-c", "pod-d"}
        node.agent_gate.set()
        await asyncio.gather(*starting)  # a start goes on nevertheless
        assert {record.state for record in adaptor.records} == {State.RUNNING}


async def test_sweeps_go_on_after_one_that_fails_with_what_nobody_expects(node: Node, monkeypatch: pytest.MonkeyPatch):
    failures = [PermissionError("pods"), ProviderError(Fault.THROTTLE, "slow down")]
    node.cloud.strays = [Owned("instance", "i-9", "lost", "podvm-x-lost")]
    async with node.adaptor() as adaptor:
        sweep = adaptor.sweep

        async def fail_first() -> int:
            if failures:
                raise failures.pop(0)
            return await sweep()

        monkeypatch.setattr(adaptor, "sweep", fail_first)
        sweeping = asyncio.create_task(daemon.sweeping(adaptor, 0.01))
        await node.news.until(lambda: bool(node.cloud.deleted))
        sweeping.cancel()
        await asyncio.wait([sweeping])
    assert node.cloud.deleted[0] == Target("lost", "podvm-x-lost", "i-9")


def _raiser(error: Exception) -> Callable[..., NoReturn]:
    def fail(*args: object) -> NoReturn:
        raise error

    return fail


async def test_a_failure_reaches_the_runtime_and_the_pod_and_leaves_nothing(node: Node):
    node.cloud.failures = [ProviderError(Fault.QUOTA, "the quota of vCPUs is used up", code="VcpuLimitExceeded")]
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(ProviderError, match="the quota of vCPUs is used up") as caught:
            await adaptor.start("one")
        assert caught.value.fault is Fault.QUOTA
        await node.gone()
    assert "failed the pod's machine cannot be made: the quota" in node.watcher.told[0]
    assert [target.sandbox_id for target in node.cloud.deleted] == ["one"]


async def test_an_agent_that_does_not_answer_costs_its_machine(node: Node):
    node.cloud.gate.set()
    node.agent_error = AdaptorError("no answer from 192.0.2.1:15150 within 300 s")
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(AdaptorError, match="no answer"):
            await adaptor.start("one")
        await node.gone()
    assert node.cloud.machines == {}


async def test_a_pod_that_is_stopped_while_it_starts_is_deleted(node: Node):
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        starting = asyncio.create_task(adaptor.start("one"))
        await node.asked_for()
        await adaptor.stop("one")
        with pytest.raises((Stopped, asyncio.CancelledError)):
            await starting
        await node.gone()
    assert node.cloud.machines == {}


async def test_whoever_gives_up_waiting_leaves_the_start_alone(node: Node):
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        waiting = asyncio.create_task(adaptor.start("one"))
        await node.asked_for()
        waiting.cancel()
        await asyncio.wait([waiting])
        node.cloud.gate.set()
        await adaptor.start("one")
    assert len(node.cloud.asked) == 1


async def test_a_second_pod_in_the_network_of_one_is_refused_before_it_costs_a_machine(node: Node):
    node.cloud.gate.set()
    same = replace(node.request("two"), netns=str(node.netns))
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(InvalidRequest, match="netns is the network of podvm-pod-one-one"):
            await adaptor.create(same)
        await adaptor.stop("one")
        await adaptor.create(same)  # the other one is going


async def test_a_sandbox_is_announced_once(node: Node):
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(SandboxExists):
            await adaptor.create(node.request())


async def test_pods_that_run_survive_their_adaptor(node: Node):
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
    assert node.proxies == []
    assert list(node.cloud.machines) == ["one"]
    async with node.adaptor() as adaptor:
        await adaptor.start("one")
        assert node.proxies == ["one"]
        assert len(node.cloud.asked) == 1
        assert node.tunnel.up == ["one"]


async def test_a_start_that_an_adaptor_did_not_live_to_see_goes_on_with_the_same_token(node: Node):
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        starting = asyncio.create_task(adaptor.start("one"))
        await node.asked_for()
    with pytest.raises(asyncio.CancelledError):
        await starting
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.start("one")
        assert node.state() is State.RUNNING
    first, second = node.cloud.asked
    assert first == second


async def test_of_an_adaptor_that_still_serves_what_is_not_done_yet_is_left_to_it(node: Node):
    async with node.adaptor() as earlier:
        await earlier.create(node.request())
        starting = asyncio.create_task(earlier.start("one"))
        await node.asked_for()
        async with node.adaptor(alone=False) as later:
            assert later.records == ()
            node.cloud.gate.set()
            await starting
            await later.restore()
            assert [each.state for each in later.records] == [State.RUNNING]
        assert len(node.cloud.asked) == 1


async def test_a_pod_that_was_announced_to_another_adaptor_is_started_and_stopped(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pods, "ABANDONED_AFTER", 0.05)
    node.cloud.gate.set()
    async with node.adaptor() as earlier, node.adaptor(alone=False) as later:
        for id in ("one", "two"):
            await earlier.create(node.request(id))
        await later.start("one")
        await node.gone("two")  # as nobody has asked for it: "one" is older
        assert node.state("one") is State.RUNNING
        await later.stop("one")
        await node.gone("one")
        with pytest.raises(UnknownSandbox, match="sandbox one does not exist"):
            await later.start("one")


async def test_what_is_no_sandbox_id_is_no_path(node: Node):
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(UnknownSandbox):
            await adaptor.stop("../pods/one")
        assert node.state() is State.CREATED


async def test_a_deletion_that_an_adaptor_did_not_live_to_see_goes_on(node: Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deletion, "PAUSE", 3600.0)
    node.cloud.gate.set()
    node.cloud.delete_failures = [ProviderError(Fault.THROTTLE, "slow down")]
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        await adaptor.stop("one")
        await node.news.until(lambda: not node.cloud.delete_failures)
    assert node.state() is State.STOPPING
    async with node.adaptor():
        await node.gone()
    assert node.cloud.machines == {}


async def test_a_pod_that_nobody_starts_is_deleted(node: Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pods, "ABANDONED_AFTER", 0.05)
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await node.gone()


async def test_the_sweep_deletes_what_no_sandbox_owns_and_nothing_else(node: Node):
    node.cloud.gate.set()
    node.cloud.strays = [Owned("network-interface", "eni-1", "lost"), Owned("instance", "i-9", "lost", "podvm-x-lost")]
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        assert await adaptor.sweep() == 1
    assert node.cloud.deleted == [Target("lost", "podvm-x-lost", "i-9")]
    assert list(node.cloud.machines) == ["one"]


async def test_a_damaged_record_stops_no_other_pod_and_nothing_that_may_be_its_machine_is_deleted(
    node: Node, caplog: pytest.LogCaptureFixture
):
    node.cloud.gate.set()
    node.shelf.machines = [WAITING]
    async with node.adaptor() as adaptor:
        for id in ("one", "two", "bad"):
            await adaptor.create(node.request(id))
            await adaptor.start(id)  # the first one takes what waits
    for id in ("one", "bad"):
        (node.directory / "pods" / id / "pod.json").write_text("")
    node.cloud.strays = [
        Owned("instance", "i-7", WAITING.id, WAITING.name),
        Owned("volume", "vol-8", "8" * 32),
        Owned("volume", "vol-bad", "bad"),
        Owned("instance", "i-9", "lost", "podvm-x-lost"),
    ]
    async with node.adaptor(alone=False) as adaptor:
        await adaptor.restore()
        assert [each.sandbox_id for each in adaptor.records] == ["two"]
        assert node.proxies == ["two"]
        await adaptor.create(node.request("three"))
        await adaptor.start("three")
        with pytest.raises(RecordError, match="bad"):
            await adaptor.stop("bad")
        assert await adaptor.sweep() == 1
    assert node.cloud.deleted == [Target("lost", "podvm-x-lost", "i-9")]
    assert sorted(node.records.ids()) == ["bad", "one", "three", "two"]
    told = [each for each in caplog.messages if "is damaged" in each]
    assert [each.split()[4] for each in told] == ["bad", "one"]
    assert f"Until its directory {node.directory / 'pods' / 'bad'} is gone" in told[0]

    for id in ("one", "bad"):
        node.records.remove(id)
    async with node.adaptor() as adaptor:
        assert await adaptor.sweep() == 4
    assert {each.sandbox_id for each in node.cloud.deleted} == {"lost", "bad", WAITING.id, "8" * 32}


async def test_a_pod_whose_namespace_is_gone_is_stopped_by_the_second_sweep(node: Node):
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        node.netns.unlink()
        await adaptor.sweep()
        assert node.state() is State.RUNNING
        await adaptor.sweep()
        await node.gone()
    assert node.cloud.machines == {}


async def test_a_pod_takes_a_machine_that_waits_and_it_is_deleted_by_that_machines_id(node: Node):
    node.shelf.machines = [WAITING]
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        record = node.records.load("one")
        assert record is not None
        assert (record.machine, record.instance_id, record.addresses) == (WAITING.id, "i-7", ("192.0.2.7",))
        assert record.instance_name == "podvm-pod-one-one"  # its certificate's, of its user data
        assert "key of podvm-pod-one-one" in node.shelf.told[0]
        assert node.cloud.asked == []
        assert node.tunnel.up == ["one"]
        assert node.shelf.refills == 1
        assert node.watcher.told == ["created i-7"]
        await adaptor.stop("one")
        await node.gone()
    assert node.cloud.deleted == [Target(WAITING.id, "podvm-pool-77777777", "i-7")]


async def test_a_pod_with_a_machine_that_has_waited_is_found_so_by_the_next_adaptor(node: Node):
    node.shelf.machines = [WAITING, WAITING]
    node.agent_error = None
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
    record = node.records.load("one")
    assert record is not None
    node.records.update(replace(record, state=State.STARTING))  # as if it had been killed before the agent answered
    async with node.adaptor() as adaptor:
        await adaptor.start("one")
        assert node.state() is State.RUNNING
        assert len(node.shelf.machines) == 1
        assert node.cloud.asked == []
    assert node.watcher.told == ["created i-7", "created i-7"]  # the first adaptor may not have come to it


async def test_a_pod_of_which_the_cloud_may_have_something_takes_no_machine_that_waits(node: Node):
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        starting = asyncio.create_task(adaptor.start("one"))
        await node.asked_for()
    await asyncio.wait([starting])
    node.shelf.machines = [WAITING]
    node.cloud.gate.set()
    async with node.adaptor() as adaptor:
        await adaptor.start("one")
        assert len(node.shelf.machines) == 1
        assert list(node.cloud.machines) == ["one"]


async def test_a_machine_that_cannot_be_put_on_record_is_not_the_pods(node: Node, monkeypatch: pytest.MonkeyPatch):
    node.shelf.machines = [WAITING]
    update = PodRecords.update

    def failing(records: PodRecords, record: PodRecord) -> None:
        if record.machine and record.state is State.STARTING:
            raise RecordError("the disk is full")
        update(records, record)

    monkeypatch.setattr(PodRecords, "update", failing)
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        with pytest.raises(RecordError, match="the disk is full"):
            await adaptor.start("one")
        await node.gone()
    assert node.shelf.failed == [WAITING.id]
    assert node.cloud.machines == {}


async def test_the_sweep_knows_machines_that_wait_and_those_that_have_waited(node: Node):
    node.shelf.machines = [WAITING]
    other = replace(WAITING, id="8" * 32)
    machines = MachineRecords(node.directory / "pool")
    machines.write(other)
    node.cloud.strays = [Owned("instance", f"i-{id}", id) for id in (WAITING.id, other.id, "lost")]
    async with node.adaptor() as adaptor:
        await adaptor.create(node.request())
        await adaptor.start("one")
        assert await adaptor.sweep() == 1
    assert node.cloud.deleted == [Target("lost", "", "i-lost")]


async def test_a_machine_s_id_is_told_to_whoever_waits_for_it(node: Node):
    async with node.adaptor() as adaptor:
        with pytest.raises(UnknownSandbox):
            await adaptor.instance_id("shop", "pod-one", wait=False)
        waiting = asyncio.create_task(adaptor.instance_id("shop", "pod-one", wait=True))
        await adaptor.create(node.request())
        assert await adaptor.instance_id("shop", "pod-one", wait=False) == ""
        node.cloud.gate.set()
        await adaptor.start("one")
        async with asyncio.timeout(BOUND):
            assert await waiting == "i-one"


async def test_no_more_machines_are_asked_for_at_a_time_than_there_are_turns(node: Node):
    async with node.adaptor() as adaptor:
        for id in "abc":
            await adaptor.create(node.request(id))
        starting = [asyncio.create_task(adaptor.start(id)) for id in "abc"]
        await node.asked_for(2)
        assert len(node.cloud.asked) == 2
        node.cloud.gate.set()
        await asyncio.gather(*starting)
        assert len(node.cloud.asked) == 3
