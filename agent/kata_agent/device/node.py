"""Device nodes in a container's spec: the host's numbers, to be the guest's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_agent.errors import AgentError

if TYPE_CHECKING:
    from kata_py.oci.spec import LinuxDevice, LinuxDeviceCgroup, Spec


class Node(NamedTuple):
    """A device of the guest.

    Attributes:
        kind: `b` or `c`.
        major: Its major number.
        minor: Its minor number.
        path: Where the container shall have it; empty is where the spec says.
    """

    kind: str
    major: int
    minor: int
    path: str = ""

    @classmethod
    def of(cls, node: str | Path, path: str = "") -> Node:
        """Read a node of the guest's /dev.

        Raises:
            AgentError: It is not there, or no device.
        """
        try:
            found = Path(node).stat()
        except OSError as error:
            raise AgentError(f"VM device path {str(node)!r} doesn't exist: {error.strerror}") from error
        if not (stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)):
            raise AgentError(f"{node} is no device")
        kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
        return cls(kind, os.major(found.st_rdev), os.minor(found.st_rdev), path)


def with_nodes(spec: Spec, nodes: Mapping[str, Node], more: Iterable[LinuxDevice] = ()) -> Spec:
    """The spec with the guest's numbers.

    Rules of the device cgroup follow, and one that allows each device is added; a spec without any rule allows all,
    and is left so.

    Args:
        spec: With the host's numbers.
        nodes: The guest's devices by the path they have in the container.
        more: Devices that the spec does not name.

    Raises:
        AgentError: The spec has no such device, or two that the host gave the same numbers.
    """
    linux = spec.get("linux", {}).copy()
    devices: list[LinuxDevice] = []
    numbers: dict[tuple[str, int, int], Node] = {}
    missing = dict(nodes)
    for device in linux.get("devices", ()):
        node = missing.pop(device["path"], None)
        if node is not None:
            before = (device["type"], device.get("major", 0), device.get("minor", 0))
            if numbers.setdefault(before, node) != node:
                raise AgentError(f"Conflicting device updates for host numbers {before[1]}:{before[2]}")
            device = device.copy()
            device["path"] = node.path or device["path"]
            device["type"], device["major"], device["minor"] = node.kind, node.major, node.minor
        devices.append(device)
    if missing:
        raise AgentError(f"Missing devices in OCI spec: {', '.join(sorted(missing))}")
    added = list(more)
    linux["devices"] = [*(each for each in devices if each["path"] not in {new["path"] for new in added}), *added]
    rules = linux.get("resources", {}).get("devices")
    if rules:
        allowed = [allow(node.kind, node.major, node.minor) for node in nodes.values()]
        allowed += [allow(each["type"], each["major"], each["minor"]) for each in added]
        linux["resources"] = linux["resources"].copy()
        linux["resources"]["devices"] = [*(_renumbered(rule, numbers) for rule in rules), *allowed]
    result = spec.copy()
    result["linux"] = linux
    return result


def allow(kind: str, major: int, minor: int, access: str = "rwm") -> LinuxDeviceCgroup:
    """A rule of the device cgroup that allows one device."""
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def _renumbered(rule: LinuxDeviceCgroup, numbers: Mapping[tuple[str, int, int], Node]) -> LinuxDeviceCgroup:
    if "major" not in rule or "minor" not in rule:
        return rule
    node = numbers.get((rule.get("type", "a"), rule["major"], rule["minor"]))
    if node is None:
        return rule
    return {**rule, "type": node.kind, "major": node.major, "minor": node.minor}
