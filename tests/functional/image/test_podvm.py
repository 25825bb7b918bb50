"""The peer pod's disk boots as clouds boot it, to an agent that serves. `make podvm` builds it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from image.build import BOOT, CHECKOUT, DISK
from image.peer import ROOT_LABEL
from kata_caa import apf
from kata_caa.apf import Encryption, ForwarderConfig, PodNetwork
from kata_caa.providers.libvirt.cidata import disc
from kata_caa.userdata import APF, SCRATCH_MARKER, File, render
from tests.pki import pair

PODVM = CHECKOUT / "build/podvm"
OVMF = Path("/usr/share/OVMF")
LIMIT = 90.0  # seconds; about fifteen are needed
SERVES = b"serves unix:///run/kata-containers/agent.sock"
TUNNEL = (b"forwarder: pod network ", b"forwarder: ready on ")
UNBOUND = ForwarderConfig(unbound=True)
IN_PLAIN = b"lost+found"  # what an ext4 that is new has written

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


def copy(machine: str, tmp_path: Path, *size: str) -> Path:
    """A copy of the disk, larger if so told, as clouds give them; its file has what the machine writes."""
    path = tmp_path / "copy.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk(machine), "-F", "qcow2", path, *size]
    subprocess.run(command, check=True)
    return path


def encrypted() -> ForwarderConfig:
    """What a machine is told whose pod's tunnel is encrypted, and whose node is QEMU's own network."""
    network = PodNetwork(
        pod_ip="10.244.0.11/24", hardware_address="02:00:00:00:00:0b", interface="eth0", worker_ip="10.0.2.2/24",
        mtu=1500, vxlan_id=555000, encryption=Encryption(b"p" * 32, b"n" * 32, b"s" * 32, 51820, 51821),
    )  # fmt: skip
    server, client = pair("podvm"), pair("cloud-api-adaptor", client=True)
    return ForwarderConfig(
        network, tls_server_key=server.key, tls_server_cert=server.certificate, tls_client_ca=client.certificate
    )


def user_data(tmp_path: Path, *more: File, config: ForwarderConfig = UNBOUND) -> str:
    """A drive, not plugged in, with user data; by default those of a machine that waits for a pod."""
    path = tmp_path / "cidata.iso"
    path.write_bytes(disc(render([File(APF, apf.dump(config)), *more]), "podvm"))
    return f"file={path},format=raw,if=none,id=cidata,readonly=on"


def pc(path: Path, *drive: str | Path) -> list[str | Path]:
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
    options += ["-serial", "stdio", "-drive", f"file={path},format=qcow2,if=none,id=root", *drive]
    return ["qemu-system-x86_64", *options, "-nic", "user,model=virtio-net-pci"]


def s390x(path: Path, *drive: str | Path) -> list[str | Path]:
    options = ["-M", "s390-ccw-virtio,accel=tcg", "-m", "512", "-nodefaults", "-no-reboot", "-display", "none"]
    options += ["-chardev", "stdio,id=console", "-device", "sclpconsole,chardev=console"]
    options += ["-drive", f"file={path},format=qcow2,if=none,id=root"]
    return ["qemu-system-s390x", *options, *drive, "-nic", "user,model=virtio"]


async def test_a_bios_boots_it_from_a_sata_disk_and_what_the_disk_has_beyond_it_is_for_images(tmp_path: Path) -> None:
    path = copy("x86_64", tmp_path, "2G")
    drives = ["-device", "ide-hd,drive=root,bus=ide.0", "-drive", user_data(tmp_path)]
    drives += ["-device", "ide-cd,drive=cidata,bus=ide.1"]
    await console_until(pc(path, *drives), SERVES, b" MiB of sda for images ")
    assert IN_PLAIN in path.read_bytes()


async def test_room_that_a_kernel_cannot_encrypt_is_not_used(tmp_path: Path) -> None:
    path, parts = copy("x86_64", tmp_path, "2G"), PODVM / "x86_64"
    boot = json.loads((parts / BOOT).read_text())
    line = " ".join((*boot["parameters"], f"root=PARTLABEL={ROOT_LABEL}", "module_blacklist=dm_crypt"))
    drives = ["-device", "virtio-blk-pci,drive=root", "-kernel", parts / boot["kernel"]]
    drives += ["-initrd", parts / boot["initramfs"], "-append", line]
    drives += ["-drive", user_data(tmp_path, File(SCRATCH_MARKER, "")), "-device", "virtio-blk-pci,drive=cidata"]
    refusal = b"images are kept in memory: the free space of vda is not used, as it cannot be encrypted"
    await console_until(pc(path, *drives), refusal)
    assert IN_PLAIN not in path.read_bytes()


async def test_uefi_boots_it_from_an_nvme_disk_and_it_makes_its_end_of_an_encrypted_tunnel(tmp_path: Path) -> None:
    variables = tmp_path / "variables"
    shutil.copy(OVMF / "OVMF_VARS.fd", variables)
    flash = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE.fd"]
    flash += ["-drive", f"if=pflash,format=raw,file={variables}"]
    drives = ["-device", "nvme,drive=root,serial=root", "-drive", user_data(tmp_path, config=encrypted())]
    drives += ["-device", "virtio-blk-pci,drive=cidata"]
    await console_until([*pc(copy("x86_64", tmp_path), *drives), *flash], SERVES, *TUNNEL)


async def test_an_s390x_machine_boots_it_from_a_virtio_disk_and_encrypts_what_it_is_told_to(
    tmp_path: Path,
) -> None:
    path = copy("s390x", tmp_path, "2G")
    drives = ["-device", "virtio-blk-ccw,drive=root,bootindex=1"]
    drives += ["-drive", user_data(tmp_path, File(SCRATCH_MARKER, ""), config=encrypted())]
    drives += ["-device", "virtio-blk-ccw,drive=cidata"]
    await console_until(s390x(path, *drives), SERVES, b" for images, encrypted ", *TUNNEL)
    assert IN_PLAIN not in (written := path.read_bytes())
    assert len(written) > 1 << 20
