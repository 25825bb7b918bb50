"""libvirt-python, with types: the one module that imports it.

Only the calls that the provider makes are named. Each of them blocks, and raises `Refused`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict, cast

import libvirt

Refused: type[Exception] = libvirt.libvirtError

AGENT, LEASE, ARP = (
    int(getattr(libvirt, f"VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_{name}")) for name in ("AGENT", "LEASE", "ARP")
)
IPV4 = int(libvirt.VIR_IP_ADDR_TYPE_IPV4)
METADATA_ELEMENT = int(libvirt.VIR_DOMAIN_METADATA_ELEMENT)
RUNNING = frozenset({int(libvirt.VIR_DOMAIN_RUNNING), int(libvirt.VIR_DOMAIN_BLOCKED), int(libvirt.VIR_DOMAIN_PAUSED)})
UNDEFINE_ALL = int(
    libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
)
FROM_RPC = int(libvirt.VIR_FROM_RPC)

_LEVELS = ("VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR")  # numbers that are no codes
_CODES = {
    value: name
    for name, value in vars(libvirt).items()
    if name.startswith("VIR_ERR_") and name not in _LEVELS and isinstance(value, int)
}
_KEEPALIVE_INTERVAL = 5  # seconds of silence, until the host is asked whether it is there
_KEEPALIVE_COUNT = 3  # unanswered questions, until the connection counts as broken


class Failure(NamedTuple):
    """What a refusal says.

    Attributes:
        code: By name, `VIR_ERR_NO_DOMAIN`; empty where there is none.
        source: The part of libvirt that refused, VIR_FROM_*.
        message: In words.
    """

    code: str
    source: int
    message: str


class LeasedAddress(TypedDict):
    """An address of an interface."""

    addr: str
    prefix: int
    type: int


class Interface(TypedDict):
    """An interface of a machine; without addresses `addrs` is None."""

    addrs: Sequence[LeasedAddress] | None
    hwaddr: str


class Stream(Protocol):
    """Content of a volume on its way."""

    def send(self, data: bytes) -> int: ...
    def recv(self, nbytes: int) -> bytes: ...
    def finish(self) -> int: ...
    def abort(self) -> int: ...


class Volume(Protocol):
    """A storage volume."""

    def name(self) -> str: ...
    def path(self) -> str: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def upload(self, stream: Stream, offset: int, length: int, flags: int = 0) -> int: ...
    def download(self, stream: Stream, offset: int, length: int, flags: int = 0) -> int: ...
    def delete(self, flags: int = 0) -> int: ...


class Pool(Protocol):
    """A storage pool."""

    def XMLDesc(self, flags: int = 0) -> str: ...
    def isActive(self) -> int: ...
    def refresh(self, flags: int = 0) -> int: ...
    def listVolumes(self) -> Sequence[str]: ...
    def storageVolLookupByName(self, name: str) -> Volume: ...
    def createXML(self, xmlDesc: str, flags: int = 0) -> Volume: ...


class Network(Protocol):
    """A virtual network."""

    def XMLDesc(self, flags: int = 0) -> str: ...
    def isActive(self) -> int: ...
    def DHCPLeases(self, mac: str | None = None, flags: int = 0) -> Sequence[Mapping[str, object]]: ...


class Domain(Protocol):
    """A machine."""

    def ID(self) -> int: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def UUIDString(self) -> str: ...
    def name(self) -> str: ...
    def metadata(self, type: int, uri: str, flags: int = 0) -> str: ...
    def state(self, flags: int = 0) -> Sequence[int]: ...
    def create(self) -> int: ...
    def destroy(self) -> int: ...
    def undefineFlags(self, flags: int = 0) -> int: ...
    def interfaceAddresses(self, source: int, flags: int = 0) -> Mapping[str, Interface]: ...


class Connect(Protocol):
    """A connection to a host."""

    def isAlive(self) -> int: ...
    def close(self) -> int: ...
    def getLibVersion(self) -> int: ...
    def getInfo(self) -> Sequence[object]: ...
    def getDomainCapabilities(
        self, emulatorbin: str | None, arch: str | None, machine: str | None, virttype: str | None, flags: int = 0
    ) -> str: ...
    def lookupByUUIDString(self, uuidstr: str) -> Domain: ...
    def lookupByName(self, name: str) -> Domain: ...
    def listAllDomains(self, flags: int = 0) -> Sequence[Domain]: ...
    def defineXML(self, xml: str) -> Domain: ...
    def storagePoolLookupByName(self, name: str) -> Pool: ...
    def storagePoolLookupByTargetPath(self, path: str) -> Pool: ...
    def storageVolLookupByPath(self, path: str) -> Volume: ...
    def networkLookupByName(self, name: str) -> Network: ...
    def newStream(self, flags: int = 0) -> Stream: ...


def open_host(uri: str) -> Connect:
    """Connect to a host; a peer that falls silent breaks the connection, whereupon the calls under way fail."""
    _run_events()
    connect = libvirt.open(uri)
    try:
        connect.setKeepAlive(_KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT)
    except libvirt.libvirtError:
        pass  # a driver within this process has no peer
    return cast(Connect, connect)


def failure(error: Exception) -> Failure:
    """What a refusal says."""
    assert isinstance(error, libvirt.libvirtError)
    return Failure(_CODES.get(error.get_error_code(), ""), error.get_error_domain() or 0, str(error))


def code(error: Exception) -> str:
    """A refusal's code by name."""
    return failure(error).code


@functools.cache
def _run_events() -> None:
    """Run libvirt's events, which keep connections alive; there is one such loop in a process, and it never ends."""
    libvirt.registerErrorHandler(lambda context, error: None, None)  # which prints what is raised as well
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()
