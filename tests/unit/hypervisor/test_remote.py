"""The hypervisor `remote`, against an adaptor in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kata_protos import health_pb2
from kata_protos.health_ttrpc import HealthClient
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor import remote
from kata_py.hypervisor.api import BlockDevice, Boot, GuestDevice, HypervisorError, VmSpec
from kata_py.hypervisor.remote import RemoteHypervisor
from kata_py.resource.peer import StopPeer
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.cutter import between
from tests.drivers.adaptor import FakeAdaptor, serving
from tests.drivers.journal import ListJournal

SPEC = VmSpec(
    "pod", Path("/nowhere"), Boot(Path("kernel")), annotations={"a": "b"}, network_namespace=Path("/run/netns/pod")
)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "hypervisor.sock"


@pytest.fixture
async def adaptor(tmp_path: Path, socket: Path) -> AsyncIterator[FakeAdaptor]:
    adaptor = FakeAdaptor(tmp_path)
    async with serving(socket, adaptor):
        yield adaptor


def driver(socket: Path) -> RemoteHypervisor:
    config = HypervisorConfig("remote", remote_hypervisor_socket=socket, remote_hypervisor_timeout=5)
    return RemoteHypervisor(Configuration(config, Path("/etc/kata-containers/configuration-remote.toml")))


async def test_the_adaptor_is_told_of_the_pod_and_its_machine_s_agent_answers(adaptor: FakeAdaptor, socket: Path):
    async with driver(socket).launch(SPEC, ListJournal()) as vm:
        [request] = adaptor.created
        assert (request.id, dict(request.annotations)) == ("pod", {"a": "b"})
        assert request.networkNamespacePath == "/run/netns/pod"
        async with connect(vm.agent, timeout=5) as client:
            answer = await HealthClient(client).Check(health_pb2.CheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert vm.pid == os.getpid()
        assert vm.console_tail() == ()
    assert adaptor.stopped == ["pod"]
    assert (await vm.wait()).expected


async def test_a_machine_is_on_record_before_it_is_asked_for_and_struck_once_it_is_stopped(
    adaptor: FakeAdaptor, socket: Path
):
    journal = ListJournal()
    async with driver(socket).launch(SPEC, journal):
        assert journal.entries == [StopPeer(str(socket), "pod")]
        assert [name for name, _, _ in journal.stages] == ["adaptor", "instance"]
    assert journal.entries == []


async def test_what_the_adaptor_says_of_a_machine_that_cannot_be_had_reaches_whoever_asked(
    adaptor: FakeAdaptor, socket: Path
):
    adaptor.start_error = StatusError(Code.RESOURCE_EXHAUSTED, "the quota of vCPUs in eu-west-1 is used up")
    journal = ListJournal()
    with pytest.raises(HypervisorError, match=r"^adaptor: the quota of vCPUs in eu-west-1 is used up$"):
        async with driver(socket).launch(SPEC, journal):
            raise AssertionError("it was started")
    assert adaptor.stopped == ["pod"]
    assert journal.entries == []


async def test_a_machine_that_the_adaptor_does_not_stop_stays_on_record(adaptor: FakeAdaptor, socket: Path):
    journal = ListJournal()
    async with driver(socket).launch(SPEC, journal):
        adaptor.stop_error = StatusError(Code.INTERNAL, "out of order")
    assert journal.entries == [StopPeer(str(socket), "pod")]


async def test_a_machine_that_the_adaptor_does_not_know_any_more_is_stopped(adaptor: FakeAdaptor, socket: Path):
    journal = ListJournal()
    async with driver(socket).launch(SPEC, journal):
        for error in (StatusError(Code.NOT_FOUND, "no"), StatusError(Code.UNKNOWN, "sandbox pod does not exist")):
            adaptor.stop_error = error
    assert journal.entries == []


async def test_without_an_adaptor_the_error_says_what_is_missing_and_nothing_is_on_record(
    socket: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "CONNECT_TIMEOUT", 0.3)
    journal = ListJournal()
    with pytest.raises(HypervisorError, match=r"does cloud-api-adaptor run on this node"):
        async with driver(socket).launch(SPEC, journal):
            raise AssertionError("it was started")
    assert journal.made == []


async def test_no_device_of_the_host_can_be_plugged_in(adaptor: FakeAdaptor, socket: Path):
    async with driver(socket).launch(SPEC, ListJournal()) as vm:
        with pytest.raises(HypervisorError, match="a BlockDevice of this host"):
            await vm.attach(BlockDevice("disk", Path("/dev/sda")))
        with pytest.raises(HypervisorError, match="was not plugged in"):
            await vm.detach(GuestDevice("disk"))


async def test_a_start_goes_on_when_the_adaptor_is_started_anew(adaptor: FakeAdaptor, socket: Path, tmp_path: Path):
    adaptor.gate = asyncio.Event()
    async with between(str(tmp_path / "between.sock"), str(socket)) as cutter:
        launched = driver(tmp_path / "between.sock").launch(SPEC, ListJournal())
        starting = asyncio.create_task(launched.__aenter__())
        await adaptor.entered.wait()
        await cutter.away()
        adaptor.gate.set()
        await cutter.listen()
        async with asyncio.timeout(10):
            await starting
            await launched.__aexit__(None, None, None)
    assert (adaptor.started, adaptor.stopped) == (["pod"], ["pod"])


def test_a_machine_elsewhere_takes_nothing_of_this_host():
    assert SPEC.elsewhere
    assert not replace(SPEC, annotations={}).elsewhere
