"""The peer pod's disk boots as clouds boot it, to an agent that serves. `make podvm` builds it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from image.build import CHECKOUT, DISK
from kata_caa import apf, userdata
from kata_caa.apf import Encryption, ForwarderConfig, PodNetwork
from kata_caa.providers.libvirt.cidata import disc
from tests.pki import pair

PODVM = CHECKOUT / "build/podvm"
OVMF = Path("/usr/share/OVMF")
LIMIT = 90.0  # seconds; about twelve are needed
SERVES = b"serves unix:///run/kata-containers/agent.sock"

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(2 * LIMIT)]


def disk(machine: str) -> Path:
    path = PODVM / machine / DISK
    if not path.is_file():
        pytest.fail(f"no {path}: run `make podvm`")
    return path


async def console_until(command: Sequence[str | Path], *marks: bytes, limit: float = LIMIT) -> None:
    """Start a machine and read its console until all marks were there; it has then ended."""
    machine = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert machine.stdout is not None
    console = b""
    began = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            while not all(mark in console for mark in marks) and (more := await machine.stdout.read(4096)):
                console += more
    except TimeoutError:
        pass  # what is on the console says more
    finally:
        if machine.returncode is None:
            machine.kill()
        await machine.wait()
    text = console.decode(errors="replace")
    missing = [mark for mark in marks if mark not in console]
    assert not missing, f"no {missing} on the console in {time.monotonic() - began:.0f} s:\n{text}"


def pc(path: Path, *drive: str, network: str = "user,restrict=on") -> list[str | Path]:
    options = [
        "-M",
        "q35,accel=tcg",
        "-cpu",
        "max,erms=off",
        "-m",
        "512",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
    ]
    options += ["-serial", "stdio", "-drive", f"file={path},format=qcow2,if=none,id=root,snapshot=on", *drive]
    return ["qemu-system-x86_64", *options, "-nic", f"{network},model=virtio-net-pci"]


def mainframe() -> list[str | Path]:
    options = ["-M", "s390-ccw-virtio,accel=tcg", "-m", "512", "-nodefaults", "-no-reboot", "-display", "none"]
    options += ["-chardev", "stdio,id=console", "-device", "sclpconsole,chardev=console"]
    options += ["-drive", f"file={disk('s390x')},format=qcow2,if=none,id=root,snapshot=on"]
    return ["qemu-system-s390x", *options, "-device", "virtio-blk-ccw,drive=root,bootindex=1"]


def user_data() -> str:
    """What a machine is given whose pod's tunnel is encrypted, and whose node is QEMU's own network."""
    network = PodNetwork(
        pod_ip="10.244.0.11/24", hardware_address="02:00:00:00:00:0b", interface="eth0", worker_ip="10.0.2.2/24",
        mtu=1500, vxlan_id=555000, encryption=Encryption(b"p" * 32, b"n" * 32, b"s" * 32, 51820, 51821),
    )  # fmt: skip
    server, client = pair("podvm"), pair("cloud-api-adaptor", client=True)
    config = ForwarderConfig(
        network, tls_server_key=server.key, tls_server_cert=server.certificate, tls_client_ca=client.certificate
    )
    return userdata.render([userdata.File(userdata.APF, apf.dump(config))])


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """A disk larger than the one that was built, as clouds give them."""
    path = tmp_path / "larger.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk("x86_64"), "-F", "qcow2", path, "2G"]
    subprocess.run(command, check=True)
    return path


async def test_a_bios_boots_it_from_a_sata_disk_and_what_the_disk_has_beyond_it_is_for_images(larger: Path) -> None:
    await console_until(pc(larger, "-device", "ide-hd,drive=root,bus=ide.0"), SERVES, b" MiB of sda for images")


async def test_uefi_boots_it_from_an_nvme_disk(tmp_path: Path) -> None:
    variables = tmp_path / "variables"
    shutil.copy(OVMF / "OVMF_VARS.fd", variables)
    flash = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE.fd"]
    flash += ["-drive", f"if=pflash,format=raw,file={variables}"]
    await console_until([*pc(disk("x86_64"), "-device", "nvme,drive=root,serial=root"), *flash], SERVES)


async def test_an_s390x_machine_boots_it_from_a_virtio_disk() -> None:
    await console_until(mainframe(), SERVES)


@pytest.mark.parametrize("machine", ["x86_64", "s390x"])
async def test_it_makes_its_end_of_an_encrypted_tunnel(machine: str, tmp_path: Path) -> None:
    iso = tmp_path / "cidata.iso"
    iso.write_bytes(disc(user_data(), "podvm"))
    drive = ["-drive", f"file={iso},format=raw,if=none,id=cidata,readonly=on", "-device"]
    if machine == "s390x":
        command = [*mainframe(), "-nic", "user,model=virtio", *drive, "virtio-blk-ccw,drive=cidata"]
    else:
        root = ("-device", "virtio-blk-pci,drive=root")
        command = [*pc(disk(machine), *root, network="user"), *drive, "virtio-blk-pci,drive=cidata"]
    await console_until(command, b"forwarder: pod network ", b"forwarder: ready on ")
