"""A peer pod on an instance of EC2: moto's, with a machine behind it that boots the disk that `make podvms` builds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_caa import usage
from tests import registry as registries
from tests.adaptor import Adaptor
from tests.conftest import REPOSITORY
from tests.ec2_machines import BRIDGE, GATEWAY, Machines, machines
from tests.integration.peer.conftest import CONFIGURATION
from tests.integration.peer.pods import initdata, living, network
from tests.manager import Manager
from tests.moto import KEYS, REGION, ec2_server

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

DISK = REPOSITORY / "build/podvm/x86_64/podvm.qcow2"


@pytest.fixture(scope="module")
def ec2(short_tmp: Path) -> Iterator[Machines]:
    """EC2, whose instances are machines."""
    assert DISK.exists(), f"no {DISK}: run `make podvms`"
    top = short_tmp / "ec2"
    top.mkdir()
    with ec2_server() as server, machines(server, DISK, top) as found:
        yield found
        print(found.consoles())  # with what failed


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(ec2: Machines, bridges: None) -> AsyncIterator[registries.Registry]:
    """A registry that machines reach, by TLS."""
    async with registries.serving(ec2.top / "registry", host=GATEWAY, encrypted=True) as registry:
        yield registry


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aws_adaptor(ec2: Machines, served: registries.Registry) -> AsyncIterator[Adaptor]:
    """The adaptor, configured as it is for the real EC2 but for the endpoint and what moto does at once."""
    environ = {
        "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"], "AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
        "AWS_REGION": REGION, "AWS_ENDPOINT_URL_EC2": ec2.ec2.url, "AWS_SUBNET_ID": ec2.subnet, "AWS_SG_IDS": ec2.group,
        "PODVM_AMI_ID": ec2.ec2.image, "DISABLECVM": "true", "INITDATA": initdata(served), "OWNER": "tests",
    }  # fmt: skip
    flags = ["-host-interface", BRIDGE, "-log-level", "debug", "-proxy-timeout", "120s", "-aws-settle-time", "0s"]
    flags += ["-usage-file", str(ec2.top / "usage.jsonl")]
    adaptor = Adaptor(ec2.top, ["aws", *flags], environ)
    await adaptor.start()
    yield adaptor
    await adaptor.end()
    print(adaptor.log.read_text())


@pytest.fixture(scope="module")
def manager(launcher: Path, aws_adaptor: Adaptor, rootfs: Path) -> Manager:
    """A manager of pods that run there."""
    directory = aws_adaptor.socket.parent
    path = directory / "remote.toml"
    path.write_text(CONFIGURATION.format(socket=aws_adaptor.socket).replace("timeout = 60", "timeout = 180"))
    return Manager(launcher, directory / "manager", path, rootfs)


@pytest.mark.usefixtures("clean")
async def test_a_peer_pod_runs_on_an_instance_of_ec2_and_nothing_of_it_stays(
    manager: Manager, ec2: Machines, served: registries.Registry, rootfs: Path, aws_adaptor: Adaptor
) -> None:
    image = await served.push("lib/busybox:1", registries.layer_of(rootfs))
    before = ec2.ec2.objects()
    with network() as net, network() as other:
        async with living(manager, net, other, image, "x86_64"):
            (machine,) = ec2.running.values()
            (instance,) = ec2.ec2.api.describe_instances(InstanceIds=[machine.instance])["Reservations"][0]["Instances"]
            asked = [(what, status) for who, what, status in ec2.asked if who == instance["PrivateIpAddress"]]
            assert asked[-2:] == [("PUT /latest/api/token", 200), ("GET /latest/user-data", 200)]
            assert instance["InstanceId"] in ec2.ec2.objects()
    async with asyncio.timeout(60):
        while any(aws_adaptor.pods.iterdir()):  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.2)
    assert ec2.ec2.objects() == before
    assert ec2.running == {}
    (use,) = usage.read(ec2.top / "usage.jsonl")
    assert (use.namespace, use.pod, use.instance_type) == ("tests", "peer", "m6a.large")
    assert use.end is not None
