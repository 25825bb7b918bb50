"""The check of this node: its facts, KVM itself and the configuration, put together."""

from __future__ import annotations

import os
from pathlib import Path

from kata_py.config.load import load, problems
from kata_py.config.model import REMOTE, Configuration
from kata_py.node import eligibility, facts, kernel, kvm, programs
from kata_py.node.eligibility import Finding, Verdict
from kata_py.node.facts import Facts

# What is looked at, in the order of the findings.
CHECKS = {
    "configuration": "that the shim can take it; all that keeps it from that",
    "architecture": "that machines are made for it",
    "processor": "VMX or SVM with lm and sse4_1; SIE on s390x",
    "module": "kvm, with kvm_intel or kvm_amd",
    "KVM": "that it makes a machine when it is asked to, and runs stock guests (as root)",
    "tun, vhost-net, vhost-vsock": "that the devices are there",
    "memory": "that there is enough for one sandbox",
    "kernel": "options that sandboxes need, or some settings",
    "cgroups": "their version and controllers",
    "file systems": "those that are shared or mounted",
    "hypervisor path, kernel, initramfs, image, initrd, firmware, virtio_fs_daemon": "that the files can be read",
    "version": "of QEMU, virtiofsd and the guest's crun: whether they are known to work",
    "adaptor": "for machines elsewhere, in place of all that: that its socket is there",
}


def check(named: Path | None = None, *, emulation: bool = False, root: Path = Path("/")) -> list[Finding]:
    """Look at this node. It changes nothing, and needs no network; it runs programs for their versions.

    Args:
        named: The configuration's file; None is the one that the shim would take.
        emulation: Whether a node without KVM will do.
        root: Where the node's /proc, /sys, /dev, /boot and /lib/modules are.
    """
    findings, configuration = _configuration(named)
    if configuration is not None and configuration.hypervisor.name == REMOTE:
        return [*findings, _adaptor(configuration.hypervisor.remote_hypervisor_socket)]
    node = facts.read(root)
    findings += [*hardware(node, root, emulation=emulation), *kernel.judged(kernel.read(node.release, root))]
    if configuration is None:
        said = "not looked at: only the configuration says which they are"
        return [*findings, *(Finding(what, Verdict.WARN, said, "see configuration") for what in ("files", "versions"))]
    return [*findings, *eligibility.files(_files(configuration)), *_versions(configuration)]


def versions(named: Path | None = None) -> list[Finding]:
    """Look at the programs' versions alone; at the configuration where it does not tell which they are."""
    findings, configuration = _configuration(named)
    return _versions(configuration) if configuration else findings


def _configuration(named: Path | None) -> tuple[list[Finding], Configuration | None]:
    """All that is to be said of the configuration, and the configuration itself if it can be taken."""
    if not (found := problems(named)):
        configuration = load(named)
        return [Finding("configuration", Verdict.OK, str(configuration.source))], configuration
    fix = "correct it, or name another"
    return [
        Finding("configuration", Verdict.FAIL, str(each).removesuffix(f"; {each.hint}"), each.hint or fix)
        for each in found
    ], None


def _versions(configuration: Configuration) -> list[Finding]:
    """Judge the programs on the host and in the guest; those that cannot be run are found as files."""
    hypervisor = configuration.hypervisor
    if hypervisor.name == REMOTE:
        return []
    findings = [programs.judged("version: QEMU", programs.version(hypervisor.path), programs.QEMU)]
    if hypervisor.shared_fs == "virtio-fs":
        said = programs.version(hypervisor.virtio_fs_daemon)
        findings.append(programs.judged("version: virtiofsd", said, programs.virtiofsd_least(said)))
    said = programs.guest_package(hypervisor.image or hypervisor.initrd, "crun")
    return [*findings, programs.judged("version: crun in the guest", said, programs.CRUN)]


def hardware(node: Facts, root: Path = Path("/"), *, emulation: bool = False) -> list[Finding]:
    """Judge the node's processor and kernel, and KVM by asking it for a machine; arguments as for `check`."""
    return eligibility.hardware(node, _kvm(node.architecture, root), emulation=emulation)


def _kvm(architecture: str, root: Path) -> str | None:
    """Why KVM runs no machine; empty if it does, None where nobody could ask it for one."""
    if os.geteuid() != 0:
        return None
    return kvm.obstacle(architecture, architecture, root) or kvm.refusal(root / "dev/kvm")


def _files(configuration: Configuration) -> list[tuple[str, Path | None]]:
    hypervisor = configuration.hypervisor
    share = hypervisor.virtio_fs_daemon if hypervisor.shared_fs.startswith("virtio-fs") else None
    root: list[tuple[str, Path | None]] = [("initrd", hypervisor.initrd)]
    if hypervisor.initrd is None:
        root = [("initramfs", hypervisor.initramfs), ("image", hypervisor.image)]
    return [
        ("hypervisor path", hypervisor.path), ("kernel", hypervisor.kernel), *root, ("firmware", hypervisor.firmware),
        ("virtio_fs_daemon", share),
    ]  # fmt: skip


def _adaptor(socket: Path) -> Finding:
    if socket.is_socket():
        return Finding("adaptor", Verdict.OK, str(socket))
    return Finding("adaptor", Verdict.FAIL, f"{socket} is not there", "start the cloud-api-adaptor on this node")
