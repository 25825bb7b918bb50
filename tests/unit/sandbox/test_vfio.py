"""Devices of the host for a container: planned, plugged, told to the agent, and taken out again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kata_py.config.model import RuntimeConfig
from kata_py.hypervisor.api import GuestDevice, VfioDevice, VfioKind
from kata_py.oci.spec import Spec
from kata_py.sandbox import vfio
from kata_py.sandbox.errors import InvalidArgument, Unimplemented
from kata_py.sandbox.pod import Role
from kata_py.sandbox.vfio import cold_plugged, nodes, plan_vfio
from kata_py.ttrpc.errors import StatusError
from tests import bundle
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import make_configuration, serving

NODE = Path("/dev/vfio/12")
GPU = VfioDevice("0000:01:00.0", VfioKind.PCI, Path("/sys/devices/pci0000:00/0000:01:00.0"))
AUDIO = VfioDevice("0000:01:00.1", VfioKind.PCI, Path("/sys/devices/pci0000:00/0000:01:00.1"))
QUEUES = VfioDevice("u", VfioKind.AP, Path("/sys/devices/vfio_ap/matrix/u"), queues=("05.0031",))
CHANNEL = VfioDevice("u", VfioKind.CCW, Path("/sys/devices/css0/u"))
FOUND = {NODE: (GPU, AUDIO)}


def configured(mode: Any = "guest-kernel", **hypervisor: Any) -> Any:
    base = make_configuration()
    runtime = RuntimeConfig(create_container_timeout=20, vfio_mode=mode)
    return replace(base, hypervisor=replace(base.hypervisor, **hypervisor), runtime=runtime)


def asking(*paths: str, rules: Any = ()) -> Spec:
    devices = [{"path": path, "type": "c", "major": 240, "minor": n} for n, path in enumerate(paths)]
    return cast(Spec, {"ociVersion": "1.1.0", "linux": {"devices": devices, "resources": {"devices": list(rules)}}})


def test_groups_and_devices_are_asked_for_by_their_nodes() -> None:
    spec = asking("/dev/vfio/vfio", "/dev/vfio/12", "/dev/vfio/devices/vfio3", "/dev/fuse")
    assert nodes(spec) == [NODE, Path("/dev/vfio/devices/vfio3")]


def test_a_privileged_container_is_shown_all_nodes_and_asks_for_none() -> None:
    assert nodes(asking("/dev/vfio/12", rules=[{"allow": True, "access": "rwm"}])) == []


@pytest.mark.parametrize(("mode", "type"), [("guest-kernel", "vfio-pci-gk"), ("vfio", "vfio-pci")])
def test_the_agent_is_told_where_each_device_is_in_the_guest(mode: str, type: str) -> None:
    [planned] = plan_vfio(configured(mode, hot_plug_vfio="root-port"), FOUND, Role.CONTAINER)
    message = planned.message([GuestDevice(GPU.id, "05/00"), GuestDevice(AUDIO.id, "06/00")])
    assert (message.id, message.type, message.container_path) == ("12", type, "/dev/vfio/12")
    assert list(message.options) == ["0000:01:00.0=05/00", "0000:01:00.1=06/00"]


def test_the_agent_is_told_of_crypto_queues_by_their_names() -> None:
    [planned] = plan_vfio(configured(hot_plug_vfio="bridge-port"), {NODE: (QUEUES,)}, Role.SINGLE)
    message = planned.message([GuestDevice(QUEUES.id)])
    assert (message.type, list(message.options)) == ("vfio-ap", ["05.0031"])


def test_without_a_port_a_device_is_refused_with_the_key_to_set() -> None:
    with pytest.raises(
        InvalidArgument, match=r"/dev/vfio/12 cannot be plugged in: hot_plug_vfio and cold_plug_vfio are"
    ):
        plan_vfio(configured(), FOUND, Role.SINGLE)
    assert plan_vfio(configured(), {}, Role.SINGLE) == ()


def test_a_pods_machine_starts_before_its_containers_devices_are_known() -> None:
    with pytest.raises(InvalidArgument, match=r"the machine of a pod starts before .* use hot_plug_vfio"):
        plan_vfio(configured(cold_plug_vfio="root-port"), FOUND, Role.CONTAINER)


def test_a_channel_device_is_refused_as_the_agent_has_no_word_for_it() -> None:
    with pytest.raises(Unimplemented, match="channel device"):
        plan_vfio(configured(hot_plug_vfio="root-port"), {NODE: (CHANNEL,)}, Role.SINGLE)


def test_the_machine_has_from_the_start_what_is_plugged_cold() -> None:
    cold, hot = configured(cold_plug_vfio="root-port"), configured(hot_plug_vfio="root-port")
    assert cold_plugged(cold, plan_vfio(cold, FOUND, Role.SINGLE)) == (GPU, AUDIO)
    assert cold_plugged(hot, plan_vfio(hot, FOUND, Role.SINGLE)) == ()


@pytest.mark.root
@pytest.mark.parametrize("port", ["hot_plug_vfio", "cold_plug_vfio"])
async def test_a_containers_devices_are_in_its_machine_before_the_agent_is_told(
    top: Path, hypervisor: FakeHypervisor, opener: MemoryOpener, agent: FakeAgent, port: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("kata_py.shim.planning.find", lambda node: FOUND[node])
    spec = {**bundle.spec("c1", "rootfs", bundle.process(["true"]))}
    spec["linux"] = {**spec["linux"], **asking("/dev/vfio/12", "/dev/vfio/vfio")["linux"]}
    configuration = configured(**{port: "root-port"})
    async with serving(top, lambda _: hypervisor, opener, configuration=configuration) as tasks:
        await tasks.create(spec=spec)
        request = agent.containers["c1"]
        [device] = request.devices
        assert list(device.options) == ["0000:01:00.0=01/00", "0000:01:00.1=02/00"]
        assert not request.OCI.Linux.Devices
        cold = [each for each in hypervisor.specs[0].devices if isinstance(each, VfioDevice)]
        assert cold == ([GPU, AUDIO] if port == "cold_plug_vfio" else [])
        await tasks.delete()
        assert tasks.leftovers() == []


@pytest.mark.root
async def test_a_host_without_an_iommu_is_told(top: Path, hypervisor: FakeHypervisor, opener: MemoryOpener) -> None:
    spec = {**bundle.spec("c1", "rootfs", bundle.process(["true"]))}
    spec["linux"] = {**spec["linux"], **asking("/dev/vfio/12")["linux"]}
    configuration = configured(hot_plug_vfio="root-port")
    async with serving(top, lambda _: hypervisor, opener, configuration=configuration) as tasks:
        with pytest.raises(StatusError, match=r"/dev/vfio/12.*(no IOMMU group|no such device)"):
            await tasks.create(spec=spec)


def test_nothing_is_added_for_a_container_without_devices() -> None:
    from kata_protos import agent_pb2

    request = agent_pb2.CreateContainerRequest(container_id="c1")
    assert vfio.with_devices(request, []) == request
