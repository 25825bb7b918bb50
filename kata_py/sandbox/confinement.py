"""What a pod's spec says about security, decided for a machine: kept, left out because the machine does it, or refused.

Pure: no I/O. Whatever cannot be done is refused by name, and listed with its test in `docs/limitations.md`.
Source: kata `virtcontainers/kata_agent.go` (constrainGRPCSpec), `docs/Limitations.md`; OCI runtime-spec
`config-linux.md`; Linux `Documentation/admin-guide/devices.txt`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kata_py.config.hypervisor import ConfinementConfig
from kata_py.oci.spec import LinuxDevice, LinuxDeviceCgroup, Spec
from kata_py.sandbox.errors import InvalidArgument

logger = logging.getLogger(__name__)

CDI = "cdi.k8s.io/"

# What managers give to whoever asks for nothing special: profiles of the host's kernel, for which the machine's border
# stands in. Source: containerd `internal/cri/server/container_create_linux.go`, CRI-O `internal/config/apparmor`,
# moby `daemon/apparmor_default.go`, nerdctl `pkg/defaults`.
_APPARMOR_DEFAULTS = re.compile(
    r"|unconfined|cri-containerd\.apparmor\.d|crio-default(-[\w.]+)?|docker-default|nerdctl-default"
    r"|containers-default-[\w.]+"
)
_LABEL = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+(:[\w.,:-]+)?")

# Device numbers that mean the same in every Linux, and whose devices a guest has of its own: null, zero, full, random,
# urandom, kmsg; tty, console, ptmx; net/tun, fuse, kvm, loop-control.
_GUEST_S_OWN = {1: (3, 5, 7, 8, 9, 11), 5: (0, 1, 2), 10: (200, 229, 232, 237)}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field of a spec that no machine can honour.

    Attributes:
        field: Its name, as people find it in the pod or in config.json.
        reason: Why.
        asks: Whether a spec asks for it.
    """

    field: str
    reason: str
    asks: Callable[[Spec], bool]

    def __str__(self) -> str:
        return f"{self.field} is not supported: {self.reason}"


def _has(*keys: str) -> Callable[[Spec], bool]:
    """Whether a spec says anything at that place, in keys that the shape of a spec need not know."""

    def asks(spec: Spec) -> bool:
        value: Any = spec
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return bool(value)

    return asks


def _localhost_profile(spec: Spec) -> bool:
    return not _APPARMOR_DEFAULTS.fullmatch(spec.get("process", {}).get("apparmorProfile", ""))


def _names_cdi(spec: Spec) -> bool:
    return any(name.startswith(CDI) for name in spec.get("annotations", {}))


_HOST_PROGRAM = (
    "it would run in the machine, where the host's programs are not; createRuntime and poststop run on the host"
)

REFUSALS = (
    Refusal(
        "appArmorProfile of type Localhost",
        "the guest's kernel has no AppArmor; RuntimeDefault and Unconfined are possible, as the machine is the border",
        _localhost_profile,
    ),
    Refusal(
        f"annotation {CDI}*",
        "devices of the container device interface are not resolved for machines; name /dev/vfio/<group> in"
        " linux.devices",
        _names_cdi,
    ),
    Refusal("hooks.createContainer", _HOST_PROGRAM, _has("hooks", "createContainer")),
    Refusal("hooks.startContainer", _HOST_PROGRAM, _has("hooks", "startContainer")),
    Refusal(
        "linux.seccomp.listenerPath",
        "the listener is on the host and cannot be told of system calls in the machine",
        _has("linux", "seccomp", "listenerPath"),
    ),
    Refusal("linux.intelRdt", "processors' caches belong to the host", _has("linux", "intelRdt")),
    Refusal("linux.personality", "the agent's protocol has no place for it", _has("linux", "personality")),
    Refusal("linux.timeOffsets", "the machine has one clock for all its containers", _has("linux", "timeOffsets")),
    Refusal("linux.netDevices", "the pod's network devices are the machine's", _has("linux", "netDevices")),
    Refusal("linux.memoryPolicy", "the host's memory nodes are not the machine's", _has("linux", "memoryPolicy")),
    Refusal("domainname", "the agent's protocol has no place for it", _has("domainname")),
    Refusal("process.ioPriority", "the agent's protocol has no place for it", _has("process", "ioPriority")),
    Refusal("process.scheduler", "the agent's protocol has no place for it", _has("process", "scheduler")),
    Refusal(
        "process.execCPUAffinity",
        "processors are numbered differently in the machine",
        _has("process", "execCPUAffinity"),
    ),
)


def refuse_unsupported(spec: Spec) -> None:
    """Refuse what no machine can honour.

    Raises:
        InvalidArgument: Names the field.
    """
    for refusal in REFUSALS:
        if refusal.asks(spec):
            raise InvalidArgument(str(refusal))


def selinux_label(spec: Spec, config: ConfinementConfig) -> str:
    """The label of the machine's processes: the one meant for the pod's, which then are inside; empty for none.

    Raises:
        InvalidArgument: It is none.
    """
    label = spec.get("process", {}).get("selinuxLabel", "")
    if config.disable_selinux or not label:
        return ""
    if not _LABEL.fullmatch(label):
        raise InvalidArgument(f"process.selinuxLabel is {label!r}, which is no user:role:type:level")
    return label


def network_namespace(spec: Spec) -> Path | None:
    """The pod's network namespace on the host, if it has one."""
    for namespace in spec.get("linux", {}).get("namespaces", []):
        if namespace["type"] == "network" and namespace.get("path"):
            return Path(namespace["path"])
    return None


def is_privileged(rules: Sequence[LinuxDeviceCgroup]) -> bool:
    """Whether a container may use all devices: what managers say of a privileged one."""
    return any(
        rule["allow"] and rule.get("type", "a") in ("", "a") and set("rwm") <= set(rule.get("access", "rwm"))
        and rule.get("major", -1) < 0 and rule.get("minor", -1) < 0
        for rule in rules
    )  # fmt: skip


def guest_devices(spec: Spec, *, vfio: bool = False) -> list[LinuxDevice]:
    """The device nodes that a container gets in the guest. Which devices those of VFIO are is decided elsewhere.

    A privileged container is so in its machine: managers list all of the host's devices for it, and none is given.
    Where a single one is asked for, it is given or refused.

    Args:
        spec: The container's.
        vfio: Whether it gets nodes of VFIO, to drive devices itself; else the guest's kernel does.

    Raises:
        InvalidArgument: It asks for a device that a machine has not.
    """
    linux = spec.get("linux", {})
    privileged = is_privileged(linux.get("resources", {}).get("devices", []))
    kept, dropped = [], []
    for device in linux.get("devices", []):
        path = device["path"]
        own = device["type"] in ("c", "u") and device.get("minor") in _GUEST_S_OWN.get(device.get("major", -1), ())
        if own or device["type"] == "p":
            kept.append(device)
        elif privileged:
            dropped.append(path)
        elif path.startswith("/dev/vfio/"):
            kept += [device] if vfio else []
        elif device["type"] == "b":
            kept.append(device)  # a disk, which is plugged in
        else:
            raise InvalidArgument(f"linux.devices: {path} is a device of the host, which a machine has not")
    if dropped:
        logger.debug("a privileged container gets no devices of the host: %s", ", ".join(dropped))
    return kept
