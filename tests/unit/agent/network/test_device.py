from __future__ import annotations

import time
from pathlib import Path

import pytest

from kata_agent.errors import AgentError
from kata_agent.network.device import find_interface, wait_for_interface

INTERFACES = (
    "pci0000:00/0000:00:02.0/virtio0/net/ens2",
    "pci0000:00/0000:00:02.1/virtio3/net/ens2f1",
    "pci0000:00/0000:00:1e.0/pci_bus/0000:01/brightness",
    "pci0000:00/0000:00:1e.0/0000:01:03.0/virtio1/net/ens3",
    "pci0000:00/0000:00:03.0/net/eno1",
    "pci0000:00/0000:00:03.0/net/eno2",
    "pci0000:00/0000:00:04.0/virtio2/block/vda",
    "pci0000:20/0000:20:00.0/pci_bus/0000:21/brightness",
    "pci0000:20/0000:20:00.0/0000:21:02.0/virtio4/net/enp33s2",
    "css0/0.0.0001/0.0.0003/virtio5/net/enc3",
    "css0/0.0.0002/0.1.00ab/virtio6/net/enc1ab",
)


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """Devices as sysfs shows them."""
    for path in INTERFACES:
        (tmp_path / path).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("02", "ens2"),
        ("02.0", "ens2"),
        ("02.1", "ens2f1"),
        ("1e/03", "ens3"),
        ("1E/3", "ens3"),
        ("03", "eno1"),
        ("20/00/02", "enp33s2"),
        ("0.0.0003", "enc3"),
        ("0.0.3", "enc3"),
        ("0.1.00AB", "enc1ab"),
        ("04", None),
        ("05", None),
        ("1e", None),
        ("05/00", None),
        ("0.0.0009", None),
    ],
)
def test_an_interface_is_found_by_its_devices_path(devices: Path, path: str, name: str | None) -> None:
    assert find_interface(path, devices) == name


def test_a_machine_without_such_a_bus_has_no_interface(tmp_path: Path) -> None:
    assert find_interface("0.0.0003", tmp_path) is None
    assert find_interface("02/03", tmp_path) is None


@pytest.mark.parametrize("path", ["", "/", "xx", "02/", "02.8", "02.0.0/1", "1/20", "100/00/02", "02/-1", "1f/02.x"])
def test_what_is_no_pci_path_is_refused(devices: Path, path: str) -> None:
    with pytest.raises(AgentError, match="Invalid PCI path for network interface"):
        find_interface(path, devices)


@pytest.mark.parametrize("path", ["1.0.0003", "0.4.0003", "0.0.10000", "0.0.xyz", "0..3"])
def test_what_is_no_ccw_id_is_refused(devices: Path, path: str) -> None:
    with pytest.raises(AgentError, match="Unexpected CCW path for network interface"):
        find_interface(path, devices)


async def test_an_interface_that_is_there_is_not_waited_for(devices: Path) -> None:
    assert await wait_for_interface("1e/03", 0.001, devices) == "ens3"


async def test_the_wait_ends_at_its_bound_and_says_what_for(devices: Path) -> None:
    began = time.monotonic()

    with pytest.raises(AgentError, match=r"no network interface at 05/00 within 0\.05 s \(agent\.hotplug_timeout\)"):
        await wait_for_interface("05/00", 0.05, devices)

    assert time.monotonic() - began < 5


async def test_a_path_of_no_form_is_refused_at_once(devices: Path) -> None:
    with pytest.raises(AgentError, match="Invalid PCI path"):
        await wait_for_interface("nowhere", 60, devices)
