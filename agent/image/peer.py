"""What a peer pod's guest has beyond the local one: the recipe's other flavour.

A cloud boots it from a disk of its own and says nothing on the kernel's line. So it finds its root by the partition's
label on whatever controller the cloud has, and beside the agent runs what gets its address and what the node talks to
(guest/peer-side). It pulls images itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from image.recipe import ARCHITECTURES, CODE, LEFT_OUT, LINKS, LOCAL, TEXTS, Architecture

ROOT_LABEL = "kata-root"  # of the root's partition
IMAGE_LIMIT = 128 << 20  # bytes
INITRAMFS_LIMIT = 8 << 20
DISK_LIMIT = 200 << 20

_PACKAGES = (
    "ca-certificates",
    "gzip",
    "skopeo",
    "tar",
    "zstd",
    # Their libraries, and those of Python's TLS.
    "libacl1",
    "libassuan0",
    "libdevmapper1.02.1",
    "libgpgme11",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "libudev1",
)
_KEEP = ("usr/bin/gzip", "usr/bin/skopeo", "usr/bin/tar", "usr/bin/zstd")
_COMPRESSED = (r"pause_bundle/rootfs/bin/", r"usr/bin/(skopeo|zstd)$")

# The parts of the adaptor that run in the guest; what else it needs of kata_py stands in the local recipe.
_CODE: Mapping[str, tuple[str, ...]] = {
    "caa": (
        "kata_caa/__init__.py",
        "kata_caa/apf.py",
        "kata_caa/errors.py",
        "kata_caa/flags.py",
        "kata_caa/forwarder",
        "kata_caa/notice.py",
        "kata_caa/tunnel",
        "kata_caa/userdata.py",
    ),
}

# As an image that was unpacked: the agent runs it where a pod's first container comes without files.
_PAUSE = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 65535, "gid": 65535},
        "args": ["/pause"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
    },
    "root": {"path": "rootfs", "readonly": True},
}

# Where a cloud may have the disk that the guest boots from, and the one with the user data.
_DISKS = ("virtio_blk", "virtio_scsi", "sd_mod", "sr_mod")
_DISKS_OF_PC = (
    "virtio_pci",
    "ahci",  # libvirt's disk on SATA
    "ata_piix",  # its CD-ROM on IDE
    "nvme",  # AWS, and Azure of late
    "pci_hyperv",
    "hv_storvsc",  # Azure
    "xen_blkfront",  # AWS of old
)
_NETWORK = ("virtio_net",)
_NETWORK_OF_PC = ("e1000", "e1000e", "ena", "hv_netvsc", "ixgbevf", "xen_netfront")
_UTILITIES_OF_PC = ("hv_utils", "hv_balloon")
# For the encrypted scratch space: the mapper's target, the mode and what it builds on; AES itself is built in, that of
# the processor is not.
_ENCRYPTION = ("dm_crypt", "xts", "ecb")
_ENCRYPTION_OF_PC, _ENCRYPTION_OF_MAINFRAME = ("aesni_intel",), ("aes_s390",)
_PARAMETERS = (
    "panic=1",  # a machine without an agent is of no use, and a kernel that stands still costs money
    "quiet",
    "cryptomgr.notests",
    "agent.server_addr=unix:///run/kata-containers/agent.sock",
)


def _architecture(local: Architecture) -> Architecture:
    pc = local.machine == "x86_64"
    disks = (*_DISKS, *(_DISKS_OF_PC if pc else ()))
    network = (*_NETWORK, *((*_NETWORK_OF_PC, *_UTILITIES_OF_PC) if pc else ()))
    encryption = (*_ENCRYPTION, *(_ENCRYPTION_OF_PC if pc else _ENCRYPTION_OF_MAINFRAME))
    return replace(
        local,
        # The cloud kernel has no AHCI.
        kernel_package="linux-image-amd64" if pc else local.kernel_package,
        kernel_compressed=False,  # as it comes: so a firmware and a boot loader want it
        boot_modules=("crc32c_generic", "erofs"),  # the latter asks for it by no alias
        found_modules=disks,
        modules=(*local.modules, *disks, *network, *encryption),
        disk_packages=("grub-pc-bin", "systemd-boot-efi") if pc else (),
        parameters=(*local.parameters, f"console={'ttyS0' if pc else 'ttysclp0'}", *_PARAMETERS),
    )


PEER = replace(
    LOCAL,
    name="peer",
    packages=(*LOCAL.packages, *_PACKAGES),
    keep=(*LOCAL.keep, *_KEEP),
    left_out={reason: names for reason, names in LEFT_OUT.items() if "ssl" not in names},
    code={**CODE, **_CODE},
    programs=(*LOCAL.programs, "peer.py"),
    compressed=(*LOCAL.compressed, *_COMPRESSED),
    directories=(*LOCAL.directories, "media/cidata", "etc/containers"),
    links={
        **LINKS,
        "etc/resolv.conf": "../run/resolv.conf",  # where the DHCP client writes
        "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
        "usr/lib/ssl/certs": "/etc/ssl/certs",
    },
    texts={
        **{path: text for path, text in TEXTS.items() if path not in ("etc/resolv.conf", "usr/sbin/init")},
        "etc/containers/policy.json": json.dumps({"default": [{"type": "insecureAcceptAnything"}]}) + "\n",
        "pause_bundle/config.json": json.dumps(_PAUSE, indent=1) + "\n",
    },
    scripts={
        "pause_bundle/rootfs/pause": "pause",
        "usr/lib/kata-peer/side": "peer-side",  # not in CODE_ROOT, which is made anew with each change of our code
        "usr/sbin/init": "peer-init",
    },
    copies={"pause_bundle/rootfs/bin/busybox": "usr/bin/busybox"},
    certificates=("usr/share/ca-certificates/mozilla/*.crt",),
    initramfs="peer-initramfs",
    kernel="vmlinuz",
    architectures={machine: _architecture(local) for machine, local in ARCHITECTURES.items()},
    image_limit=IMAGE_LIMIT,
    initramfs_limit=INITRAMFS_LIMIT,
    root_label=ROOT_LABEL,
    disk_limit=DISK_LIMIT,
)
