"""A container's bundle in the guest: its directory, its root file system, its adapted config.json.

The spec comes from the host, which has reduced it to what concerns the guest; what is left to adapt is what
only the agent knows. Source: docs of kata-containers' agent, `rpc.rs` (setup_bundle, update_container_namespaces).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.container import limits
from kata_agent.errors import AgentError, InvalidArgument

if TYPE_CHECKING:
    from kata_py.oci.spec import Linux, LinuxNamespace, Process, Spec

_LOG = logging.getLogger(__name__)

OCI_VERSION = "1.0.2"  # the one that every crun knows; which the manager wrote for says nothing of what is in it

# Namespaces of the host that mean nothing here: all containers share the guest's network.
_HOST_ONLY = ("network", "time")  # but a network namespace with a path is one that was made here, for a peer pod

# Settings of the ipc and uts namespaces, and those of the network namespace and of message queues.
_NAMESPACED = frozenset(
    {
        "kernel.domainname", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shm_rmid_forced",
        "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    }
)  # fmt: skip
_NAMESPACED_BELOW = ("fs.mqueue.", "net.")


class Bundle:
    """The directory `/run/kata-containers/<id>/` of one container."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self.hook_log = directory / "hooks.log"
        self._root_is_given = False  # mounted where it is to be, by a storage

    def write(self, spec: Spec) -> None:
        """Make the directory, mount the root file system and save the spec.

        Args:
            spec: The adapted spec; its root path is still the host's word for where the files are.

        Raises:
            AgentError: There are no such files, or they cannot be mounted; nothing is left.
        """
        source = spec["root"]["path"]
        try:
            self._root_is_given = Path(source) == self.rootfs
            if not self._root_is_given:
                self.rootfs.mkdir(parents=True)
                linux.mount(source, str(self.rootfs), flags=linux.MS_BIND | linux.MS_REC)
            document = {**spec, "root": {**spec["root"], "path": str(self.rootfs)}}
            (self.directory / "config.json").write_text(json.dumps(document))
        except OSError as error:
            self.remove()
            raise AgentError(f"cannot make the bundle of root {source}: {error.strerror}") from error

    def report_hooks(self) -> None:
        """Log what the hooks before the start have said."""
        with contextlib.suppress(FileNotFoundError):
            for line in self.hook_log.read_text(errors="replace").splitlines():
                _LOG.warning("prestart hook of %s: %s", self.directory.name, line)

    def remove(self) -> None:
        """Unmount the root file system and remove the directory; never what is mounted into it."""
        if not self._root_is_given:
            linux.detach(str(self.rootfs))
            with contextlib.suppress(FileNotFoundError):
                self.rootfs.rmdir()
        for file in (self.directory / "config.json", self.hook_log):
            file.unlink(missing_ok=True)
        if not self._root_is_given:  # else it is its storage's
            with contextlib.suppress(FileNotFoundError):
                self.directory.rmdir()


def adapted(
    spec: Spec, container_id: str, *, shared: Mapping[str, str], pid_namespace: str | None, unified: bool
) -> Spec:
    """The spec as this guest can run it.

    Args:
        spec: What the host sent.
        container_id: The container's id.
        shared: Paths of the sandbox's namespaces by type: `ipc`, `uts`.
        pid_namespace: Path of the pid namespace to join; None makes a new one.
        unified: Whether the guest has cgroup v2.

    Raises:
        InvalidArgument: There is no process or no root in it.
    """
    if not spec.get("process") or not spec.get("root"):
        raise InvalidArgument(f"spec of container {container_id} has no {'root' if spec.get('process') else 'process'}")
    result = spec.copy()
    result["ociVersion"] = OCI_VERSION  # crun refuses those it does not know: Debian 12's, CRI-O 1.32's 1.2.0
    result["process"] = process(spec["process"])
    result["linux"] = _linux(spec.get("linux", {}), container_id, shared, pid_namespace, unified)
    if result.pop("hooks", None):
        _LOG.warning("container %s: the hooks in its spec are for the host and are not run", container_id)
    return result


def process(document: Process) -> Process:
    """A process document as this guest can run it."""
    result = limits.within_reach(document).copy()
    result.pop("apparmorProfile", None)  # a profile of the host
    return result


def _linux(
    section: Linux, container_id: str, shared: Mapping[str, str], pid_namespace: str | None, unified: bool
) -> Linux:
    result = section.copy()
    namespaces = [_namespace(each, shared) for each in section.get("namespaces", ()) if each["type"] not in _HOST_ONLY]
    namespaces = [each for each in namespaces if each["type"] not in ("pid", "cgroup")]
    network = [each for each in section.get("namespaces", ()) if each["type"] == "network" and each.get("path")]
    namespaces += network
    namespaces.append({"type": "pid", "path": pid_namespace} if pid_namespace else {"type": "pid"})
    if unified:
        namespaces.append({"type": "cgroup"})
    sysctl = _known(_namespaced(section.get("sysctl", {})), container_id)
    # For settings of the network crun asks a namespace: without the pod's own it is the guest's, ours.
    if not network and any(name.startswith("net.") for name in sysctl):
        namespaces.append({"type": "network", "path": f"/proc/{os.getpid()}/ns/net"})
    result["sysctl"] = sysctl
    result["namespaces"] = namespaces
    result["cgroupsPath"] = cgroups_path(section.get("cgroupsPath", ""), container_id)
    if "network" in section.get("resources", {}):
        result["resources"] = section["resources"].copy()
        del result["resources"]["network"]  # cgroup v2 has no such limits
    return result


def _namespaced(sysctl: Mapping[str, str]) -> Mapping[str, str]:
    """The settings, if each is one of a namespace.

    Raises:
        InvalidArgument: One is of the whole guest. Source: sysctl(2)'s files by namespaces(7).
    """
    known = ", ".join([*sorted(_NAMESPACED), *(f"{prefix}*" for prefix in _NAMESPACED_BELOW)])
    for name in sysctl:
        dotted = name.replace("/", ".")
        if dotted not in _NAMESPACED and not dotted.startswith(_NAMESPACED_BELOW):
            raise InvalidArgument(
                f"sysctl {name} is not namespaced: it would change all containers of the pod; "
                f"what can be set is {known}"
            )
    return sysctl


def _known(sysctl: Mapping[str, str], container_id: str) -> dict[str, str]:
    """The settings that this kernel has; crun would fail at the others."""
    known = {name: value for name, value in sysctl.items() if Path("/proc/sys", name.replace(".", "/")).exists()}
    for name in sysctl.keys() - known.keys():
        _LOG.warning("container %s: this kernel has no sysctl %s", container_id, name)
    return known


def _namespace(namespace: LinuxNamespace, shared: Mapping[str, str]) -> LinuxNamespace:
    path = shared.get(namespace["type"])
    return {"type": namespace["type"], "path": path} if path else namespace


def cgroups_path(path: str, container_id: str) -> str:
    """The cgroup's path as crun's cgroupfs driver takes it; `slice:prefix:name` becomes three directories."""
    return "/" + (path.replace(":", "/").strip("/") or container_id)
