"""`apf.json`: what the forwarder in a pod VM must know of its pod and of the node.

Byte for byte upstream's keys and values, so that either side may be upstream's. Source: cloud-api-adaptor
`pkg/forwarder/forwarder.go`, `pkg/podnetwork/tunneler/tunneler.go`, `pkg/util/netops/netops.go`.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from kata_caa.errors import MalformedConfig

V = TypeVar("V")

PATH: Final = "/run/peerpod/apf.json"

PROTOCOLS: Final = ("static", "boot", "dhcp", "kernel")
SCOPES: Final = ("universe", "site", "link", "host", "nowhere")
_MAPPED: Final = "::ffff:"
STATES: Final = (
    "none", "incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent",
)  # fmt: skip

_KEY_SIZE: Final = 32  # bytes


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the pod.

    Attributes:
        destination: A prefix; the default route is `0.0.0.0/0` or `::/0`.
        gateway: An address; empty has none.
        device: The interface's name.
        protocol: Who made it, one of `PROTOCOLS`; empty is not said.
        scope: One of `SCOPES`; empty is `universe`.
    """

    destination: str
    gateway: str = ""
    device: str = ""
    protocol: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A neighbour that the pod knows for good: address, hardware address, interface, one of `STATES`."""

    address: str
    hardware_address: str
    device: str
    state: str = "permanent"


@dataclass(frozen=True, slots=True)
class Interface:
    """A further interface of the pod, in an extension of ours; upstream knows the first alone.

    Attributes:
        name: Its name in the pod.
        hardware_address: Its MAC.
        addresses: With prefix lengths.
        mtu: Bytes; 0 is the kernel's choice.
        vxlan_id: Its tunnel's.
    """

    name: str
    hardware_address: str
    addresses: tuple[str, ...]
    mtu: int = 0
    vxlan_id: int = 0


@dataclass(frozen=True, slots=True)
class Encryption:
    """How the tunnel is encrypted, in an extension of ours: the pod VM's end of a WireGuard link. Keys have 32 bytes.

    Attributes:
        private_key: The pod VM's; secret.
        node_key: The node's public one.
        preshared_key: What both mix in besides; secret.
        port: The pod VM's UDP port.
        node_port: The node's, as far as it is known beforehand; 0 is not.
    """

    private_key: bytes = field(repr=False)
    node_key: bytes
    preshared_key: bytes = field(repr=False)
    port: int
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """The pod's network, as the pod VM must rebuild it.

    Attributes:
        pod_ip: The pod's address with its prefix length.
        hardware_address: Its MAC.
        interface: The interface's name.
        worker_ip: The node's address with its prefix length, the tunnel's other end.
        tunnel_type: `vxlan`.
        routes: The pod's, those of IPv4 and the first interface first; the others are in keys of ours.
        neighbors: What it knows for good; ordered and kept likewise.
        mtu: Bytes.
        index: The pod's number on its node.
        vxlan_port: UDP port; 0 is the default.
        vxlan_id: The tunnel's; 0 is the default.
        dedicated: Whether the tunnel uses another interface than the agent's traffic.
        external_via_pod_vm: Whether traffic that leaves the cluster takes the pod VM's own network.
        pod_ips: Ours: further addresses of the first interface (IPv6), with prefix lengths.
        interfaces: Ours: further interfaces.
        encryption: Ours: how the tunnel is encrypted; None is not at all.
    """

    pod_ip: str = ""
    hardware_address: str = ""
    interface: str = ""
    worker_ip: str = ""
    tunnel_type: str = "vxlan"
    routes: tuple[Route, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    mtu: int = 0
    index: int = 0
    vxlan_port: int = 0
    vxlan_id: int = 0
    dedicated: bool = False
    external_via_pod_vm: bool = False
    pod_ips: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    encryption: Encryption | None = None


@dataclass(frozen=True, slots=True)
class ForwarderConfig:
    """All of `apf.json`.

    Attributes:
        network: The pod's network.
        pod_name: Kubernetes' name of the pod.
        pod_namespace: Kubernetes' namespace.
        tls_server_key: PEM; secret.
        tls_server_cert: PEM.
        tls_client_ca: PEM of whom the forwarder trusts.
        tls_min_version: `VersionTLS12` or `VersionTLS13`; empty is 1.2.
        tls_cipher_suites: IANA names, comma-separated.
        unbound: Ours: whether the machine was started before its pod, and waits to be told of it.
    """

    network: PodNetwork = PodNetwork()
    pod_name: str = ""
    pod_namespace: str = ""
    tls_server_key: str = field(default="", repr=False)
    tls_server_cert: str = ""
    tls_client_ca: str = ""
    tls_min_version: str = ""
    tls_cipher_suites: str = ""
    unbound: bool = False


def dump(config: ForwarderConfig) -> str:
    """The text of a configuration, as upstream indents it."""
    network = config.network
    routes = _known_routes(network)
    tree: dict[str, Any] = {
        "pod-network": {
            "podip": network.pod_ip,
            "pod-hw-addr": network.hardware_address,
            "interface": network.interface,
            "worker-node-ip": network.worker_ip,
            "tunnel-type": network.tunnel_type,
            "routes": [_route(each) for each in routes],
            "neighbors": [
                _neighbor(each) for each in network.neighbors if _is_known(network, each.address, each.device)
            ],
            "mtu": network.mtu,
            "index": network.index,
            **_said({"vxlan-port": network.vxlan_port, "vxlan-id": network.vxlan_id}),
            # Upstream's forwarder does not serve a machine without a second interface then, and its tunnel needs none.
            "dedicated": False,
            "external-net-via-pod-vm": network.external_via_pod_vm,
            **_said({
                "kata-py-dedicated": network.dedicated,
                "kata-py-pod-ips": list(network.pod_ips),
                "kata-py-routes": [_route(each) for each in network.routes if each not in routes],
                "kata-py-neighbors": [
                    _neighbor(each) for each in network.neighbors
                    if not _is_known(network, each.address, each.device)
                ],
                "kata-py-interfaces": [
                    {
                        "name": each.name, "hw-addr": each.hardware_address, "ips": list(each.addresses),
                        "mtu": each.mtu, "vxlan-id": each.vxlan_id,
                    }
                    for each in network.interfaces
                ],
                "kata-py-wireguard": _wireguard(network.encryption) if network.encryption else None,
            }),
        },
        "pod-namespace": config.pod_namespace,
        "pod-name": config.pod_name,
        **_said({
            "tls-server-key": config.tls_server_key,
            "tls-server-cert": config.tls_server_cert,
            "tls-client-ca": config.tls_client_ca,
            "tls-min-version": config.tls_min_version,
            "tls-cipher-suites": _split(config.tls_cipher_suites),
            "kata-py-unbound": config.unbound,
        }),
    }  # fmt: skip
    return json.dumps(tree, indent=4)


def load(text: str) -> ForwarderConfig:
    """Read a configuration; keys that nobody knows are left alone.

    Raises:
        MalformedConfig: It is no JSON, or a value does not have its form; names the key.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise MalformedConfig(f"apf.json is no JSON: {error}") from None
    top = _Table(tree, "")
    net = top.table("pod-network")
    return ForwarderConfig(
        network=PodNetwork(
            pod_ip=net.prefix("podip"),
            hardware_address=net.text("pod-hw-addr"),
            interface=net.text("interface"),
            worker_ip=net.prefix("worker-node-ip"),
            tunnel_type=net.text("tunnel-type"),
            routes=tuple(
                Route(
                    each.prefix("dst"), each.address("gw"), each.text("dev"), each.one_of("protocol", PROTOCOLS),
                    each.one_of("scope", SCOPES),
                )
                for key in ("routes", "kata-py-routes")
                for each in net.tables(key)
            ),
            neighbors=tuple(
                Neighbor(each.address("ip"), each.text("hw-addr"), each.text("dev"), each.one_of("state", STATES))
                for key in ("neighbors", "kata-py-neighbors")
                for each in net.tables(key)
            ),
            mtu=net.number("mtu"),
            index=net.number("index"),
            vxlan_port=net.number("vxlan-port"),
            vxlan_id=net.number("vxlan-id"),
            dedicated=net.truth("dedicated") or net.truth("kata-py-dedicated"),
            external_via_pod_vm=net.truth("external-net-via-pod-vm"),
            pod_ips=net.prefixes("kata-py-pod-ips"),
            interfaces=tuple(
                Interface(
                    each.text("name"), each.text("hw-addr"), each.prefixes("ips"), each.number("mtu"),
                    each.number("vxlan-id"),
                )
                for each in net.tables("kata-py-interfaces")
            ),
            encryption=_encryption(net.table("kata-py-wireguard")) if net.has("kata-py-wireguard") else None,
        ),
        pod_name=top.text("pod-name"),
        pod_namespace=top.text("pod-namespace"),
        tls_server_key=top.text("tls-server-key"),
        tls_server_cert=top.text("tls-server-cert"),
        tls_client_ca=top.text("tls-client-ca"),
        tls_min_version=top.text("tls-min-version"),
        tls_cipher_suites=",".join(top.names("tls-cipher-suites")),
        unbound=top.truth("kata-py-unbound"),
    )  # fmt: skip


