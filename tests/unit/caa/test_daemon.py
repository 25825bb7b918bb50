"""The adaptor's process: what it refuses to start with, and what it says."""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_caa import node, owner
from kata_caa.config import AdaptorConfig
from kata_caa.daemon import CheckFailed, require, serving, tags_of
from kata_caa.errors import SettingError
from kata_caa.examination import examine
from kata_caa.pool.machine import Machine, MachineRecords, Phase
from kata_caa.providers.api import Finding, InstanceSpec
from kata_protos import hypervisor_pb2 as hv
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_py.netlink import wireguard
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from tests.drivers.cloud import MemoryConfig, MemoryProvider, MemoryStore

BOUND = 10.0  # seconds that anything here may take


@pytest.fixture
def config(tmp_path: Path) -> AdaptorConfig:
    return AdaptorConfig(socket=str(tmp_path / "hv.sock"), pods_dir=str(tmp_path / "pods"), owner="tests")


def cloud() -> AbstractAsyncContextManager[MemoryProvider]:
    return MemoryProvider.open(MemoryConfig(), MemoryStore())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not base64!", "no base64"),
        (base64.b64encode(b"x").decode(), "no gzip"),
        (base64.b64encode(gzip.compress(b"version = 3", mtime=0)).decode(), "algorithm cannot be"),
    ],
)
async def test_initdata_that_no_pod_could_use_is_refused_at_the_start(config: AdaptorConfig, text: str, said: str):
    with pytest.raises(SettingError, match=f"^-initdata: .*{said}"):
        async with serving(replace(config, initdata=text), cloud()):
            raise AssertionError("it serves")


async def test_it_serves_and_takes_the_socket_of_one_that_was_killed(config: AdaptorConfig):
    for _ in range(2):
        async with serving(config, cloud()), connect(UnixAddress(config.socket), timeout=5) as client:
            assert (await HypervisorClient(client).Version(hv.VersionRequest())).version == "0.0.0"


async def test_machines_that_an_earlier_adaptor_makes_are_its_own_until_it_ends(config: AdaptorConfig):
    machines = MachineRecords(config.pool_dir)
    async with AsyncExitStack() as earlier:
        await earlier.enter_async_context(serving(config, cloud()))
        machines.write(Machine("7" * 32, InstanceSpec(), "material", "token", Phase.MAKING))
        async with serving(config, cloud()):
            assert list(machines.ids()) == ["7" * 32]
            await earlier.aclose()
            async with asyncio.timeout(BOUND):
                while list(machines.ids()):  # noqa: ASYNC110 a file's end
                    await asyncio.sleep(0.005)


async def test_a_cloud_that_lacks_what_pods_need_ends_the_start():
    class Bare:
        async def check(self) -> list[Finding]:
            return [Finding("image ami-1", False, "there is none"), Finding("subnet", True)]

    with pytest.raises(CheckFailed, match=r"^image ami-1: there is none$"):
        await require(Bare())  # type: ignore[arg-type]


