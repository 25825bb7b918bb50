from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from kata_py.config.model import RuntimeConfig
from kata_py.config.rules import POLICY
from kata_py.sandbox.container_plan import ContainerPlan, plan_container
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.pod import Role
from kata_py.sandbox.stdio import StdioSpec
from kata_py.storage.errors import UnsupportedMount
from kata_py.storage.rootfs import RootfsMount
from tests.unit.sandbox.plans import BUNDLE, bind, configuration, spec

CRI, CRIO = "io.kubernetes.cri.", "io.kubernetes.cri-o."


def planned(
    annotations: dict[str, str], rootfs: list[RootfsMount], *, forced: bool = False, role: Role = Role.CONTAINER,
    **members: Any,
) -> ContainerPlan:  # fmt: skip
    without_share = replace(
        configuration(shared_fs="none"), runtime=RuntimeConfig(experimental_force_guest_pull=forced)
    )
    return plan_container(
        without_share, spec(annotations=annotations, **members), container_id="c1", bundle=BUNDLE, stdio=StdioSpec(),
        rootfs=rootfs, role=role, sandbox_id="p1",
    )  # fmt: skip


def volume(**content: Any) -> list[RootfsMount]:
    text = base64.b64encode(json.dumps({"volume_type": "image_guest_pull", **content}).encode()).decode()
    return [RootfsMount("fuse.nydus-overlayfs", "overlay", (f"io.katacontainers.volume={text}",))]


def told(plan: ContainerPlan) -> tuple[str, dict[str, str]]:
    """The image and its metadata, as the agent is told of them."""
    [storage] = plan.guest.storages
    assert (storage.driver, storage.fstype) == ("image_guest_pull", "overlay")
    assert storage.mount_point == plan.guest.OCI.Root.Path == "/run/kata-containers/c1/rootfs"
    [option] = storage.driver_options
    assert option.startswith('image_guest_pull={"metadata":{')
    metadata: dict[str, str] = json.loads(option.removeprefix("image_guest_pull="))["metadata"]
    return storage.source, metadata


def test_the_image_of_a_snapshotters_volume_is_the_agents_to_pull() -> None:
    annotations = {f"{CRIO}ContainerType": "container", f"{CRIO}ImageName": "quay.io/a:1", POLICY: "cGFja2FnZQ=="}
    plan = planned(annotations, volume(source="quay.io/b:1", image_pull={"metadata": {"more": "1"}}))

    assert plan.rootfs is None
    source, metadata = told(plan)
    assert source == "quay.io/a:1"
    assert metadata == {"more": "1", f"{CRIO}ContainerType": "container", f"{CRIO}ImageName": "quay.io/a:1"}


def test_where_no_annotation_names_it_the_snapshotter_does() -> None:
    assert told(planned({f"{CRI}container-type": "container"}, volume(source="quay.io/b:1")))[0] == "quay.io/b:1"


@pytest.mark.parametrize(
    ("annotations", "named"),
    [
        ({f"{CRI}container-type": "container", f"{CRI}image-name": "a:1", f"{CRIO}ImageName": "b:1"}, "a:1"),
        ({f"{CRIO}ContainerType": "container", f"{CRI}image-name": "a:1", f"{CRIO}ImageName": "b:1"}, "b:1"),
        ({f"{CRI}image-name": "a:1"}, "a:1"),  # nerdctl
    ],
)
def test_a_forced_pull_goes_by_the_managers_annotation(annotations: dict[str, str], named: str) -> None:
    plan = planned(annotations, [RootfsMount("bind", "/x")], forced=True)

    assert plan.rootfs is None
    assert told(plan) == (named, annotations)


def test_a_forced_pull_goes_before_a_volume_and_needs_no_root() -> None:
    annotations = {f"{CRI}image-name": "a:1"}
    assert told(planned(annotations, volume(image_pull={"metadata": {"more": "1"}}), forced=True))[1] == annotations
    assert told(planned(annotations, [], forced=True, root={"path": "x", "readonly": True}))[0] == "a:1"


@pytest.mark.parametrize("forced", [True, False])
def test_the_one_that_holds_the_pod_together_is_the_guests_pause(forced: bool) -> None:
    annotations = {f"{CRI}container-type": "sandbox", f"{CRI}image-name": "registry.k8s.io/pause:3.9"}
    assert told(planned(annotations, volume(source="x:1"), forced=forced, role=Role.SANDBOX))[0] == "pause"


def test_without_a_name_the_annotation_is_asked_for() -> None:
    with pytest.raises(InvalidArgument, match=rf"annotation {CRI}image-name is missing: .*_force_guest_pull"):
        planned({f"{CRI}container-type": "container"}, [], forced=True)
    with pytest.raises(InvalidArgument, match=rf"annotation {CRIO}ImageName is missing: its rootfs"):
        planned({f"{CRIO}ContainerType": "container"}, volume())


def test_what_the_snapshotter_garbles_is_the_requests_fault() -> None:
    with pytest.raises(InvalidArgument, match=r"image_pull.metadata is no object"):
        planned({}, volume(image_pull=[1]))
    with pytest.raises(UnsupportedMount, match="volume_type direct_block is not supported"):
        planned({}, volume(volume_type="direct_block"))


def test_volumes_of_a_pulled_container_are_as_any_others() -> None:
    plan = planned({f"{CRI}image-name": "a:1"}, [], forced=True, mounts=[bind("/data", "/srv/data")])
    assert [volume.source.name for volume in plan.volumes] == ["data"]
    assert not plan.host_devices
