"""The adaptor's services, as the runtime calls them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.service import PodVMInfo, RemoteHypervisor
from kata_protos import hypervisor_pb2 as hv
from kata_protos import podvminfo_pb2 as info
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_protos.podvminfo_ttrpc import PodVMInfoClient
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor import remote
from kata_py.hypervisor.api import Boot, HypervisorError, VmSpec
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.testing import channel
from tests.drivers.adaptor import serving
from tests.drivers.journal import ListJournal
from tests.unit.caa.test_pods import BOUND, Node

POD = {"io.kubernetes.cri.sandbox-name": "web", "io.kubernetes.cri.sandbox-namespace": "shop"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
async def client(node: Node) -> AsyncIterator[Client]:
    async with node.adaptor() as pods, channel(RemoteHypervisor(pods), PodVMInfo(pods)) as client:
        yield client


@pytest.fixture
def runtime(client: Client) -> HypervisorClient:
    return HypervisorClient(client)


def announcing(node: Node, id: str = "one") -> hv.CreateVMRequest:
    return hv.CreateVMRequest(id=id, annotations=POD, networkNamespacePath=str(node.netns))


async def test_a_pod_s_life_as_the_runtime_asks_for_it(node: Node, runtime: HypervisorClient):
    node.cloud.gate.set()
    created = await runtime.CreateVM(announcing(node))
    assert created.agentSocketPath == str(node.records.socket("one"))
    await runtime.StartVM(hv.StartVMRequest(id="one"))
    assert list(node.cloud.machines) == ["one"]
    await runtime.StopVM(hv.StopVMRequest(id="one"))
    await node.gone()
    assert node.cloud.machines == {}


async def test_a_stop_is_answered_while_the_cloud_is_slow(node: Node, runtime: HypervisorClient):
    await runtime.CreateVM(announcing(node))
    starting = asyncio.create_task(runtime.StartVM(hv.StartVMRequest(id="one")))
    await node.asked_for()
    await runtime.StopVM(hv.StopVMRequest(id="one"), timeout=1.0)
    with pytest.raises(StatusError):
        await starting


async def test_the_version_is_upstream_s(runtime: HypervisorClient):
    assert (await runtime.Version(hv.VersionRequest(version="1"))).version == "0.0.0"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.FATAL, Code.FAILED_PRECONDITION),
        (Fault.QUOTA, Code.RESOURCE_EXHAUSTED),
        (Fault.CAPACITY, Code.RESOURCE_EXHAUSTED),
        (Fault.THROTTLE, Code.ABORTED),
        (Fault.TRANSIENT, Code.ABORTED),
    ],
)
async def test_what_a_cloud_refuses_reaches_the_runtime_in_words(
    node: Node, runtime: HypervisorClient, fault: Fault, code: Code
):
    node.cloud.failures = [ProviderError(fault, "no machines today", code="Closed", hint="come back tomorrow")]
    await runtime.CreateVM(announcing(node))
    with pytest.raises(StatusError, match=r"no machines today \[Closed\] \(come back tomorrow\)") as caught:
        await runtime.StartVM(hv.StartVMRequest(id="one"))
    assert caught.value.code is code


async def test_a_runtime_hears_why_it_waits_in_vain_before_its_patience_ends(node: Node, runtime: HypervisorClient):
    await runtime.CreateVM(announcing(node))
    with pytest.raises(StatusError, match=r"the pod does not run after 2 s: the cloud makes its machine") as caught:
        await runtime.StartVM(hv.StartVMRequest(id="one"), timeout=2)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    await node.news.until(lambda: bool(node.watcher.told))
    assert node.watcher.told == ["failed the pod does not run after 2 s: the cloud makes its machine"]
    await runtime.StopVM(hv.StopVMRequest(id="one"))  # which it sends then
    await node.gone()
    assert node.cloud.machines == {}


async def test_a_shim_s_error_has_these_words(node: Node, short_tmp: Path):
    socket = short_tmp / "adaptor.sock"
    config = HypervisorConfig("remote", remote_hypervisor_socket=socket, remote_hypervisor_timeout=2)
    spec = VmSpec("one", Path("/nowhere"), Boot(Path("kernel")), annotations=POD, network_namespace=node.netns)
    async with node.adaptor() as pods, serving(socket, RemoteHypervisor(pods)):
        driver = remote.RemoteHypervisor(Configuration(config, Path("/etc/kata-containers/configuration-remote.toml")))
        with pytest.raises(HypervisorError, match=r"^adaptor: the pod does not run after 2 s: the cloud makes its"):
            async with driver.launch(spec, ListJournal()):
                raise AssertionError("it was started")
        await node.gone()


async def test_a_pod_whose_request_cannot_be_read_is_told_of_it(node: Node, runtime: HypervisorClient):
    request = announcing(node)
    request.annotations["io.katacontainers.config.hypervisor.cc_init_data"] = "no TOML"
    with pytest.raises(StatusError, match=r"annotation .*cc_init_data"):
        await runtime.CreateVM(request)
    [failure] = node.watcher.failures
    assert (failure.namespace, failure.name) == ("shop", "web")
    assert "cc_init_data" in failure.message


async def test_bad_requests_have_their_statuses(node: Node, runtime: HypervisorClient):
    await runtime.CreateVM(announcing(node))
    for call, code in (
        (runtime.CreateVM(announcing(node)), Code.ALREADY_EXISTS),
        (runtime.CreateVM(hv.CreateVMRequest(id="two", networkNamespacePath="/n")), Code.INVALID_ARGUMENT),
        (runtime.StartVM(hv.StartVMRequest(id="other")), Code.NOT_FOUND),
        (runtime.StopVM(hv.StopVMRequest(id="other")), Code.NOT_FOUND),
    ):
        with pytest.raises(StatusError) as caught:
            await call
        assert caught.value.code is code


async def test_a_machine_s_id_is_told_and_waiting_ends_with_its_deadline(
    node: Node, client: Client, runtime: HypervisorClient
):
    asking = PodVMInfoClient(client)
    request = info.GetInfoRequest(PodName="web", PodNamespace="shop")
    with pytest.raises(StatusError, match="no peer pod shop/web on this node"):
        await asking.GetInfo(request)
    request.Wait = True
    with pytest.raises(StatusError) as caught:
        await asking.GetInfo(request, timeout=0.05)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    waiting = asyncio.create_task(asking.GetInfo(request, timeout=BOUND))
    node.cloud.gate.set()
    await runtime.CreateVM(announcing(node))
    await runtime.StartVM(hv.StartVMRequest(id="one"))
    assert (await waiting).VMID == "i-one"
