"""A machine as libvirt's XML, and the mark by which it is found again.

The machine's UUID comes of the request's token: whoever tries the same again names the same machine. Its hardware
addresses are new whenever it is defined, so that no lease of an earlier guest is taken for one of its own.

Source: libvirt's "Domain XML format"; cloud-api-adaptor `src/cloud-providers/libvirt/libvirt.go`. Unlike there, disks
are virtio on x86_64 too, since cloud kernels (Debian's for one) have no SATA, and Secure Execution is asked for, where
upstream only has the devices go through the IOMMU.
"""

from __future__ import annotations

import secrets
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG
from kata_caa.providers.libvirt.config import KVM

NAMESPACE = "urn:kata-py:machine:1"
_PREFIX = "kata-py"
_UUIDS = uuid.UUID("5b1e5b1c-6d0c-5d0e-9d25-0d7c6f7f9f9a")  # any will do, and must never change
_MACHINES = {"x86_64": "q35", "s390x": "s390-ccw-virtio", "aarch64": "virt"}
_IOMMU = ("s390x", "aarch64")  # whose devices go through it, as encrypted memory needs
_AGENT_CHANNEL = "org.qemu.guest_agent.0"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is written in the metadata of a machine.

    Attributes:
        tags: The request's, among them the owner's and the sandbox's.
        volumes: Paths of the volumes that were made for the machine.
        macs: Its interfaces' hardware addresses, in order.
    """

    tags: Mapping[str, str]
    volumes: tuple[str, ...]
    macs: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """Whose adaptor made it."""
        return self.tags.get(OWNER_TAG, "")

    @property
    def sandbox_id(self) -> str:
        """Whose machine it is."""
        return self.tags.get(SANDBOX_TAG, "")


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is booted in the place of the disk: files on the host; an empty initrd is none."""

    path: str
    initrd: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that is to be defined.

    Attributes:
        uuid: Of `uuid_of`.
        name: Of the target.
        tags: What its mark says.
        architecture: x86_64, s390x or aarch64.
        kind: `kvm` or `qemu`.
        emulator: Path on the host; empty is libvirt's choice.
        vcpus: Processors.
        cpuset: The host's processors for them; empty is all.
        memory: MiB.
        firmware: UEFI on the host; empty is the BIOS.
        kernel: What is booted in the place of the disk.
        root: Path of its disk, qcow2.
        cidata: Path of the disc with its user data.
        sata: Whether its disks are SATA, the second one an optical drive, as upstream's are on x86_64.
        console_log: Path of what its console says; empty keeps nothing.
        network: What its interfaces are attached to.
        macs: Its interfaces' hardware addresses, in order.
        agent: Whether it has a channel to QEMU's guest agent.
        protected: Whether it is an s390-pv guest.
    """

    uuid: str
    name: str
    tags: tuple[tuple[str, str], ...]
    root: str
    cidata: str
    network: str
    macs: tuple[str, ...]
    architecture: str = "x86_64"
    kind: str = KVM
    emulator: str = ""
    vcpus: int = 2
    cpuset: str = ""
    memory: int = 8192
    firmware: str = ""
    kernel: Kernel | None = None
    sata: bool = False
    console_log: str = ""
    agent: bool = False
    protected: bool = False

    @property
    def volumes(self) -> tuple[str, ...]:
        """Paths of all that is made for it."""
        return tuple(filter(None, (self.root, self.cidata, self.console_log)))


def uuid_of(token: str) -> str:
    """The UUID of the machine that a token asks for."""
    return str(uuid.uuid5(_UUIDS, token))


def new_macs(count: int) -> tuple[str, ...]:
    """Hardware addresses of QEMU's range that nobody has had."""
    return tuple("52:54:00:" + secrets.token_bytes(3).hex(":") for _ in range(count))


def read_mark(text: str) -> Mark:
    """The mark of a machine, as libvirt gives its metadata element back."""
    element = ET.fromstring(text)
    # libvirt gives the element back without its prefix, or with it: names are compared without their namespace.
    children = [(child.tag.rpartition("}")[2], child) for child in element]
    return Mark(
        {child.get("name", ""): child.get("value", "") for name, child in children if name == "tag"},
        tuple(child.get("path", "") for name, child in children if name == "volume"),
        tuple(child.get("mac", "") for name, child in children if name == "interface"),
    )