@pytest.mark.parametrize("verify", [False, True])
async def test_the_cloud_is_checked_before_it_serves_where_that_is_set(config: AdaptorConfig, verify: bool):
    without_image = MemoryProvider.open(MemoryConfig("image-2"), MemoryStore())
    refused = pytest.raises(CheckFailed, match=r"^image image-2: set MEMORY_IMAGE$") if verify else nullcontext()
    served = False
    with refused:
        async with serving(replace(config, cloud_config_verify=verify), without_image):
            served = True
    assert served is not verify


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warm_pool": (("default", "x"),)}, "-warm-pool: default=x: a number from 1 to 100 is wanted"),
        ({"warm_pool_prices": "/nowhere"}, "-warm-pool-prices: /nowhere: .*No such file"),
        ({"tunnel_type": "routing"}, "-tunnel-type: 'routing' is not vxlan"),
        (
            {"pod_subnet_cidrs": ("10.0.0.0/8", "garbage")},
            "-pod-subnet-cidrs: .garbage. is no network: .*; write it",
        ),
        ({"initdata": "garbage"}, "-initdata: initdata is no base64; it is made by: gzip"),
        ({"tls_min_version": "1.3"}, "-tls-min-version: '1.3' is neither of VersionTLS12, VersionTLS13"),
        ({"ca_cert_file": "/nowhere"}, "-ca-cert-file /nowhere cannot be read: No such file"),
        ({"ca_cert_file": "/dev/null"}, "-ca-cert-file /dev/null has no certificates in PEM"),
        ({"ca_cert_file": "/nowhere", "tls_skip_verify": True}, "-tls-skip-verify does not go with -ca-cert-file"),
        ({"cert_file": "/nowhere", "cert_key": "/nowhere"}, "-cert-file /nowhere cannot be read: No such file"),
        ({"host_interface": "eth77"}, "-host-interface: the node has no interface eth77 .*; name one that"),
        ({"proxy_timeout": -5.0}, "-proxy-timeout: -5 cannot be: it is from 1 to 86400"),
    ],
)
async def test_what_cannot_be_is_told_before_the_cloud_is_asked(
    config: AdaptorConfig, settings: dict[str, Any], said: str
):
    @asynccontextmanager
    async def unreachable() -> AsyncIterator[Any]:
        raise AssertionError("the cloud is asked")
        yield

    wrong = replace(config, **settings)
    with pytest.raises(SettingError, match=f"^{said}"):
        async with serving(wrong, unreachable()):
            raise AssertionError("it serves")
    (missing,) = (each for each in examine(wrong) if not each.passed)  # as -check has it
    assert re.match(said, missing.detail)
    assert not Path(config.pods_dir).exists()


async def test_a_node_that_cannot_be_told_from_others_ends_the_start_before_the_cloud_is_asked(
    config: AdaptorConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(owner, "_MACHINE_IDS", ())
    with pytest.raises(SettingError, match=r"^-owner: this machine has no /etc/machine-id"):
        async with serving(replace(config, owner=""), cloud()):
            raise AssertionError("it serves")


def test_what_can_be_passes_and_leaves_nothing(config: AdaptorConfig, tmp_path: Path):
    assert [each.subject for each in examine(replace(config, host_interface="lo")) if not each.passed] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tunnel_encryption": "ipsec"}, "-tunnel-encryption: 'ipsec' is neither none nor wireguard"),
        ({"tunnel_encryption": "wireguard", "wireguard_port": 4789}, "-wireguard-port: 4789 is no UDP port, or that"),
        ({"tunnel_encryption": "wireguard", "wireguard_port": 65536}, "-wireguard-port: 65536 is no UDP port"),
    ],
)
async def test_an_encryption_that_there_is_not_is_refused(config: AdaptorConfig, settings: dict[str, Any], said: str):
    with pytest.raises(SettingError, match=f"^{said}"):
        async with serving(replace(config, **settings), cloud()):
            raise AssertionError("it serves")


async def test_encryption_is_refused_on_a_kernel_that_has_none(config: AdaptorConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wireguard, "KIND", "kata-py-none")  # which the kernel is asked for
    encrypting = replace(config, tunnel_encryption="wireguard")
    with pytest.raises(
        SettingError, match=r"^-tunnel-encryption: the kernel \S+ has no WireGuard: load .*; or set it to none$"
    ):
        async with serving(encrypting, cloud()):
            raise AssertionError("it serves")
    assert [(each.subject, each.passed) for each in node.check(encrypting)] == [("encrypted tunnels", False)]
    assert node.check(config) == []


def test_all_that_is_made_bears_whose_it_is():
    from tests.unit.caa.test_record import RECORD

    assert dict(tags_of("node", RECORD)) == {
        "kata-py-owner": "node", "kata-py-sandbox": "id", "kata-py-pod": "web", "kata-py-namespace": "shop",
    }  # fmt: skip
