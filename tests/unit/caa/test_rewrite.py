"""What is changed in the calls to a pod VM's agent."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest

from kata_caa.rewrite import CDI, GPUS, TARGET_PATH, Rewrite, is_csi, rewrite_spec
from kata_protos import agent_pb2, oci_pb2
from kata_py.storage import direct
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

CSI = "/var/lib/kubelet/pods/0-1/volumes/kubernetes.io~csi/pvc-1/mount"


def spec(*sources, **annotations):
    mounts = [oci_pb2.Mount(source=source, destination=f"/m{i}") for i, source in enumerate(sources)]
    return oci_pb2.Spec(Mounts=mounts, Annotations=annotations)


def every(source):
    return True


def none(source):
    return False


def test_volumes_for_the_machine_are_named_in_order():
    made = spec("proc", CSI, "/tmp", CSI + "2")
    assert rewrite_spec(made, every)
    assert dict(made.Annotations) == {TARGET_PATH: f"{CSI},{CSI}2"}


def test_volumes_that_are_named_already_are_named_once():
    made = spec(CSI, CSI, **{TARGET_PATH: f"/other,{CSI}"})
    assert not rewrite_spec(made, every)
    assert made.Annotations[TARGET_PATH] == f"/other,{CSI}"


@pytest.mark.parametrize("made", [spec(CSI), spec(), spec("/var/lib/kubelet/pods/0-1/volumes/kubernetes.io~secret/s")])
def test_other_volumes_are_left_alone(made):
    before = made.SerializeToString(deterministic=True)
    assert not rewrite_spec(made, none)
    assert made.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("source", "csi"),
    [(CSI, True), (CSI.replace("volumes/", "volumes//./"), True), (CSI.replace("~csi", "~csi/.."), False), ("", False)],
)
def test_a_csi_volume_is_known_by_its_path(source, csi):
    assert is_csi(source) is csi


def test_a_pod_with_graphics_processors_gets_all_of_its_machine():
    made = spec(**{GPUS: "2"})
    assert rewrite_spec(made, none)
    assert made.Annotations[CDI] == "nvidia.com/gpu=all"
    assert not rewrite_spec(made, none)


@pytest.mark.parametrize("annotations", [{}, {GPUS: ""}])
def test_a_pod_without_gets_none(annotations):
    made = spec(**annotations)
    assert not rewrite_spec(made, none)
    assert CDI not in made.Annotations


def request(**fields):
    return agent_pb2.CreateContainerRequest(container_id="c1", **fields)


async def rewritten(direct_volumes, sent):
    return await Rewrite(direct_volumes)("grpc.AgentService", "CreateContainer", sent)


async def test_a_volume_that_a_driver_has_described_is_for_the_machine(tmp_path):
    (tmp_path / base64.urlsafe_b64encode(CSI.encode()).decode()).mkdir()
    sent = request(OCI=spec(CSI, CSI + "2"), storages=[agent_pb2.Storage(driver="image_guest_pull")])
    answer = await rewritten(tmp_path, sent.SerializeToString())
    sent.OCI.Annotations[TARGET_PATH] = CSI
    assert agent_pb2.CreateContainerRequest.FromString(answer) == sent


@pytest.mark.parametrize(
    ("metadata", "disk"), [({"cloud-volume-path": "vol-0a1b", "csi": "x"}, "vol-0a1b"), ({}, "/dev/sdb")]
)
async def test_a_volume_on_a_disk_is_refused_at_once_as_no_machine_can_have_it(tmp_path, metadata, disk):
    direct.add(CSI, direct.DirectVolume(Path("/dev/sdb"), "ext4", metadata=metadata), tmp_path)
    with pytest.raises(StatusError, match=f"volume pvc-1 is on the disk {disk}, and .* attaches no disks") as caught:
        await rewritten(tmp_path, request(OCI=spec(CSI)).SerializeToString())
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "text",
    [
        '{"Device": "/dev/zero", "fstype": "ext4"}',  # upstream's csi-wrapper, in Go's liberty with letters
        '{"device": "/dev/zero", "fstype": "ext4"}',
        '{"device": "", "fstype": ""}',
        "[]",
        "",
    ],
)
async def test_a_volume_that_is_mounted_in_the_machine_is_waited_for_there(tmp_path, text):
    place = direct.place(CSI, tmp_path)
    place.mkdir()
    (place / "mountInfo.json").write_text(text)
    answer = await rewritten(tmp_path, request(OCI=spec(CSI)).SerializeToString())
    assert agent_pb2.CreateContainerRequest.FromString(answer).OCI.Annotations[TARGET_PATH] == CSI


async def test_a_name_too_long_for_a_file_is_no_volume(tmp_path):
    sent = request(OCI=spec(CSI + "x" * 5000)).SerializeToString()
    assert await rewritten(tmp_path, sent) is None


async def test_what_needs_no_change_passes_as_it_is(tmp_path):
    assert await rewritten(tmp_path, request(OCI=spec(CSI)).SerializeToString()) is None


async def test_fields_that_we_do_not_know_are_kept(tmp_path):
    unknown = b"\xba\x3e\x03new"  # field 999
    answer = await rewritten(tmp_path, request(OCI=spec(**{GPUS: "1"})).SerializeToString() + unknown)
    assert unknown in answer


async def test_a_garbled_request_is_refused(tmp_path):
    with pytest.raises(StatusError) as caught:
        await rewritten(tmp_path, b"\xff")
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_no_annotation_is_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    await rewritten(tmp_path, request(OCI=spec("/secret-path", password="hunter2")).SerializeToString())
    assert "container c1" in caplog.text
    assert "hunter2" not in caplog.text
    assert "secret-path" not in caplog.text
