"""A guest as a peer VM is one, in an initramfs: it gets its address by DHCP and reads its user data from the disc.

Its kernel and modules are those of the built guest, its programs busybox. It says on the console what it sees.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from image.kernel import Kernel
from image.tree import Directory, File, Link, Tree

_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "isofs")
_APPLETS = ("cat", "echo", "ip", "mkdir", "mount", "nc", "sh", "sleep", "udhcpc", "insmod", "stat")
PORT = 15150

_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
for module in {modules}; do insmod /lib/$module.ko; done
mount -t iso9660 -o ro /dev/vdb /mnt
cat /mnt/user-data; cat /mnt/meta-data
echo "disk of $(cat /sys/block/vda/size) sectors"
ip link set eth0 up
udhcpc -i eth0 -q -s /dhcp
echo "address $(ip -o -4 addr show eth0)"
while :; do echo hello | nc -l -p {port}; done
"""
_DHCP = """#!/bin/sh
[ "$1" != bound ] || ip addr add $ip/$mask dev $interface
"""


@dataclass(frozen=True)
class PeerGuest:
    """Files to boot: a kernel, an initramfs, and the kernel's command line."""

    kernel: Path
    initrd: Path
    arguments: str = "console=ttyS0 quiet"


def build(guest: Path, place: Path) -> PeerGuest:
    """Build it from what was built, into a directory."""
    (package,) = guest.glob("cache/amd64/packages/linux-image-*-cloud-amd64_*.deb")
    kernel = Kernel(package)
    modules = kernel.modules(_MODULES)
    tree = Tree()
    busybox = shutil.which("busybox")
    assert busybox
    tree.add("bin/busybox", File(Path(busybox).read_bytes(), executable=True))
    for name in _APPLETS:
        tree.add(f"bin/{name}", Link("busybox"))
    for path in ("dev", "proc", "sys", "mnt"):
        tree.add(path, Directory())
    for module in modules:
        tree.add(f"lib/{module.name}.ko", File(module.data))
    names = " ".join(module.name for module in modules)
    tree.add("init", File(_INIT.format(modules=names, port=PORT).encode(), executable=True))
    tree.add("dhcp", File(_DHCP.encode(), executable=True))
    (place / "initrd").write_bytes(tree.cpio())
    shutil.copy(guest / "vmlinux", place / "vmlinux")
    return PeerGuest(place / "vmlinux", place / "initrd")
