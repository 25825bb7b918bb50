"""Whether machines can be made on a host: looked at, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kata_caa.errors import ProviderError
from kata_caa.providers.api import Finding
from kata_caa.providers.libvirt import binding, host, volume
from kata_caa.providers.libvirt.binding import Connect
from kata_caa.providers.libvirt.config import DEFAULT_FIRMWARE, KVM, LibvirtConfig
from kata_caa.providers.libvirt.fault import explain

_GIB = 1 << 30


def examine(connect: Connect, config: LibvirtConfig) -> Sequence[Finding]:
    """Look at everything; what cannot be looked at did not pass."""
    looks: Sequence[tuple[str, Callable[[Connect, LibvirtConfig], Finding]]] = (
        ("connection", _connection),
        (f"machines of type {config.domain_type}", _machines),
        ("firmware", _firmware),
        (f"pool {config.pool}", _pool),
        (f"image {config.image}", _image),
        ("kernel", _kernel),
        (f"network {config.network}", _network),
    )
    return [found for subject, look in looks if (found := _tried(subject, look, connect, config)).subject]


def _tried(
    subject: str, look: Callable[[Connect, LibvirtConfig], Finding], connect: Connect, config: LibvirtConfig
) -> Finding:
    try:
        found = look(connect, config)
    except ProviderError as error:
        return Finding(subject, False, str(error))
    except binding.Refused as error:
        return Finding(subject, False, str(explain(error, f"look at {subject}")))
    return Finding(found.subject and subject, found.passed, found.detail)


_NOTHING = Finding("", True)


def _connection(connect: Connect, config: LibvirtConfig) -> Finding:
    version = connect.getLibVersion()
    numbers = f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
    return Finding("connection", True, f"{config.uri}: libvirt {numbers}, a host of {connect.getInfo()[0]}")


def _machines(connect: Connect, config: LibvirtConfig) -> Finding:
    architecture = host.architecture_of(connect, config)
    found = host.capabilities(connect, config, architecture)
    processor = "maximum" if config.domain_type != KVM else "host-model"
    if architecture == "aarch64" and config.domain_type == KVM:
        processor = "host-passthrough"
    if processor not in found.processors:
        return Finding("machines", False, f"{found.emulator} has no processor {processor} for {architecture}")
    if config.confidential and not found.protected:
        detail = (
            f"{found.emulator} or the host's kernel has no Secure Execution: set LIBVIRT_LAUNCH_SECURITY to nothing"
        )
        return Finding("machines", False, detail)
    return Finding("machines", True, f"{architecture}, {found.emulator}")


def _firmware(connect: Connect, config: LibvirtConfig) -> Finding:
    architecture = host.architecture_of(connect, config)
    if architecture == "s390x" or not config.firmware or (config.kernel and config.firmware == DEFAULT_FIRMWARE):
        return _NOTHING
    found = host.capabilities(connect, config, architecture)
    if config.firmware in found.firmwares:
        return Finding("firmware", True, config.firmware)
    known = ", ".join(found.firmwares) or "none"
    if config.firmware == DEFAULT_FIRMWARE:
        return Finding("firmware", True, f"the host has no {config.firmware}, so machines boot by BIOS")
    return Finding(
        "firmware", False, f"the host does not know {config.firmware}, but {known}: set LIBVIRT_EFI_FIRMWARE"
    )


def _pool(connect: Connect, config: LibvirtConfig) -> Finding:
    pool = connect.storagePoolLookupByName(config.pool)
    facts = volume.pool_facts(pool)
    volume.usable(facts)
    if not pool.isActive():
        return Finding("pool", False, f"it is not active: virsh pool-start {config.pool}")
    free = f"{facts.directory}, {facts.available / _GIB:.1f} GiB free of {facts.capacity / _GIB:.1f}"
    if facts.available < _GIB:  # disks grow with what is written
        return Finding("pool", False, f"{free}: make room")
    return Finding("pool", True, free)


def _image(connect: Connect, config: LibvirtConfig) -> Finding:
    facts = host.find_image(connect.storagePoolLookupByName(config.pool), config)
    seen = f"{facts.path}, {facts.form}, {facts.capacity / _GIB:.1f} GiB"
    if facts.name.endswith(".qcow2") and facts.form != "qcow2":
        return Finding("image", False, f"{seen}: its name says qcow2, so its upload may have been broken off")
    if facts.form not in ("qcow2", "raw"):
        return Finding("image", False, f"{seen}: convert it to qcow2")
    return Finding("image", True, seen)


def _kernel(connect: Connect, config: LibvirtConfig) -> Finding:
    kernel = host.find_kernel(connect.storagePoolLookupByName(config.pool), config)
    return Finding("kernel", True, " ".join(filter(None, (kernel.path, kernel.initrd)))) if kernel else _NOTHING


def _network(connect: Connect, config: LibvirtConfig) -> Finding:
    facts = host.network_facts(connect, config)
    if not facts.leases:
        detail = "libvirt gives no addresses there, so they are learnt from neighbours and from the guest agent"
        return Finding("network", True, detail)
    leased = len(connect.networkLookupByName(config.network).DHCPLeases(None, 0))
    detail = f"{leased} of {facts.addresses} addresses are leased"
    if leased >= facts.addresses:
        return Finding("network", False, f"{detail}: wait for leases to end, or give it a greater range")
    return Finding("network", True, detail)