def _route(route: Route) -> dict[str, str]:
    said = _said({"protocol": route.protocol, "scope": route.scope})
    return {"dst": route.destination, "gw": route.gateway, "dev": route.device, **said}


def _neighbor(neighbor: Neighbor) -> dict[str, str]:
    return {
        "ip": neighbor.address, "hw-addr": neighbor.hardware_address, "dev": neighbor.device, "state": neighbor.state,
    }  # fmt: skip


def _wireguard(encryption: Encryption) -> dict[str, str | int]:
    return {
        "private-key": base64.b64encode(encryption.private_key).decode(),
        "node-public-key": base64.b64encode(encryption.node_key).decode(),
        "preshared-key": base64.b64encode(encryption.preshared_key).decode(),
        "port": encryption.port,
        "node-port": encryption.node_port,
    }


def _encryption(table: _Table) -> Encryption:
    """Nothing may be missing: a tunnel that cannot be encrypted must not be made."""
    return Encryption(
        table.key("private-key"), table.key("node-public-key"), table.key("preshared-key"),
        table.port("port"), table.number("node-port") and table.port("node-port"),
    )  # fmt: skip


def _split(text: str) -> list[str]:
    return [each for part in text.split(",") if (each := part.strip())]


def _unmapped(text: str) -> str:
    """An address or prefix of IPv4, which upstream's adaptor may write in IPv6's form, as it does its default route:
    `::ffff:0.0.0.0/0`."""
    return text.removeprefix(_MAPPED) if text.startswith(_MAPPED) and "." in text else text


