"""Disks that are there from the start or plugged in later, as file systems and as they are, in the built guest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.guest_machine import guest as built
from bench.guest_machine import run
from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.health_pb2 import CheckRequest
from kata_protos.health_ttrpc import HealthClient
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor.api import BlockDevice, Boot, Memory, SharedDirectory, VmSpec
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from kata_qemu.driver import QemuHypervisor
from kata_qemu.vm import QemuVm
from tests.drivers.journal import ListJournal
from tests.drivers.pod import TIMEOUT, Pod, sandbox_request
from tools import oci_image

pytestmark = [pytest.mark.qemu, pytest.mark.root]

BOOT = 60.0  # seconds
VOLUME = "/run/kata-containers/sandbox/storage/volume"


class Guest(Pod):
    """A pod in a machine that takes disks."""

    vm: QemuVm

    async def run_with(
        self,
        name: str,
        script: str,
        *,
        storages: Sequence[agent.Storage] = (),
        devices: Sequence[agent.Device] = (),
        nodes: Sequence[oci.LinuxDevice] = (),
        volume: str = VOLUME,
    ) -> bytes:
        """What a script says, in a container of its own with a volume at /volume if it has storages."""
        request = self.request(name, "sh", "-c", script)
        request.storages.extend(storages)
        request.devices.extend(devices)
        request.OCI.Linux.Devices.extend(nodes)
        if storages:
            request.OCI.Mounts.append(
                oci.Mount(destination="/volume", type="bind", source=volume, options=["rbind", "rprivate"])
            )
        self.unpack(name)
        await self.calls.CreateContainer(request, timeout=BOOT)
        await self.start(name)
        outcome = await self.outcome(name)
        assert (outcome.code, outcome.stderr) == (0, b"")
        await self.remove(name)
        return outcome.stdout


@asynccontextmanager
async def machine(guest: Path, top: Path, *disks: BlockDevice) -> AsyncIterator[Guest]:
    """The built guest with a share, a sandbox in it."""
    boot = json.loads((guest / "boot.json").read_text())
    (top / "share").mkdir()
    (top / "root").mkdir()
    oci_image.rootfs(top / "root")
    spec = VmSpec(
        "devices",
        top / "vm" / "devices",
        Boot(
            guest / boot["kernel"], guest / boot["initramfs"], guest / boot["image"], boot["image_fstype"],
            tuple(boot["parameters"]),
        ),
        memory=Memory(512, 512, 0),
        devices=(SharedDirectory("kataShared", top / "share"), *disks),
    )  # fmt: skip
    config = HypervisorConfig(
        "qemu", path=Path("/usr/bin/qemu-system-x86_64"), virtio_fs_daemon=Path("/usr/lib/qemu/virtiofsd")
    )
    driver = QemuHypervisor(Configuration(config, Path("/etc/kata-containers/configuration.toml")))
    modules = [agent.KernelModule(name=name) for name in ("isofs", "vfat", "xfs", "vfio_pci")]
    async with driver.launch(spec, ListJournal()) as vm, connect(vm.agent, timeout=TIMEOUT) as client:
        await HealthClient(client).Check(CheckRequest(), timeout=BOOT)
        calls = AgentClient(client)
        await calls.CreateSandbox(sandbox_request(kernel_modules=modules), timeout=BOOT)
        yield Guest(vm, client, calls, top / "share", top / "root")


def image(path: Path) -> Path:
    """A disk image with a file system in which a file says hello."""
    content = path.parent / f"{path.name}.d"
    content.mkdir()
    (content / "greeting").write_text("hello\n")
    with path.open("wb") as file:
        os.truncate(file.fileno(), 16 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", content, path], check=True, capture_output=True)
    return path


def volume(source: str, **fields: object) -> agent.Storage:
    return agent.Storage(driver="blk", source=source, fstype="ext4", mount_point=VOLUME, **fields)  # type: ignore[arg-type]


async def test_disks_are_mounted_and_given_to_containers(guest: Path, short_tmp: Path) -> None:
    top = short_tmp / "devices"
    top.mkdir()
    cold, hot, blank = (top / name for name in ("cold", "hot", "blank"))
    image(cold)
    image(hot)
    blank.write_bytes(bytes(16 << 20))
    async with machine(guest, top, BlockDevice("cold", cold)) as pod:
        plugged = await pod.vm.attach(BlockDevice("hot", hot))

        # A disk from the start, by its node; the image is the first.
        here = await pod.run_with("zero", "cat /volume/greeting", storages=[volume("/dev/vdb", options=["ro"])])
        assert here == b"hello\n"

        # A file system, by the disk's PCI path; it is unmounted with its last container.
        said = await pod.run_with(
            "one", "cat /volume/greeting; echo changed > /volume/greeting", storages=[volume(plugged.address)]
        )
        assert said == b"hello\n"
        assert b"changed" in hot.read_bytes()

        # The same disk as it is: the host's numbers, and the rule for them, become the guest's.
        device = agent.Device(type="blk", id=plugged.address, container_path="/dev/data")
        node = oci.LinuxDevice(Path="/dev/data", Type="b", Major=8, Minor=0, FileMode=0o660)
        script = "dd if=/dev/data bs=2 skip=540 count=1 2>/dev/null | od -An -tx2; stat -c %t /dev/data"
        said = await pod.run_with("two", script, devices=[device], nodes=[node])
        magic, major = said.decode().split()
        assert magic == "ef53"
        assert int(major, 16) != 8

        # A file system that is made here, and has its data for the next container too.
        plugged = await pod.vm.attach(BlockDevice("blank", blank))
        made = [volume(plugged.address, driver_options=["create_filesystem"])]
        assert await pod.run_with("three", "echo kept > /volume/file", storages=made) == b""
        assert await pod.run_with("four", "cat /volume/file", storages=made) == b"kept\n"

        def huge(size: str) -> agent.Storage:
            return agent.Storage(
                driver="ephemeral", source="nodev", fstype="hugetlbfs", mount_point=f"{VOLUME}-{size}",
                options=["pagesize=2Mi", f"size={size}"],
            )  # fmt: skip

        said = await pod.run_with(
            "huge", "grep HugePages_Total /proc/meminfo", storages=[huge("4Mi")], volume=f"{VOLUME}-4Mi"
        )
        assert said.split() == [b"HugePages_Total:", b"2"]
        with pytest.raises(StatusError, match=r"has only \d+ of 2048 huge pages of 2048 KiB: give it more memory"):
            await pod.run_with("huger", "true", storages=[huge("4Gi")])
        assert await pod.run_with("after", "grep HugePages_Total /proc/meminfo | tr -d ' '") == b"HugePages_Total:2\n"

        with pytest.raises(StatusError, match=r"Timeout after 3 s waiting for uevent of .* PCI path 0a.0/00.0"):
            await pod.run_with("five", "true", storages=[volume("0a/00")])


async def test_disks_of_scsi_and_persistent_memory_are_found_and_their_drivers_loaded(
    guest: Path, short_tmp: Path
) -> None:
    top = short_tmp / "drivers"
    top.mkdir()
    places = [f"/run/kata-containers/sandbox/storage/{name}" for name in ("scsi", "pmem")]
    storages = [
        agent.Storage(driver="scsi", source="3:1", fstype="ext4", options=["ro"], mount_point=places[0]),
        agent.Storage(driver="nvdimm", source="/dev/pmem0", fstype="ext4", options=["ro"], mount_point=places[1]),
        agent.Storage(driver="bind", source=f"{places[0]}/greeting", mount_point="/run/scsi-greeting"),
        agent.Storage(driver="bind", source=f"{places[1]}/greeting", mount_point="/run/pmem-greeting"),
    ]
    devices = (
        "-device", "virtio-scsi-pci,id=scsi0",
        "-drive", f"id=disk,if=none,format=raw,file={image(top / 'disk')}",
        "-device", "scsi-hd,drive=disk,bus=scsi0.0,scsi-id=3,lun=1",
        "-machine", "nvdimm=on", "-m", "slots=1,maxmem=2G",
        "-object", f"memory-backend-file,id=pmem,share=on,size=16M,mem-path={image(top / 'pmem')}",
        "-device", "nvdimm,memdev=pmem",
    )  # fmt: skip
    async with run(replace(built(), memory=512, arguments=devices)) as machine, machine.agent() as (client, _):
        request = agent.CreateSandboxRequest(sandbox_id="drivers", storages=storages)
        await AgentClient(client).CreateSandbox(request, timeout=BOOT)
