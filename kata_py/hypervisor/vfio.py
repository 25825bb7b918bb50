"""Devices of the host that a machine drives itself: found by the node that a pod is given, with what keeps them back.

Source: Linux `Documentation/driver-api/vfio.rst`, `Documentation/arch/s390/vfio-{ap,ccw}.rst`,
`Documentation/ABI/testing/sysfs-kernel-iommu_groups`; kata `virtcontainers/pkg/device/manager/utils.go`.
"""

from __future__ import annotations

import re
from pathlib import Path

from kata_py.hypervisor.api import HypervisorError, VfioDevice, VfioKind

# A group of devices that the IOMMU cannot keep apart, or one of its devices alone (Linux 6.6 and later).
NODE = re.compile(r"/dev/vfio/(?:(?P<group>\d+)|devices/(?P<device>vfio\d+))")

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_BRIDGE = "0x06"  # the class of PCI bridges, which stay the host's
_NO_IOMMU = (
    "turn on VT-d or AMD-Vi in the firmware, and boot the host with intel_iommu=on or amd_iommu=on, and iommu=pt"
)


def find(node: Path, root: Path = Path("/")) -> tuple[VfioDevice, ...]:
    """The devices behind a node, in the order of their addresses.

    Args:
        node: `/dev/vfio/<group>` or `/dev/vfio/devices/vfio<n>`.
        root: Where the host's `/sys` is.

    Raises:
        HypervisorError: There is no such device, no IOMMU, or the host's own driver has a device of the group.
    """
    match = NODE.fullmatch(str(node))
    if match is None:
        raise HypervisorError("vfio", f"{node} is no device of VFIO")
    groups = root / "sys/kernel/iommu_groups"
    if not groups.is_dir() or not any(groups.iterdir()):
        raise HypervisorError(
            "vfio", f"{node} cannot be given to a machine: the host has no IOMMU group", hint=_NO_IOMMU
        )
    if name := match["device"]:
        found = [root / f"sys/class/vfio-dev/{name}/device"]
    else:
        group = groups / match["group"] / "devices"
        found = sorted(group.iterdir()) if group.is_dir() else []
    if not found or not found[0].exists():
        raise HypervisorError("vfio", f"{node}: the host has no such device; ls {groups} shows its IOMMU groups")
    devices = [_device(path.resolve(), node, by_itself=bool(name)) for path in found if not _is_bridge(path)]
    if not devices:
        raise HypervisorError("vfio", f"{node}: there are only bridges in the group")
    return tuple(devices)


def _device(path: Path, node: Path, *, by_itself: bool) -> VfioDevice:
    if _ADDRESS.fullmatch(path.name):
        driver = (path / "driver").resolve().name if (path / "driver").exists() else "no driver"
        if not driver.startswith("vfio") and not (path / "vfio-dev").is_dir():
            raise HypervisorError(
                "vfio", f"{node}: {path.name} is bound to {driver}, not to vfio-pci",
                hint=f"driverctl set-override {path.name} vfio-pci, for all devices of its IOMMU group",
            )  # fmt: skip
        return VfioDevice(path.name, VfioKind.PCI, path, iommufd=by_itself)
    kind = (path / "mdev_type").resolve().name
    if kind.startswith("vfio_ap"):
        matrix = path / "matrix"
        queues = tuple(matrix.read_text().split()) if matrix.exists() else ()
        return VfioDevice(path.name, VfioKind.AP, path, queues=queues)
    if kind.startswith("vfio_ccw"):
        return VfioDevice(path.name, VfioKind.CCW, path)
    if _ADDRESS.fullmatch(path.parent.name) and (path / "mdev_type").exists():
        return VfioDevice(path.parent.name, VfioKind.MEDIATED, path)
    raise HypervisorError("vfio", f"{node}: {path} is neither a PCI device nor a mediated one")


def _is_bridge(path: Path) -> bool:
    kind = path / "class"
    return kind.exists() and kind.read_text().startswith(_BRIDGE)
