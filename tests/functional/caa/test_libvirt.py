"""The libvirt provider on a real libvirtd and real, emulated machines."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kata_caa.disk import examine
from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, InstanceRequest, InstanceSpec, Resolves, Target
from kata_caa.providers.libvirt import binding, image
from kata_caa.providers.libvirt.config import LibvirtConfig
from kata_caa.providers.libvirt.domain import describe, uuid_of
from kata_caa.providers.libvirt.image import LibvirtImages
from kata_caa.providers.libvirt.provider import LibvirtProvider
from kata_caa.settings import Duration
from tests import peer_guest
from tests.functional.qemu import stub
from tests.libvirt import GIVING_HOOK, NETWORK, POOL, Libvirtd, libvirtd
from tests.unit.caa.providers.libvirt.test_domain import MACHINES

pytestmark = [pytest.mark.root, pytest.mark.qemu]

# A kernel of s390x that stays where it is: a PSW to load, which leads to a jump to itself (z/Architecture, chapter 4).
S390X_LOOP = bytes(4) + b"\x80\x01\x00\x00" + bytes(0x10000 - 8) + b"\xa7\xf4\x00\x00" + bytes(0x1000)

ADAPTOR = (sys.executable, "-c", "import sys; from kata_caa.command import main; sys.exit(main())")
OWNER, SANDBOX, NAME = "node-1", "0a1b2c3d4e5f", "podvm-web-0a1b2c3d"
REQUEST = InstanceRequest(
    Target(SANDBOX, NAME), "token", "#cloud-config\n", tags=((OWNER_TAG, OWNER), (SANDBOX_TAG, SANDBOX))
)


@pytest.fixture(scope="module")
def given() -> Iterator[Libvirtd]:
    """A host whose machines are given their addresses, whatever they boot."""
    with libvirtd(hook=GIVING_HOOK) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def plain() -> Iterator[Libvirtd]:
    """A host as it is."""
    with libvirtd() as daemon:
        yield daemon


@pytest.fixture
def config(given: Libvirtd, tmp_path: Path) -> LibvirtConfig:
    """Machines that boot a stub."""
    kernel = stub.write(given.top / "kernel", "up")
    return LibvirtConfig(
        uri=given.uri, pool=POOL, network=NETWORK, domain_type="qemu", memory=64, vcpus=1, root_disk_size=1,
        kernel=str(kernel),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave neither machines nor volumes behind, nor what libvirt keeps of them."""
    daemons = [request.getfixturevalue(name) for name in ("given", "plain") if name in request.fixturenames]
    before = [_all(daemon) for daemon in daemons]
    yield
    assert [_all(daemon) for daemon in daemons] == before


def _all(daemon: Libvirtd) -> list[str]:
    nvram = daemon.top / "lib/qemu/nvram"
    machines = daemon.virsh("list", "--all", "--name").split()
    return [
        *machines,
        *sorted(path.name for place in (daemon.pool, nvram) if place.exists() for path in place.iterdir()),
    ]


async def test_a_guest_gets_its_address_and_its_user_data_by_itself(guest: Path, plain: Libvirtd) -> None:
    files = peer_guest.build(guest, plain.top)
    config = LibvirtConfig(
        uri=plain.uri, pool=POOL, network=NETWORK, domain_type="qemu", memory=256, root_disk_size=1,
        kernel=str(files.kernel), initrd=str(files.initrd), kernel_args=files.arguments,
    )  # fmt: skip
    async with LibvirtProvider(config) as provider:
        made = await provider.create(replace(REQUEST, user_data="#cloud-config\n# for its eyes\n"))
        (address,) = made.addresses
        assert address.startswith(f"{plain.subnet}.")
        async with asyncio.timeout(20):
            assert await _hello(address) == b"hello\n"
        said = (plain.pool / f"{NAME}-console.log").read_text(errors="replace")
        assert "# for its eyes" in said
        assert f"local-hostname: {NAME}" in said
        assert f"disk of {(1 << 30) // 512} sectors" in said
        assert f"inet {address}/24" in said
        await provider.delete(REQUEST.target)


