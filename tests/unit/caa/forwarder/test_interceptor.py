"""What the forwarder changes in the calls that it passes on."""

from __future__ import annotations

import pytest

from kata_caa.forwarder.interceptor import AGENT, CLOUD_VOLUMES, TARGET_PATH, Interceptor
from kata_caa.forwarder.mounts import mount_points
from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_py.ttrpc.errors import StatusError

NAMESPACE = oci.LinuxNamespace(Type="network", Path="/run/netns/podns")


@pytest.fixture
def interceptor():
    return Interceptor("/run/netns/podns", mount_timeout=0.05)


async def created(interceptor, **spec):
    request = agent.CreateContainerRequest(container_id="ctr", OCI=oci.Spec(**spec))
    changed = await interceptor(AGENT, "CreateContainer", request.SerializeToString())
    return agent.CreateContainerRequest.FromString(changed)


async def test_a_container_joins_the_pods_network_namespace(interceptor):
    mount = oci.LinuxNamespace(Type="mount")
    request = await created(interceptor, Version="1.0", Linux=oci.Linux(Namespaces=[mount]))
    assert list(request.OCI.Linux.Namespaces) == [mount, NAMESPACE]
    assert (request.container_id, request.OCI.Version) == ("ctr", "1.0")


async def test_a_network_namespace_that_it_names_already_is_replaced(interceptor):
    other = oci.LinuxNamespace(Type="network", Path="/other")
    request = await created(interceptor, Linux=oci.Linux(Namespaces=[other]))
    assert list(request.OCI.Linux.Namespaces) == [NAMESPACE]


async def test_a_spec_without_namespaces_gets_one(interceptor):
    assert list((await created(interceptor)).OCI.Linux.Namespaces) == [NAMESPACE]


async def test_fields_that_nobody_knows_pass(interceptor):
    unknown = b"\xfa\x7f\x03new"
    changed = await interceptor(AGENT, "CreateContainer", unknown)
    assert changed.endswith(unknown) or unknown in changed


async def test_missing_sources_of_bind_mounts_are_made(interceptor, tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    sources = [tmp_path / "a/b", tmp_path / "file", tmp_path / "file/below"]
    mounts = [oci.Mount(type="bind", source=str(each)) for each in sources]
    mounts += [oci.Mount(type="bind", source="relative"), oci.Mount(type="tmpfs", source=str(tmp_path / "c"))]
    await created(interceptor, Mounts=mounts)
    assert {each.name for each in tmp_path.rglob("*")} == {"a", "b", "file"}
    assert (tmp_path / "a/b").is_dir()
    assert "file/below of a bind mount cannot be made" in caplog.text


async def test_a_device_that_is_not_mounted_in_time_is_an_error(interceptor, tmp_path):
    mounts = [oci.Mount(type="bind", source=str(tmp_path))]
    with pytest.raises(StatusError, match=rf"DEADLINE_EXCEEDED: container ctr: waited 0.05 s for .* at {tmp_path}"):
        await created(interceptor, Mounts=mounts, Annotations={TARGET_PATH: f"/x, {tmp_path}"})


async def test_only_mounts_of_the_container_are_waited_for(interceptor, tmp_path):
    await created(interceptor, Mounts=[oci.Mount(type="bind", source="/")], Annotations={TARGET_PATH: f"{tmp_path},/,"})


async def test_disks_of_the_cloud_are_refused_in_clear_words(interceptor):
    with pytest.raises(StatusError, match="UNIMPLEMENTED: container ctr: disks of the cloud"):
        await created(interceptor, Annotations={CLOUD_VOLUMES: '{"vol-0":{}}'})
    await created(interceptor, Annotations={CLOUD_VOLUMES: ""})


async def test_the_sandbox_is_not_told_of_name_servers(interceptor):
    request = agent.CreateSandboxRequest(hostname="web", dns=["nameserver 10.0.0.10"], sandbox_id="id")
    changed = await interceptor(AGENT, "CreateSandbox", request.SerializeToString())
    assert agent.CreateSandboxRequest.FromString(changed) == agent.CreateSandboxRequest(hostname="web", sandbox_id="id")
    assert await interceptor(AGENT, "CreateSandbox", changed) is None


async def test_what_is_no_request_is_refused(interceptor):
    with pytest.raises(StatusError, match="INVALID_ARGUMENT: CreateSandbox"):
        await interceptor(AGENT, "CreateSandbox", b"\xff")


def test_mount_points_are_read_with_their_escapes():
    table = (
        "36 35 98:0 / / rw,noatime master:1 - ext3 /dev/root rw\n"
        "37 36 0:5 /x /mnt/a\\040b\\134c rw - tmpfs none rw\n"
    )  # fmt: skip
    assert mount_points(table) == {"/", "/mnt/a b\\c"}
