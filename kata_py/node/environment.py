"""What this node's sandboxes are made of and on: versions, paths, settings, and the host.

Sections, names and their order are those of `kata-runtime env` (kata `src/runtime/cmd/kata-runtime/kata-env.go`), so
that what reads upstream's reads ours; what has no meaning here is left out, and what is ours comes after upstream's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TypeAlias

from kata_py.config.load import RUNTIME_CLASS
from kata_py.config.model import REMOTE, Configuration
from kata_py.node import facts, programs
from kata_py.node.check import hardware
from kata_py.node.eligibility import eligible
from kata_py.node.facts import Facts

FORMAT = "1.0.27"  # upstream's version of the form
OCI = "1.0.2"  # the runtime specification's, as the agent writes it for crun

Value: TypeAlias = "str | int | bool | list[str] | Table"
Table: TypeAlias = Mapping[str, Value]

_SOCKETS = {
    "vsock": "vsock://<cid>:1024",
    "hybrid-vsock": "/run/vc/vm/<sandbox>/kata.hvsock",
    "virtio-serial": "/run/vc/vm/<sandbox>/agent.sock",
}


def environment(configuration: Configuration, *, root: Path = Path("/")) -> Table:
    """Gather it all. Runs the hypervisor and virtiofsd for their versions, and asks KVM for a machine; blocks.

    Args:
        configuration: The one that counts.
        root: Where the node's /proc, /sys, /dev and /etc are.
    """
    hypervisor = configuration.hypervisor
    found = facts.read(root)
    sections: dict[str, Value] = {
        "Kernel": {"Path": _path(hypervisor.kernel), "Parameters": hypervisor.kernel_params},
        "Meta": {"Version": FORMAT},
        "Image": {"Path": _path(hypervisor.image)},
        "Initrd": {"Path": _path(hypervisor.initrd)},
        "Hypervisor": _hypervisor(configuration, found),
        "Runtime": _runtime(configuration),
        "Host": _host(found, root),
        "Agent": {
            "Debug": configuration.agent.enable_debug,
            "Trace": configuration.agent.enable_tracing,
            "DebugConsole": configuration.agent.debug_console_enabled,
        },
    }
    if hypervisor.name != REMOTE:
        sections["Guest"] = {
            "Initramfs": _path(hypervisor.initramfs),
            "Crun": programs.guest_package(hypervisor.image or hypervisor.initrd, "crun"),
        }
    return sections


def _hypervisor(configuration: Configuration, host: Facts) -> Table:
    hypervisor = configuration.hypervisor
    remote = hypervisor.name == REMOTE
    channel = hypervisor.agent_channel
    if channel == "auto":
        channel = "vsock" if "vhost-vsock" in host.devices else "virtio-serial"
    return {
        "MachineType": hypervisor.machine_type,
        "Version": programs.UNKNOWN if remote else programs.version(hypervisor.path),
        "Path": "" if remote else str(hypervisor.path),
        "BlockDeviceDriver": hypervisor.block_device_driver,
        "EntropySource": _path(hypervisor.entropy_source),
        "SharedFS": hypervisor.shared_fs,
        "VirtioFSDaemon": str(hypervisor.virtio_fs_daemon) if hypervisor.shared_fs == "virtio-fs" else "",
        "SocketPath": str(hypervisor.remote_hypervisor_socket) if remote else _SOCKETS.get(channel, ""),
        "MemorySlots": hypervisor.memory_slots,
        "HotPlugVFIO": hypervisor.hot_plug_vfio,
        "ColdPlugVFIO": hypervisor.cold_plug_vfio,
        "PCIeRootPort": hypervisor.pcie_root_port,
        "PCIeSwitchPort": hypervisor.pcie_switch_port,
        "Debug": hypervisor.enable_debug,
        "Name": hypervisor.name,
        "Accelerator": hypervisor.accelerator,
        "AgentChannel": channel,
        "VirtioFSDaemonVersion": (
            programs.version(hypervisor.virtio_fs_daemon) if hypervisor.shared_fs == "virtio-fs" else ""
        ),
        "SecurityInfo": {
            "Rootless": hypervisor.rootless,
            "DisableSeccomp": not hypervisor.seccompsandbox,
            "GuestHookPath": _path(hypervisor.guest_hook_path),
            "EnableAnnotations": list(hypervisor.enable_annotations),
            "ConfidentialGuest": False,
        },
    }


def _runtime(configuration: Configuration) -> Table:
    runtime = configuration.runtime
    semver = version()
    numbers = [int(part) if part.isdigit() else 0 for part in (*semver.split("."), "0", "0")[:3]]
    return {
        "Path": sys.argv[0],
        "GuestSeLinuxLabel": "",
        "Experimental": list(runtime.experimental),
        "Debug": runtime.enable_debug,
        "Trace": runtime.enable_tracing,
        "DisableGuestSeccomp": runtime.disable_guest_seccomp,
        "DisableNewNetNs": runtime.disable_new_netns,
        "SandboxCgroupOnly": runtime.sandbox_cgroup_only,
        "Python": sys.version.partition(" ")[0],
        "Config": {"Path": "" if configuration.source == RUNTIME_CLASS else str(configuration.source.absolute())},
        "Version": {
            "OCI": OCI,
            "Version": {
                "Semver": semver, "Commit": "",
                "Major": numbers[0], "Minor": numbers[1], "Patch": numbers[2],
            },
        },
    }  # fmt: skip


def _host(found: Facts, root: Path) -> Table:
    release = facts.os_release(root)
    memory = facts.memory(root)
    return {
        "AvailableGuestProtections": [],
        "Kernel": found.release,
        "Architecture": found.architecture,
        "VMContainerCapable": eligible(hardware(found, root)),
        "SupportVSocks": "vhost-vsock" in found.devices,
        "Distro": {"Name": release.get("NAME", programs.UNKNOWN), "Version": release.get("VERSION_ID", "")},
        "CPU": {"Vendor": found.vendor, "Model": found.model, "CPUs": os.cpu_count() or 1},
        "Memory": {  # in KiB, as upstream has it
            "Total": memory.get("MemTotal", 0) >> 10,
            "Free": memory.get("MemFree", 0) >> 10,
            "Available": memory.get("MemAvailable", 0) >> 10,
        },
    }


def version() -> str:
    """Our own version; `unknown` where we are no installed distribution."""
    try:
        return installed("kata-py")
    except PackageNotFoundError:
        return programs.UNKNOWN


def _path(path: Path | None) -> str:
    return "" if path is None else str(path)
