"""A machine's XML; tests/functional/caa holds it against libvirt's own schema."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG
from kata_caa.providers.libvirt.domain import NAMESPACE, Kernel, Machine, describe, new_macs, read_mark, uuid_of

TAGS = ((OWNER_TAG, "node-1"), (SANDBOX_TAG, "0a1b"), ("note", "<&\"'>"))
PLAIN = Machine(
    uuid_of("token"),
    "podvm-web-0a1b",
    TAGS,
    "/pool/web-root.qcow2",
    "/pool/web-cloudinit.iso",
    "default",
    ("52:54:00:00:00:01",),
)

_VIRTIO = ("disk", "interface", "rng", "memballoon")

MACHINES = {
    "bios": PLAIN,
    "uefi": replace(PLAIN, firmware="/usr/share/OVMF/OVMF_CODE_4M.fd", cpuset="0-1"),
    "sata": replace(PLAIN, sata=True),
    "console": replace(PLAIN, console_log="/pool/web-console.log"),
    "kernel": replace(PLAIN, kind="qemu", kernel=Kernel("/pool/vmlinux", "/pool/initrd", "console=ttyS0")),
    "two interfaces": replace(
        PLAIN, macs=("52:54:00:00:00:01", "52:54:00:00:00:02"), agent=True, emulator="/usr/bin/qemu-system-x86_64"
    ),
    "s390x": replace(PLAIN, architecture="s390x"),
    "s390x emulated": replace(PLAIN, architecture="s390x", kind="qemu"),
    "secure execution": replace(PLAIN, architecture="s390x", protected=True),
    "aarch64": replace(PLAIN, architecture="aarch64", firmware="/usr/share/AAVMF/AAVMF_CODE.fd"),
}


def test_the_mark_of_a_machine_is_read_back():
    machine = MACHINES["console"]
    element = ET.fromstring(describe(machine)).find(f"metadata/{{{NAMESPACE}}}machine")
    mark = read_mark(ET.tostring(element, encoding="unicode"))
    assert mark.tags == dict(TAGS)
    assert (mark.owner, mark.sandbox_id) == ("node-1", "0a1b")
    assert mark.macs == machine.macs == ("52:54:00:00:00:01",)
    assert mark.volumes == machine.volumes == (machine.root, machine.cidata, machine.console_log)


def test_the_same_token_names_the_same_machine():
    assert uuid_of("a") == uuid_of("a") != uuid_of("b")


def test_a_machine_has_hardware_addresses_that_no_other_had():
    assert len({*new_macs(2), *new_macs(2)}) == 4
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", mac) for mac in new_macs(9))


def test_an_emulated_machine_has_no_processor_of_the_hosts():
    modes = {name: ET.fromstring(describe(MACHINES[name])).find("cpu").get("mode") for name in MACHINES}
    assert modes["kernel"] == modes["s390x emulated"] == "maximum"
    assert modes["bios"] == modes["s390x"] == "host-model"
    assert modes["aarch64"] == "host-passthrough"


def test_a_confidential_machine_is_protected_and_its_devices_go_through_the_iommu():
    top = ET.fromstring(describe(MACHINES["secure execution"]))
    assert top.find("launchSecurity").get("type") == "s390-pv"
    drivers = [each.find("driver") for each in top.iterfind("devices/*") if each.tag in _VIRTIO]
    assert len(drivers) == 5
    assert {driver.get("iommu") for driver in drivers} == {"on"}
    assert ET.fromstring(describe(MACHINES["s390x"])).find("launchSecurity") is None


def test_no_secret_of_the_request_is_in_a_definition():
    assert "user" not in describe(PLAIN)  # user data goes by the disc alone
