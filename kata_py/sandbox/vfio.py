"""Devices of the host that a container asks for by their VFIO nodes: which, how plugged, and what the agent is told.

Pure: no I/O. Source: kata `virtcontainers/kata_agent.go` (appendVfioDevice), `virtcontainers/container.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_pb2
from kata_py.config.model import Configuration
from kata_py.hypervisor.api import GuestDevice, VfioDevice, VfioKind
from kata_py.hypervisor.vfio import NODE
from kata_py.oci.spec import Spec
from kata_py.sandbox.confinement import is_privileged
from kata_py.sandbox.errors import InvalidArgument, Unimplemented
from kata_py.sandbox.pod import Role

NO_PORT = "no-port"


@dataclass(frozen=True, slots=True)
class Passthrough:
    """The devices behind one node of a container.

    Attributes:
        node: The node's path in the container.
        type: What the agent calls them: `vfio-pci`, `vfio-pci-gk` (the guest's kernel drives them) or `vfio-ap`.
        devices: The devices.
    """

    node: str
    type: str
    devices: tuple[VfioDevice, ...]

    def message(self, guests: Sequence[GuestDevice]) -> agent_pb2.Device:
        """What the agent is told, with the places in the guest that the devices got, in their order."""
        if self.type == "vfio-ap":
            options = [queue for device in self.devices for queue in device.queues]
        else:
            pairs = zip(self.devices, guests, strict=True)
            options = [f"{device.host}={guest.address}" for device, guest in pairs]
        return agent_pb2.Device(
            id=self.node.rpartition("/")[2], type=self.type, container_path=self.node, options=options
        )  # fmt: skip


def nodes(spec: Spec) -> list[Path]:
    """The VFIO nodes that a container asks for. A privileged one is shown all of the host's, and given none."""
    linux = spec.get("linux", {})
    if is_privileged(linux.get("resources", {}).get("devices", [])):
        return []
    return [Path(each["path"]) for each in linux.get("devices", []) if NODE.fullmatch(each["path"])]


def plan_vfio(
    configuration: Configuration, found: Mapping[Path, tuple[VfioDevice, ...]], role: Role
) -> tuple[Passthrough, ...]:
    """Decide how a container gets its devices.

    Args:
        configuration: As the runtime class has it.
        found: The devices behind its nodes.
        role: What it is to its sandbox.

    Raises:
        InvalidArgument: The configuration gives no way to plug them in.
        Unimplemented: The agent has no word for them.
    """
    hypervisor = configuration.hypervisor
    planned = []
    for node, devices in found.items():
        kinds = {device.kind for device in devices}
        if VfioKind.CCW in kinds:
            raise Unimplemented(
                f"linux.devices: {node} is a channel device, and the agent's protocol has no type for it"
            )
        if hypervisor.hot_plug_vfio == hypervisor.cold_plug_vfio == NO_PORT:
            raise InvalidArgument(
                f"linux.devices: {node} cannot be plugged in: hot_plug_vfio and cold_plug_vfio are both no-port; set"
                f" one of them to root-port in {configuration.source}"
            )
        if hypervisor.cold_plug_vfio != NO_PORT and role is not Role.SINGLE:
            raise InvalidArgument(
                f"linux.devices: {node} cannot be plugged in: cold_plug_vfio is {hypervisor.cold_plug_vfio}, and the"
                " machine of a pod starts before its containers are known; use hot_plug_vfio"
            )
        in_guest = configuration.runtime.vfio_mode == "guest-kernel"
        kind = "vfio-ap" if VfioKind.AP in kinds else "vfio-pci-gk" if in_guest else "vfio-pci"
        planned.append(Passthrough(str(node), kind, devices))
    return tuple(planned)


def cold_plugged(configuration: Configuration, passthroughs: Sequence[Passthrough]) -> tuple[VfioDevice, ...]:
    """The devices that the machine has from the start."""
    if configuration.hypervisor.cold_plug_vfio == NO_PORT:
        return ()
    return tuple(device for each in passthroughs for device in each.devices)


def with_devices(
    request: agent_pb2.CreateContainerRequest, devices: Sequence[agent_pb2.Device]
) -> agent_pb2.CreateContainerRequest:
    """The request with devices added."""
    told = agent_pb2.CreateContainerRequest()
    told.CopyFrom(request)
    told.devices.extend(devices)
    return told