def describe(machine: Machine) -> str:
    """The machine as libvirt's domain XML."""
    top = ET.Element("domain", type=machine.kind)
    _text(top, "name", machine.name)
    _text(top, "uuid", machine.uuid)
    _mark(top, machine)
    _text(top, "memory", str(machine.memory), unit="MiB")
    _text(top, "vcpu", str(machine.vcpus), placement="static", **({"cpuset": machine.cpuset} if machine.cpuset else {}))
    _boot(top, machine)
    if machine.architecture == "x86_64":
        features = ET.SubElement(top, "features")
        ET.SubElement(features, "acpi")
        ET.SubElement(features, "apic")
        ET.SubElement(features, "vmport", state="off")
    _processor(top, machine)
    ET.SubElement(top, "clock", offset="utc")
    _text(top, "on_poweroff", "destroy")
    _text(top, "on_reboot", "restart")
    _text(top, "on_crash", "destroy")
    _devices(ET.SubElement(top, "devices"), machine)
    if machine.protected:
        ET.SubElement(top, "launchSecurity", type="s390-pv")
    ET.indent(top)
    return ET.tostring(top, encoding="unicode")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _mark(top: ET.Element, machine: Machine) -> None:
    metadata = ET.SubElement(top, "metadata")
    mark = ET.SubElement(metadata, f"{_PREFIX}:machine", {f"xmlns:{_PREFIX}": NAMESPACE})
    for name, value in machine.tags:
        ET.SubElement(mark, f"{_PREFIX}:tag", name=name, value=value)
    for path in machine.volumes:
        ET.SubElement(mark, f"{_PREFIX}:volume", path=path)
    for mac in machine.macs:
        ET.SubElement(mark, f"{_PREFIX}:interface", mac=mac)


def _boot(top: ET.Element, machine: Machine) -> None:
    os = ET.SubElement(top, "os")
    _text(os, "type", "hvm", arch=machine.architecture, machine=_MACHINES[machine.architecture])
    if machine.firmware:
        _text(os, "loader", machine.firmware, readonly="yes", type="pflash")
    if machine.kernel:
        _text(os, "kernel", machine.kernel.path)
        if machine.kernel.initrd:
            _text(os, "initrd", machine.kernel.initrd)
        if machine.kernel.arguments:
            _text(os, "cmdline", machine.kernel.arguments)


def _processor(top: ET.Element, machine: Machine) -> None:
    # An emulated machine cannot have the host's processor, and libvirt's default for it is a very old one.
    if machine.kind != KVM:
        ET.SubElement(top, "cpu", mode="maximum")
    else:
        ET.SubElement(top, "cpu", mode="host-passthrough" if machine.architecture == "aarch64" else "host-model")


def _devices(devices: ET.Element, machine: Machine) -> None:
    iommu = {"iommu": "on"} if machine.architecture in _IOMMU or machine.protected else {}
    if machine.emulator:
        _text(devices, "emulator", machine.emulator)
    if machine.sata:
        disk = _disk(devices, machine.root, "disk", "qcow2", "sda", "sata", {})
        disc = _disk(devices, machine.cidata, "cdrom", "raw", "sdb", "sata", {})
    else:
        disk = _disk(devices, machine.root, "disk", "qcow2", "vda", "virtio", iommu)
        disc = _disk(devices, machine.cidata, "disk", "raw", "vdb", "virtio", iommu)
    ET.SubElement(disk, "boot", order="1")
    ET.SubElement(disc, "readonly")

    for mac in machine.macs:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "mac", address=mac)
        ET.SubElement(interface, "source", network=machine.network)
        ET.SubElement(interface, "model", type="virtio")
        if iommu:
            ET.SubElement(interface, "driver", iommu)

    console = ET.SubElement(devices, "console", type="pty")  # libvirt adds the serial port of a console of that type
    if machine.console_log:
        ET.SubElement(console, "log", file=machine.console_log, append="off")
    ET.SubElement(console, "target", type="sclp" if machine.architecture == "s390x" else "serial", port="0")
    if machine.agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=_AGENT_CHANNEL)

    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    generator = ET.SubElement(devices, "rng", model="virtio")
    _text(generator, "backend", "/dev/urandom", model="random")
    if iommu:
        ET.SubElement(balloon, "driver", iommu)
        ET.SubElement(generator, "driver", iommu)


def _disk(
    devices: ET.Element, path: str, device: str, form: str, target: str, bus: str, iommu: Mapping[str, str]
) -> ET.Element:
    disk = ET.SubElement(devices, "disk", type="file", device=device)
    ET.SubElement(disk, "driver", {"name": "qemu", "type": form, **iommu})
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev=target, bus=bus)
    return disk
