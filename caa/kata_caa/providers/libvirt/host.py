"""What the host has of what the configuration names: the facts that a machine is planned with."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from ipaddress import ip_address

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import volume
from kata_caa.providers.libvirt.binding import Connect, Pool
from kata_caa.providers.libvirt.config import ARCHITECTURES, DEFAULT_FIRMWARE, LibvirtConfig
from kata_caa.providers.libvirt.domain import Kernel
from kata_caa.providers.libvirt.volume import PoolFacts, VolumeFacts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network; the size of its ranges is how many addresses it has to give."""

    name: str
    leases: bool
    addresses: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What machines of one type and architecture can have on the host."""

    emulator: str
    firmwares: tuple[str, ...]
    processors: frozenset[str]
    protected: bool


@dataclass(frozen=True, slots=True)
class Host:
    """All that a machine is planned with."""

    architecture: str
    pool: PoolFacts
    network: NetworkFacts
    base: VolumeFacts
    firmware: str
    kernel: Kernel | None


def survey(connect: Connect, config: LibvirtConfig, image: str = "") -> Host:
    """Look up what a machine needs.

    Args:
        connect: The host.
        config: What is configured.
        image: A volume in the place of the configured one.

    Raises:
        ProviderError: Something is missing or unfit; names its setting.
        Refused: libvirt refuses.
    """
    architecture = architecture_of(connect, config)
    pool = connect.storagePoolLookupByName(config.pool)
    facts = volume.pool_facts(pool)
    volume.usable(facts)
    base = find_image(pool, config, image)
    network = network_facts(connect, config)
    kernel = find_kernel(pool, config)
    firmware = ""
    if not kernel and architecture != "s390x" and config.firmware:
        firmware = choose_firmware(config.firmware, capabilities(connect, config, architecture))
    elif architecture != "s390x" and config.firmware != DEFAULT_FIRMWARE:
        firmware = config.firmware
    return Host(architecture, facts, network, base, firmware, kernel)


def architecture_of(connect: Connect, config: LibvirtConfig) -> str:
    """What is configured, or the host's own.

    Raises:
        ProviderError: The host's own is none that is known, or machines of it cannot be confidential.
    """
    found = config.architecture or str(connect.getInfo()[0])
    if found not in ARCHITECTURES:
        raise ProviderError(Fault.FATAL, f"machines of {found} are not supported", hint="set LIBVIRT_ARCH")
    if config.confidential and found != "s390x":
        cause = f"a libvirt host makes no confidential machines of {found}"
        raise ProviderError(Fault.FATAL, cause, hint="set DISABLECVM=true and LIBVIRT_LAUNCH_SECURITY to nothing")
    return found


def find_image(pool: Pool, config: LibvirtConfig, image: str = "") -> VolumeFacts:
    """The volume that disks are based on.

    Raises:
        ProviderError: The pool has none of that name.
    """
    name = image or config.image
    found = volume.find(pool, name)
    if not found:
        hint = "see the pod's annotation image" if image else "set LIBVIRT_VOL_NAME, or upload the image"
        cause = f"pool {config.pool} has no volume {name}"
        raise ProviderError(Fault.FATAL, cause, code="VIR_ERR_NO_STORAGE_VOL", hint=hint)
    return volume.volume_facts(found)


def network_facts(connect: Connect, config: LibvirtConfig) -> NetworkFacts:
    """Ask the network.

    Raises:
        ProviderError: It is not active.
    """
    network = connect.networkLookupByName(config.network)
    if not network.isActive():
        cause = f"network {config.network} is not active"
        raise ProviderError(Fault.FATAL, cause, hint=f"virsh net-start {config.network}")
    ranges = ET.fromstring(network.XMLDesc(0)).findall("ip/dhcp/range")
    count = sum(_number(entry.get("end", "")) - _number(entry.get("start", "")) + 1 for entry in ranges)
    return NetworkFacts(config.network, bool(ranges), count)


def capabilities(connect: Connect, config: LibvirtConfig, architecture: str) -> Capabilities:
    """What machines of the configured type can have."""
    machine = "q35" if architecture == "x86_64" else None
    text = connect.getDomainCapabilities(config.emulator or None, architecture, machine, config.domain_type, 0)
    top = ET.fromstring(text)
    protected = top.find("features/s390-pv")
    return Capabilities(
        top.findtext("path", ""),
        tuple(value.text or "" for value in top.findall("os/loader/value")),
        frozenset(mode.get("name", "") for mode in top.findall("cpu/mode") if mode.get("supported") == "yes"),
        protected is not None and protected.get("supported") == "yes",
    )


def choose_firmware(wanted: str, found: Capabilities) -> str:
    """The firmware to boot by; the default one gives way to the BIOS where the host does not have it."""
    if wanted == DEFAULT_FIRMWARE and wanted not in found.firmwares:
        _log.warning("the host has no %s, so machines boot by BIOS; set LIBVIRT_EFI_FIRMWARE to change it", wanted)
        return ""
    return wanted


def _number(address: str) -> int:
    return int(ip_address(address))


def find_kernel(pool: Pool, config: LibvirtConfig) -> Kernel | None:
    """The kernel that is booted in the place of the disk, if one is configured.

    Raises:
        ProviderError: The pool has no volume of its name.
    """
    if not config.kernel:
        return None
    paths = [_on_host(pool, config, name) if name else "" for name in (config.kernel, config.initrd)]
    return Kernel(paths[0], paths[1], config.kernel_args)


def _on_host(pool: Pool, config: LibvirtConfig, name: str) -> str:
    if name.startswith("/"):
        return name
    if found := volume.find(pool, name):
        return found.path()
    cause = f"pool {config.pool} has no volume {name}"
    raise ProviderError(Fault.FATAL, cause, hint="set LIBVIRT_KERNEL and LIBVIRT_INITRD to volumes or to paths")
