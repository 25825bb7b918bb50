"""What follows from a node's facts: whether it can run sandboxes, and what to do where it cannot. Pure.

Rules: OpenShift sandboxed containers guide 2.3.2.3; kata `src/runtime/cmd/kata-runtime/kata-check_{amd64,s390x}.go`.
Ours in addition: a KVM that runs no stock guests is found out, and emulation is told as what it is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_py.node.facts import Facts

LABEL = "feature.node.kubernetes.io/runtime.kata"
ARCHITECTURES = ("x86_64", "s390x")
MEMORY_MIN = 2 << 30  # bytes: a machine's default_memory, and next to nothing besides

_VENDORS = {"GenuineIntel": ("vmx", "kvm_intel"), "AuthenticAMD": ("svm", "kvm_amd")}


class Verdict(enum.StrEnum):
    """What a finding means."""

    OK = "ok"
    WARN = "warn"  # sandboxes run, not as well as they could
    FAIL = "fail"  # none run


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: What it means.
        evidence: What was seen.
        fix: What to do; empty where nothing has to be done.
    """

    name: str
    verdict: Verdict
    evidence: str
    fix: str = ""


def eligible(findings: Iterable[Finding], *, strict: bool = False) -> bool:
    """Whether sandboxes run on the node; with `strict`, whether they run as well as they could."""
    return {finding.verdict for finding in findings} <= ({Verdict.OK} if strict else {Verdict.OK, Verdict.WARN})


def label(findings: Iterable[Finding], *, strict: bool = False) -> str:
    """The line for a file in NFD's `features.d`, which sets the label that the operator selects nodes by."""
    return f"{LABEL}={str(eligible(findings, strict=strict)).lower()}"


def hardware(facts: Facts, kvm_refusal: str | None, *, emulation: bool) -> list[Finding]:
    """Judge processor and kernel.

    Args:
        facts: The node's.
        kvm_refusal: Why KVM runs no machine; empty if it does, None where nobody could ask.
        emulation: Whether machines without KVM will do, emulated: then its lack is a warning.
    """
    lack = Verdict.WARN if emulation else Verdict.FAIL
    return [
        _architecture(facts),
        *_processor(facts, lack),
        _kvm(facts, kvm_refusal, lack),
        *_network(facts),
        _memory(facts),
    ]


def files(wanted: Iterable[tuple[str, Path | None]]) -> list[Finding]:
    """Judge the files that the configuration names.

    Args:
        wanted: What each is, and where; those without a path are not needed.
    """
    return [_file(what, path) for what, path in wanted if path is not None]


def _architecture(facts: Facts) -> Finding:
    if facts.architecture in ARCHITECTURES:
        return Finding("architecture", Verdict.OK, facts.architecture)
    fix = f"run sandboxes on nodes of {' or '.join(ARCHITECTURES)}"
    return Finding("architecture", Verdict.FAIL, f"{facts.architecture} has no machine type here", fix)


def _processor(facts: Facts, lack: Verdict) -> Iterator[Finding]:
    if facts.architecture == "s390x":
        yield _flag(facts, "sie", lack, "give the partition, or the machine it runs in, the right to start machines")
        yield _module(facts, "kvm", lack)
        return
    if facts.architecture != "x86_64":
        return
    if facts.vendor not in _VENDORS:
        known = " or ".join(_VENDORS)
        yield Finding("processor", lack, f"maker {facts.vendor or 'not told'}, not {known}", "use such a processor")
        return
    flag, module = _VENDORS[facts.vendor]
    if facts.virtual:
        fix = "the node is a virtual machine: switch nested virtualization on in what it runs on, or take peer pods"
    else:
        fix = "switch virtualization on in the firmware (VT-x, AMD-V, SVM mode)"
    yield _flag(facts, flag, lack, fix)
    for each in ("lm", "sse4_1"):
        yield _flag(facts, each, lack, "use a younger processor, or pass the host's on to the node (-cpu host)")
    yield _module(facts, "kvm", lack)
    yield _module(facts, module, lack)
    if facts.nested.get(module) is False:
        evidence = f"{module} has nested=N: pods cannot run machines of their own"
        fix = f"if they are to: options {module} nested=1 in /etc/modprobe.d/kvm.conf, and load the module anew"
        yield Finding("nested", Verdict.OK, evidence, fix)


def _flag(facts: Facts, flag: str, lack: Verdict, fix: str) -> Finding:
    if flag in facts.flags:
        return Finding(f"processor: {flag}", Verdict.OK, "in /proc/cpuinfo")
    return Finding(f"processor: {flag}", lack, "not in /proc/cpuinfo", fix)


def _module(facts: Facts, name: str, lack: Verdict) -> Finding:
    if name in facts.modules:
        return Finding(f"module: {name}", Verdict.OK, "loaded")
    if name in facts.loadable:
        return Finding(f"module: {name}", lack, "not loaded", f"modprobe {name}; for each boot: /etc/modules-load.d/")
    evidence = f"not there for the kernel {facts.release}"
    return Finding(f"module: {name}", lack, evidence, "use a kernel that has it")


def _kvm(facts: Facts, refusal: str | None, lack: Verdict) -> Finding:
    """Judge KVM by what it does; the device alone says little."""
    if "kvm" not in facts.devices:
        return Finding("KVM", lack, "/dev/kvm is not there", "see the lines above")
    if refusal is None:
        return Finding("KVM", Verdict.WARN, "not asked for a machine", "run this as root")
    if refusal:
        fix = "use a node with nested virtualization, a whole machine, or peer pods" if facts.virtual else "see dmesg"
        return Finding("KVM", lack, refusal, fix)
    return Finding("KVM", Verdict.OK, "made a machine")


def _network(facts: Facts) -> Iterator[Finding]:
    if "net/tun" in facts.devices:
        yield Finding("tun", Verdict.OK, "/dev/net/tun")
    else:
        yield Finding("tun", Verdict.FAIL, "/dev/net/tun is not there", "modprobe tun")
    for device, use in (("vhost-net", "traffic of pods goes through QEMU, slower"),
                        ("vhost-vsock", "agents are reached by virtio-serial")):  # fmt: skip
        name = device.replace("-", "_")
        if device in facts.devices:
            yield Finding(device, Verdict.OK, f"/dev/{device}")
        else:
            fix = f"modprobe {name}" if name in facts.loadable else "use a kernel that has it, or leave it so"
            yield Finding(device, Verdict.WARN, f"/dev/{device} is not there: {use}", fix)


def _memory(facts: Facts) -> Finding:
    told = f"{facts.memory / 2**30:.1f} GiB"
    if facts.memory >= MEMORY_MIN:
        return Finding("memory", Verdict.OK, told)
    return Finding("memory", Verdict.WARN, f"{told} in all", "lower default_memory, or give the node more")


def _file(what: str, path: Path) -> Finding:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        fix = f"install it, or name another in the configuration ({what})"
        return Finding(what, Verdict.FAIL, f"{path}: {error.strerror}", fix)
    return Finding(what, Verdict.OK, str(path))
