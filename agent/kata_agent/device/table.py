"""The devices of the sandbox's containers: waited for at a container's creation, remembered for its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_agent.device.cdi import Edits
    from kata_agent.device.finder import Finder
    from kata_agent.device.handlers import Changes
    from kata_protos.agent_pb2 import Device
    from kata_py.oci.spec import Process, Spec

CDI_TIMEOUT = 100.0  # seconds; agent.cdi_timeout


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a container's devices change in its spec; they are there."""

    changes: Changes | None = None
    edits: Sequence[Edits] = ()

    def made(self, spec: Spec) -> Spec:
        """The spec with the changes made.

        Raises:
            AgentError: They do not fit the spec.
        """
        if self.changes is not None:
            spec = self.changes.made(spec)
        if self.edits:
            from kata_agent.device import cdi

            spec = cdi.applied(spec, self.edits)
        return spec


class DeviceTable:
    """All devices that were given to containers.

    Args:
        finder: Finds them.
        cdi_timeout: Seconds that CDI specs may take to be written.
    """

    def __init__(self, finder: Finder, cdi_timeout: float = CDI_TIMEOUT) -> None:
        self._finder = finder
        self._cdi_timeout = cdi_timeout
        self._addresses: dict[str, Mapping[str, str]] = {}

    async def prepare(self, container_id: str, spec: Spec, devices: Sequence[Device]) -> Prepared:
        """Wait for the devices that the host has plugged in for a container, and for those its annotations name.

        Args:
            container_id: The container's id.
            spec: What the host sent.
            devices: What the host says of them.

        Raises:
            AgentError: One did not appear in time, or cannot be given.
        """
        changes: Changes | None = None
        edits: Sequence[Edits] = ()
        if devices:
            from kata_agent.device import handlers

            changes = await handlers.find(self._finder, devices)
            self._addresses[container_id] = changes.addresses
        if any(key.startswith("cdi.k8s.io/") for key in spec.get("annotations", ())):
            from kata_agent.device import cdi

            names = cdi.names(spec["annotations"])
            edits = await cdi.find(names, timeout=self._cdi_timeout) if names else ()
        return Prepared(changes, edits)

    def translated(self, container_id: str, process: Process) -> Process:
        """A process of the container with the guest's PCI addresses in its environment.

        Raises:
            AgentError: It names a device that the container has not.
        """
        addresses = self._addresses.get(container_id)
        if not addresses or not process.get("env"):
            return process
        from kata_agent.device import environment

        result = process.copy()
        result["env"] = environment.translated(process["env"], addresses)
        return result

    def forget(self, container_id: str) -> None:
        """The container is gone."""
        self._addresses.pop(container_id, None)
