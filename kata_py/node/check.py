"""The check of this node: its facts, KVM itself and the configuration, put together."""

from __future__ import annotations

import os
from pathlib import Path

from kata_py.config.errors import ConfigurationError
from kata_py.config.load import load
from kata_py.config.model import REMOTE, Configuration
from kata_py.node import eligibility, facts, kvm
from kata_py.node.eligibility import Finding, Verdict
from kata_py.node.facts import Facts


def check(named: Path | None = None, *, emulation: bool = False, root: Path = Path("/")) -> list[Finding]:
    """Look at this node. It changes nothing, and needs no network.

    Args:
        named: The configuration's file; None is the one that the shim would take.
        emulation: Whether a node without KVM will do.
        root: Where the node's /proc, /sys, /dev and /lib/modules are.
    """
    findings: list[Finding] = []
    configuration: Configuration | None = None
    try:
        configuration = load(named)
    except ConfigurationError as error:
        fix = error.hint or "correct it, or name another; kata-ctl config check tells when it is good"
        findings.append(Finding("configuration", Verdict.FAIL, str(error).removesuffix(f"; {error.hint}"), fix))
    else:
        findings.append(Finding("configuration", Verdict.OK, str(configuration.source)))
    if configuration is not None and configuration.hypervisor.name == REMOTE:
        socket = configuration.hypervisor.remote_hypervisor_socket
        return [*findings, _adaptor(socket)]
    findings += hardware(facts.read(root), root, emulation=emulation)
    if configuration is not None:
        findings += eligibility.files(_files(configuration))
    return findings


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