async def _hello(address: str) -> bytes:
    """What the guest says at its port, which it opens just after it has its address."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(address, peer_guest.PORT)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        line = await reader.readline()
        writer.close()
        return line


async def test_secrets_and_disks_are_for_nobody_else_to_read(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(config) as provider:
        await provider.create(REQUEST)
        modes = {path.name: path.stat().st_mode & 0o777 for path in given.pool.glob(f"{NAME}*")}
        assert modes == dict.fromkeys((f"{NAME}-root.qcow2", f"{NAME}-cloudinit.iso", f"{NAME}-console.log"), 0o600)
        await provider.delete(REQUEST.target)


async def test_user_data_beyond_what_a_machine_reads_are_refused_before_anything_is_made(
    given: Libvirtd, config: LibvirtConfig
) -> None:
    before = _all(given)
    async with LibvirtProvider(config) as provider:
        with pytest.raises(ProviderError, match=r"has 262146 bytes, its forwarder takes 262144 .*initdata") as refused:
            await provider.create(replace(REQUEST, user_data="é" * (1 << 17) + "xx"))
    assert refused.value.fault is Fault.FATAL
    assert _all(given) == before


async def test_a_machine_is_as_large_as_its_pod_asks_for(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(config) as provider:
        made = await provider.create(replace(REQUEST, spec=InstanceSpec(vcpus=2, memory=96, multi_nic=True)))
        assert len(set(made.addresses)) == 2
        info = given.virsh("dominfo", NAME)
        assert "CPU(s):         2\n" in info
        assert "Max memory:     98304 KiB" in info
        size = given.virsh("vol-info", f"{NAME}-root.qcow2", POOL, "--bytes")
        assert f"{1 << 30} bytes" in size
        await provider.delete(REQUEST.target)


async def test_wishes_that_lead_to_the_same_machine_are_alike(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(replace(config, vcpus=2, memory=512)) as provider:
        assert isinstance(provider, Resolves)
        full = InstanceSpec(vcpus=2, memory=512, image=config.image)
        for alike in (InstanceSpec(), InstanceSpec(memory=512), full):
            assert await provider.resolve(alike) == full
        assert await provider.resolve(InstanceSpec(vcpus=1)) == replace(full, vcpus=1)


async def test_a_disk_is_never_smaller_than_its_image(given: Libvirtd, config: LibvirtConfig) -> None:
    given.base("large.qcow2", "3G")
    async with LibvirtProvider(config) as provider:
        await provider.create(replace(REQUEST, spec=InstanceSpec(image="large.qcow2")))
        assert f"{3 << 30} bytes" in given.virsh("vol-info", f"{NAME}-root.qcow2", POOL, "--bytes")
        await provider.delete(REQUEST.target)
    given.virsh("vol-delete", "large.qcow2", POOL)


async def test_with_firmware_its_variables_go_with_the_machine(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(replace(config, kernel="")) as provider:
        await provider.create(REQUEST)
        assert "OVMF_CODE_4M.fd" in given.virsh("dumpxml", NAME)
        assert [path.name for path in (given.top / "lib/qemu/nvram").iterdir()] == [f"{NAME}_VARS.fd"]
        await provider.delete(REQUEST.target)


async def test_a_default_firmware_that_the_host_lacks_gives_way_to_the_bios(
    given: Libvirtd, config: LibvirtConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    missing = "/usr/share/OVMF/none.fd"
    monkeypatch.setattr("kata_caa.providers.libvirt.host.DEFAULT_FIRMWARE", missing)
    async with LibvirtProvider(replace(config, kernel="", firmware=missing)) as provider:
        await provider.create(REQUEST)
        assert "loader" not in given.virsh("dumpxml", NAME)
        assert "machines boot by BIOS" in caplog.text
        await provider.delete(REQUEST.target)


async def test_a_sata_disk_is_upstreams(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(replace(config, disk_bus="sata")) as provider:
        await provider.create(REQUEST)
        assert given.virsh("domblklist", NAME, "--details").count("sd") == 2
        await provider.delete(REQUEST.target)


async def test_a_machine_of_s390x_runs_on_a_host_of_another_architecture(
    given: Libvirtd, config: LibvirtConfig
) -> None:
    (given.top / "s390x").write_bytes(S390X_LOOP)
    config = replace(config, kernel=str(given.top / "s390x"), architecture="s390x", memory=256)
    async with LibvirtProvider(config) as provider:
        failed = [each for each in await provider.check() if not each.passed]
        assert failed == []
        made = await provider.create(REQUEST)
        assert made.addresses
        described = given.virsh("dumpxml", NAME)
        assert "arch='s390x' machine='s390-ccw-virtio" in described
        assert "<target type='sclp' port='0'/>" in described
        assert given.virsh("domstate", NAME) == "running"
        await provider.delete(REQUEST.target)


async def test_secure_execution_is_asked_for_and_a_host_without_it_is_told_apart(
    given: Libvirtd, config: LibvirtConfig
) -> None:
    config = replace(config, kernel="", architecture="s390x", memory=256, disable_cvm=False)
    async with LibvirtProvider(config) as provider:
        failed = {each.subject: each.detail for each in await provider.check() if not each.passed}
        assert list(failed) == ["machines of type qemu"]
        assert "Secure Execution" in failed["machines of type qemu"]
    with pytest.raises(ProviderError, match="makes no confidential machines of x86_64"):
        async with LibvirtProvider(replace(config, architecture="x86_64")) as provider:
            await provider.create(REQUEST)


@pytest.mark.parametrize("name", MACHINES)
def test_libvirts_schema_accepts_every_machine(name: str, given: Libvirtd) -> None:
    (given.top / "domain.xml").write_text(describe(replace(MACHINES[name], name="described", uuid=uuid_of(name))))
    answer = given.virsh("define", "--validate", str(given.top / "domain.xml"), check=False)
    if not answer:
        given.virsh("undefine", "--nvram", "described")
    else:  # the schema comes first; this host has no KVM for s390x, and no emulator for aarch64
        assert re.search(r"No emulator found|does not support|KVM is not supported|capabilities for", answer), answer
        assert name in ("s390x", "secure execution", "aarch64")


async def test_a_machine_that_ends_early_is_told_with_its_last_words(plain: Libvirtd, config: LibvirtConfig) -> None:
    kernel = stub.write(plain.top / "ending", "kernel panic", ending=stub.Ending.POWER_OFF)
    config = replace(config, uri=plain.uri, kernel=str(kernel))
    async with LibvirtProvider(config) as provider:
        with pytest.raises(ProviderError, match=f"machine {NAME} ended before it had an address.*kernel panic"):
            await provider.create(REQUEST)
        await provider.delete(REQUEST.target)


async def test_a_machine_without_an_address_in_time_is_told_with_its_last_words(
    plain: Libvirtd, config: LibvirtConfig
) -> None:
    kernel = stub.write(plain.top / "idling", "no dhcp here")
    config = replace(config, uri=plain.uri, kernel=str(kernel), address_timeout=Duration(1.0))
    async with LibvirtProvider(config) as provider:
        with pytest.raises(ProviderError, match=f"no address from network {NETWORK} in 1 s.*no dhcp here") as error:
            await provider.create(REQUEST)
        assert error.value.fault is Fault.TRANSIENT
        await provider.delete(REQUEST.target)


def _leases(daemon: Libvirtd) -> set[str]:
    """The addresses that are leased."""
    return {row.split()[4].partition("/")[0] for row in daemon.virsh("net-dhcp-leases", NETWORK).splitlines() if row}


async def test_a_deleted_machines_leases_end_and_anothers_stay(given: Libvirtd, config: LibvirtConfig) -> None:
    tags = ((OWNER_TAG, OWNER), (SANDBOX_TAG, "other"))
    other = replace(REQUEST, target=Target("other", "podvm-other"), token="other", tags=tags)
    async with LibvirtProvider(config) as provider:
        stays = await provider.create(other)
        made = await provider.create(replace(REQUEST, spec=InstanceSpec(multi_nic=True)))
        assert _leases(given) >= {*stays.addresses, *made.addresses}
        await provider.delete(REQUEST.target)
        assert not _leases(given) & set(made.addresses)
        assert _leases(given) >= set(stays.addresses)
        given.virsh("destroy", other.target.name)  # as a deletion does that is killed just then
        await provider.delete(other.target)
        assert not _leases(given) & set(stays.addresses)


async def test_a_long_console_log_goes_with_all_of_its_parts(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(config) as provider:
        await provider.create(REQUEST)
        (given.pool / f"{NAME}-console.log.0").write_text("earlier")  # as virtlogd does after 2 MiB
        await provider.delete(REQUEST.target)


async def test_a_machine_that_ended_is_made_anew_by_the_same_token(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(config) as provider:
        first = await provider.create(REQUEST)
        given.virsh("destroy", NAME)
        again = await provider.create(REQUEST)
        assert again.id == first.id
        assert _leases(given) & {*first.addresses, *again.addresses} == set(again.addresses)
        assert given.virsh("domstate", NAME) == "running"
        other = await provider.create(replace(REQUEST, token="later"))
        assert other.id != first.id
        assert given.virsh("list", "--all", "--name").split() == [NAME]
        await provider.delete(REQUEST.target)


async def test_a_machine_known_by_its_id_alone_is_refused_as_long_as_it_is_there(
    given: Libvirtd, config: LibvirtConfig
) -> None:
    async with LibvirtProvider(config) as provider:
        made = await provider.create(REQUEST)
        number = given.virsh("domid", NAME).strip()
        for instance_id in (made.id, NAME, number):
            with pytest.raises(ProviderError, match="not of this adaptor's making") as caught:
                await provider.delete(Target("", "", instance_id))
            assert caught.value.fault is Fault.FATAL
        await provider.delete(REQUEST.target)
        await provider.delete(Target("", "", made.id))


async def test_a_libvirtd_that_starts_again_is_used_again(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(config) as provider:
        made = await provider.create(REQUEST)
        given.kill()
        with pytest.raises(ProviderError) as error:
            await provider.owned(OWNER)
        assert error.value.fault is Fault.TRANSIENT
        failed = [each for each in await provider.check() if not each.passed]
        assert [each.subject for each in failed] == ["connection"]
        given.start()
        assert made.id in [each.id for each in await provider.owned(OWNER)]
        assert await provider.create(REQUEST) == made
        await provider.delete(REQUEST.target)


async def test_a_libvirtd_that_falls_silent_does_not_hold_anybody_up(
    given: Libvirtd, config: LibvirtConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "_KEEPALIVE_INTERVAL", 1)
    monkeypatch.setattr(binding, "_KEEPALIVE_COUNT", 1)
    async with LibvirtProvider(config) as provider:
        given.signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(ProviderError) as error:
                    await provider.owned(OWNER)
        finally:
            given.signal(signal.SIGCONT)
        assert error.value.fault is Fault.TRANSIENT
        assert await provider.owned(OWNER) == []


@pytest.mark.parametrize(
    ("change", "named", "hint"),
    [
        ({"pool": "none"}, "no storage pool with matching name 'none'", "LIBVIRT_POOL"),
        ({"network": "none"}, "no network with matching name 'none'", "LIBVIRT_NET"),
        ({"image": "none.qcow2"}, "pool pods has no volume none.qcow2", "LIBVIRT_VOL_NAME"),
        ({"kernel": "none"}, "pool pods has no volume none", "LIBVIRT_KERNEL"),
        ({"architecture": "aarch64"}, "aarch64", ""),
    ],
)
async def test_what_the_host_lacks_is_told_with_the_setting_to_change(
    given: Libvirtd, config: LibvirtConfig, change: dict[str, str], named: str, hint: str
) -> None:
    async with LibvirtProvider(replace(config, **change)) as provider:
        with pytest.raises(ProviderError, match=named) as error:
            await provider.create(REQUEST)
        assert error.value.fault is Fault.FATAL
        assert hint in error.value.hint
        failed = [each for each in await provider.check() if not each.passed]
        assert any(named in each.detail for each in failed)
        await provider.delete(REQUEST.target)


async def test_a_network_that_is_down_is_told(given: Libvirtd, config: LibvirtConfig) -> None:
    given.virsh("net-destroy", NETWORK)
    try:
        async with LibvirtProvider(config) as provider:
            with pytest.raises(ProviderError, match="network pods is not active"):
                await provider.create(REQUEST)
            assert [each.subject for each in await provider.check() if not each.passed] == [f"network {NETWORK}"]
    finally:
        given.virsh("net-start", NETWORK)


async def test_a_host_without_the_memory_lacks_capacity(given: Libvirtd, config: LibvirtConfig) -> None:
    async with LibvirtProvider(config) as provider:
        with pytest.raises(ProviderError) as error:
            await provider.create(replace(REQUEST, spec=InstanceSpec(memory=900 << 20)))
        assert error.value.fault is Fault.CAPACITY, error.value
        await provider.delete(REQUEST.target)


async def test_a_pool_without_room_is_a_matter_of_quota(given: Libvirtd, config: LibvirtConfig) -> None:
    small = given.top / "small"
    small.mkdir()
    given.run("mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(small))
    given.define("pool-define", f"<pool type='dir'><name>small</name><target><path>{small}</path></target></pool>")
    given.virsh("pool-start", "small")
    given.virsh("vol-create-as", "small", "base.img", "1M", "--allocation", "0", "--format", "raw")
    try:
        async with LibvirtProvider(replace(config, pool="small", image="base.img")) as provider:
            assert "make room" in {each.subject: each for each in await provider.check()}["pool small"].detail
            with pytest.raises(ProviderError) as error:
                await provider.create(REQUEST)
            assert error.value.fault is Fault.QUOTA, error.value
            await provider.delete(REQUEST.target)
            assert given.virsh("vol-list", "small").split()[0::2] == ["base.img"]
    finally:
        given.virsh("pool-destroy", "small")
        given.virsh("pool-undefine", "small")


def _image(place: Path) -> Path:
    """A qcow2 image of 5 GiB, of which 2 MiB are written."""
    path = place / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "5G"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 0 2M", path], check=True, stdout=subprocess.DEVNULL)
    return path


async def test_an_image_is_uploaded_as_it_is(given: Libvirtd, config: LibvirtConfig, tmp_path: Path) -> None:
    path, told = _image(tmp_path), []
    facts = await image.upload(config, path, "peer.qcow2", lambda sent, total: told.append((sent, total)))
    assert (facts.name, facts.form, facts.capacity) == ("peer.qcow2", "qcow2", 5 << 30)
    assert (given.pool / "peer.qcow2").read_bytes() == path.read_bytes()
    size = path.stat().st_size
    assert told == sorted(told)
    assert told[-1] == (size, size)
    with pytest.raises(ProviderError, match=r"has a volume peer\.qcow2 already"):
        await image.upload(config, path, "peer.qcow2")
    async with LibvirtProvider(config) as provider:
        await provider.create(replace(REQUEST, spec=InstanceSpec(image="peer.qcow2")))
        await provider.delete(REQUEST.target)
    given.virsh("vol-delete", "peer.qcow2", POOL)


async def test_an_upload_that_is_cancelled_leaves_no_volume(
    given: Libvirtd, config: LibvirtConfig, tmp_path: Path
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8 << 20))
    begun = asyncio.Event()
    uploading = asyncio.create_task(image.upload(config, path, "peer.img", lambda sent, total: begun.set()))
    async with asyncio.timeout(10):
        await begun.wait()
    uploading.cancel()
    await asyncio.wait([uploading])
    assert uploading.cancelled()
    assert "peer.img" not in given.virsh("vol-list", POOL)


async def test_the_same_file_is_uploaded_once(given: Libvirtd, config: LibvirtConfig, tmp_path: Path) -> None:
    path = _image(tmp_path)
    disk = examine(path)
    async with LibvirtImages(config) as images:
        first = await images.upload(disk, "podvm", lambda done, total: None)
        try:
            again = await images.upload(disk, "podvm", lambda done, total: None)
            assert (first.found, again.found) == (False, True)
            assert first.value == again.value == f"podvm-{disk.digest[:12]}.qcow2"
            assert [image.value for image in await images.stored()] == [first.value]
            assert (given.pool / first.value).read_bytes() == path.read_bytes()
        finally:
            given.virsh("vol-delete", "--pool", POOL, first.value)


async def test_what_a_killed_upload_left_is_replaced(given: Libvirtd, config: LibvirtConfig, tmp_path: Path) -> None:
    path = tmp_path / "podvm.raw"
    path.write_bytes(b"beginning" + bytes(1 << 20) + b"end")
    disk = examine(path)
    name = f"podvm-{disk.digest[:12]}.raw"
    given.virsh("vol-create-as", POOL, name, str(disk.size), "--format", "raw")
    async with LibvirtImages(config) as images:
        try:
            assert not (await images.upload(disk, "podvm", lambda done, total: None)).found
            assert (given.pool / name).read_bytes() == path.read_bytes()
        finally:
            given.virsh("vol-delete", "--pool", POOL, name)


def test_the_command_uploads_and_prints_what_to_set(given: Libvirtd, tmp_path: Path) -> None:
    path = tmp_path / "podvm.raw"
    path.write_bytes(b"disk")
    line = [*ADAPTOR, "libvirt", "image"]
    environment = {**os.environ, "LIBVIRT_URI": given.uri, "LIBVIRT_POOL": POOL}
    done = subprocess.run(
        [*line, "upload", str(path), "--name", "peer"], env=environment, capture_output=True, text=True, timeout=60
    )
    try:
        assert done.returncode == 0, done.stderr
        key, _, name = done.stdout.strip().partition("=")
        assert key == "LIBVIRT_VOL_NAME"
        assert (given.pool / name).read_bytes() == b"disk"
        listed = subprocess.run([*line, "list"], env=environment, capture_output=True, text=True, timeout=60)
        assert listed.stdout.startswith(f"LIBVIRT_VOL_NAME={name}\t")
    finally:
        given.virsh("vol-delete", "--pool", POOL, name)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_an_upload_that_is_interrupted_takes_back_what_it_has_made(
    given: Libvirtd, tmp_path: Path, number: signal.Signals, word: str
) -> None:
    path = tmp_path / "podvm.raw"
    with path.open("wb") as file:
        file.write(b"disk")
        file.truncate(1 << 30)  # more than goes until the signal comes
    line = [*ADAPTOR, "libvirt", "image", "upload", str(path)]
    environment = {**os.environ, "LIBVIRT_URI": given.uri, "LIBVIRT_POOL": POOL}
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as uploading:
        assert uploading.stderr is not None
        said = []
        for text in uploading.stderr:
            said.append(text)
            if text.startswith("uploading:"):
                uploading.send_signal(number)
                break
        said += uploading.stderr.readlines()
        assert uploading.wait(30) == 128 + number, said
    assert said[-1] == f"cloud-api-adaptor: {word}\n"
