"""The settings of the libvirt provider.

The first group is upstream's, names and defaults (cloud-api-adaptor `src/cloud-providers/libvirt/manager.go`); the
second one is ours, and marked so in its meanings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kata_caa.errors import Fault, ProviderError
from kata_caa.settings import Duration, setting

DEFAULT_FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
S390_PV = "s390-pv"
KVM, QEMU = "kvm", "qemu"
ARCHITECTURES = ("x86_64", "s390x", "aarch64")
_CPUSET = re.compile(r"\^?\d+(-\d+)?(,\^?\d+(-\d+)?)*")


@dataclass(frozen=True)
class LibvirtConfig:
    """How to reach a libvirt host, and what machines on it are like."""

    uri: str = setting(
        "qemu+ssh://root@192.168.122.1/system?no_verify=1", "uri", "LIBVIRT_URI", "libvirt's URI of the host"
    )
    pool: str = setting("default", "pool-name", "LIBVIRT_POOL", "storage pool, a directory, of images and disks")
    network: str = setting("default", "network-name", "LIBVIRT_NET", "network that machines are attached to")
    image: str = setting(
        "podvm-base.qcow2", "vol-name", "LIBVIRT_VOL_NAME", "volume of the pool that disks are based on"
    )
    launch_security: str = setting(
        "", "launch-security", "LIBVIRT_LAUNCH_SECURITY", "empty or s390-pv, IBM Secure Execution"
    )
    firmware: str = setting(
        DEFAULT_FIRMWARE, "firmware", "LIBVIRT_EFI_FIRMWARE",
        "UEFI firmware on the host; empty boots by BIOS, and so does the default where the host has no such file",
    )  # fmt: skip
    vcpus: int = setting(2, "cpu", "LIBVIRT_CPU", "processors of a machine whose pod asks for none")
    memory: int = setting(8192, "memory", "LIBVIRT_MEMORY", "MiB of a machine whose pod asks for none")
    cpuset: str = setting("", "cpuset", "LIBVIRT_CPUSET", "the host's processors that machines run on, as 0-3,^2")
    root_disk_size: int = setting(
        10, "root-disk-size", "LIBVIRT_ROOT_DISK_SIZE", "GiB of a disk; never less than its image has"
    )
    data_dir: str = setting("/var/lib/libvirt/images", "data-dir", "", "accepted, and without effect, as upstream")
    disable_cvm: bool = setting(
        True,
        "disable-cvm",
        "DISABLECVM",
        "whether machines are ordinary ones; false needs s390x and makes them s390-pv",
    )

    domain_type: str = setting(KVM, "domain-type", "LIBVIRT_DOMAIN_TYPE", "kvm, or qemu, which emulates; ours")
    architecture: str = setting(
        "", "architecture", "LIBVIRT_ARCH", "x86_64, s390x or aarch64; empty is the host's; ours"
    )
    emulator: str = setting("", "emulator", "LIBVIRT_EMULATOR", "QEMU on the host; empty is libvirt's choice; ours")
    kernel: str = setting(
        "",
        "kernel",
        "LIBVIRT_KERNEL",
        "kernel to boot: a path on the host or a volume of the pool; empty: the disk boots; ours",
    )
    initrd: str = setting("", "initrd", "LIBVIRT_INITRD", "with a kernel: its initramfs, a path or a volume; ours")
    kernel_args: str = setting("", "kernel-args", "LIBVIRT_KERNEL_ARGS", "with a kernel: its command line; ours")
    disk_bus: str = setting(
        "virtio", "disk-bus", "LIBVIRT_DISK_BUS", "virtio, or sata (x86_64 alone), which many cloud kernels lack; ours"
    )
    console_log: bool = setting(
        True,
        "console-log",
        "LIBVIRT_CONSOLE_LOG",
        "whether what a machine's console says is kept, as long as the machine; ours",
    )
    address_timeout: Duration = setting(
        Duration(180.0),
        "address-timeout",
        "LIBVIRT_ADDRESS_TIMEOUT",
        "how long a machine may take to get its address; ours",
    )

    @property
    def confidential(self) -> bool:
        """Whether machines are to be s390-pv guests."""
        return bool(self.launch_security) or not self.disable_cvm


def refuse_nonsense(config: LibvirtConfig) -> None:
    """Look at what can be judged without the host.

    Raises:
        ProviderError: A setting cannot be; names it.
    """
    for cause in _nonsense(config):
        raise ProviderError(Fault.FATAL, cause)


def _nonsense(config: LibvirtConfig) -> Iterator[str]:
    if config.domain_type not in (KVM, QEMU):
        yield f"LIBVIRT_DOMAIN_TYPE is {config.domain_type!r}, not kvm or qemu"
    if config.architecture and config.architecture not in ARCHITECTURES:
        yield f"LIBVIRT_ARCH is {config.architecture!r}, not one of {', '.join(ARCHITECTURES)}"
    if config.launch_security not in ("", S390_PV):
        yield f"LIBVIRT_LAUNCH_SECURITY is {config.launch_security!r}, not empty or {S390_PV}"
    if config.cpuset and not _CPUSET.fullmatch(config.cpuset):
        yield f"LIBVIRT_CPUSET is {config.cpuset!r}, not a list of numbers and ranges"
    if config.disk_bus not in ("virtio", "sata"):
        yield f"LIBVIRT_DISK_BUS is {config.disk_bus!r}, not virtio or sata"
    if config.initrd and not config.kernel:
        yield "LIBVIRT_INITRD is set without LIBVIRT_KERNEL"
    if config.vcpus < 1 or config.memory < 1:
        yield "LIBVIRT_CPU and LIBVIRT_MEMORY must be positive"