def _known_routes(network: PodNetwork) -> list[Route]:
    """What upstream's forwarder can have of the routes: of several to one destination the first that it would add, as
    it fails at the next."""
    first: dict[str, Route] = {}
    for route in sorted(network.routes, key=lambda route: bool(route.gateway)):
        if _is_known(network, route.destination, route.device):
            first.setdefault(route.destination, route)
    return [route for route in network.routes if first.get(route.destination) is route]


def _is_known(network: PodNetwork, address: str, device: str) -> bool:
    """Whether upstream's forwarder can have it, which knows one interface and IPv4, and fails at anything else."""
    return ":" not in address and device in ("", network.interface)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """What Go's `omitempty` leaves."""
    return {key: value for key, value in values.items() if value}


class _Table:
    """A JSON object, read by key and type; a missing key, or null, is the type's zero."""

    def __init__(self, tree: object, place: str) -> None:
        if not isinstance(tree, dict):
            raise MalformedConfig(f"apf.json: {place or 'the whole'} is no object")
        self._tree: dict[str, object] = tree
        self._place = place

    def text(self, key: str) -> str:
        return self._get(key, str, "")

    def number(self, key: str) -> int:
        return self._get(key, int, 0)

    def truth(self, key: str) -> bool:
        return self._get(key, bool, False)

    def prefix(self, key: str) -> str:
        text = _unmapped(self.text(key))
        if text:
            self._check_prefix(key, text)
        return text

    def address(self, key: str) -> str:
        return _unmapped(self.text(key))

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._get(key, list, [])
        for text in found:
            if not isinstance(text, str):
                raise self._fault(key, text)
        return tuple(found)

    def names(self, key: str) -> tuple[str, ...]:
        """A list; what a text separates by commas is one too, as earlier adaptors of ours wrote it."""
        text = self._tree.get(key)
        return tuple(_split(text)) if isinstance(text, str) else self.texts(key)

    def prefixes(self, key: str) -> tuple[str, ...]:
        found = self.texts(key)
        for text in found:
            self._check_prefix(key, text)
        return found

    def one_of(self, key: str, words: tuple[str, ...]) -> str:
        text = self.text(key)
        if text and text not in words:
            raise self._fault(key, text)
        return text

    def has(self, key: str) -> bool:
        return self._tree.get(key) is not None

    def key(self, key: str) -> bytes:
        try:
            value = base64.b64decode(self.text(key), validate=True)
        except ValueError:
            value = b""
        if len(value) != _KEY_SIZE:
            raise MalformedConfig(f"apf.json: {self._name(key)} is no key of {_KEY_SIZE} bytes in base64")  # unquoted
        return value

    def port(self, key: str) -> int:
        number = self.number(key)
        if not 0 < number < 1 << 16:
            raise self._fault(key, number)
        return number

    def table(self, key: str) -> _Table:
        return _Table(self._get(key, dict, {}), self._name(key))

    def tables(self, key: str) -> list[_Table]:
        return [_Table(each, f"{self._name(key)}[{i}]") for i, each in enumerate(self._get(key, list, []))]

    def _check_prefix(self, key: str, text: str) -> None:
        try:
            if "/" not in text:
                raise ValueError
            ipaddress.ip_interface(text)
        except ValueError:
            raise self._fault(key, text) from None

    def _get(self, key: str, kind: type[V], zero: V) -> V:
        value = self._tree.get(key)
        if value is None:
            return zero
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._fault(key, value)
        return value

    def _fault(self, key: str, value: object) -> MalformedConfig:
        return MalformedConfig(f"apf.json: {self._name(key)} cannot be {value!r:.100}")

    def _name(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key
