"""The causes that are known of: each with its code, what it means, its cure, and how it is told from the others.

Errors of ours are told by their class and stage, text only where one class has several causes. The first that fits
counts, so the narrow come before the wide; the last of all fits everything. Codes go in people's runbooks: one that was
released keeps its meaning for ever.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from kata_py.sandbox.failure import Failure


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause.

    Attributes:
        code: Its code: `KATA-`, a letter for the part at fault, a number.
        name: The same as a word.
        meaning: What it means, in a sentence.
        cure: What to do next.
        stages: The stages it is met in; empty is any.
        errors: Classes of which one must be among the errors; empty is any.
        numbers: The system's error numbers of which one must be there; empty is any.
        text: What the cause's words must have in them.
        evidence: What the last lines must have in them.
        anywhere: What the cause's words or the last lines must have in them.
    """

    code: str
    name: str
    meaning: str
    cure: str
    stages: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    text: str = ""
    evidence: str = ""
    anywhere: str = ""

    def fits(self, failure: Failure) -> bool:
        """Whether a failure may be of this cause."""
        return (
            (not self.stages or failure.stage in self.stages)
            and (not self.errors or not set(self.errors).isdisjoint(failure.errors))
            and (not self.numbers or failure.errno in self.numbers)
            and re.search(self.text, failure.cause) is not None
            and re.search(self.evidence, lines := "\n".join(failure.evidence)) is not None
            and re.search(self.anywhere, f"{failure.cause}\n{lines}") is not None
        )


def cause_of(failure: Failure) -> Cause:
    """The cause of a failure; `UNKNOWN` where none is known."""
    return next((cause for cause in CAUSES if cause.fits(failure)), UNKNOWN)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_ABSENT = "does not exist|is no file|cannot be read|is not executable"

UNKNOWN = Cause(
    "KATA-X01",
    "unknown",
    "None of the causes below fits.",
    "read the evidence and the shim's log (`journalctl -t kata`), and report it with what `kata-ctl collect` writes",
)

CAUSES: tuple[Cause, ...] = (
    # ---- C: what the node's administrator, or the pod, has configured
    Cause(
        "KATA-C01",
        "annotation-refused",
        "An annotation of the pod is unknown, not allowed by `enable_annotations`, or has a value that cannot be.",
        "correct the pod's annotation, or allow it in `enable_annotations`",
        ("plan",),
        ("ConfigurationError",),
        text=r"annotation|io\.katacontainers\.",
    ),
    Cause(
        "KATA-C02",
        "configuration-missing",
        "The runtime class names a configuration file that cannot be read.",
        "correct `ConfigPath` of the runtime class in the manager's configuration, or write the file",
        ("plan",),
        ("ConfigurationError",),
        text="cannot be read",
    ),
    Cause(
        "KATA-C03",
        "configuration-invalid",
        "The configuration file has a key or a value that cannot be honoured, or is no TOML.",
        "correct the line that is named",
        ("plan",),
        ("ConfigurationError",),
    ),
    Cause(
        "KATA-C04",
        "spec-invalid",
        "The bundle's config.json, which the manager writes, is missing or garbled.",
        "look at the manager's log; the bundle's directory may be on a full disk",
        ("plan",),
        ("SpecError", "UsageError"),
    ),
    # ---- H: the host
    Cause(
        "KATA-H01",
        "disk-full",
        "The file system at the path that is named has no room, or no inodes, left.",
        "see `df -h` and `df -i` for the path, free some",
        numbers=_FULL,
    ),
    Cause(
        "KATA-H02",
        "permission-denied",
        "The host does not let the shim do what it must.",
        "see that the manager runs the shim as root, and what SELinux or AppArmor say (`ausearch -m avc`, `dmesg`)",
        numbers=_DENIED,
    ),
    Cause(
        "KATA-H03",
        "memory-unavailable",
        "The host does not give the machine its memory.",
        "free memory or huge pages, or make `default_memory` smaller",
        ("qemu", "machine"),
        anywhere="huge pages|[Cc]annot allocate memory|cannot set up guest memory|unable to map backing store",
    ),
    Cause(
        "KATA-H04",
        "kvm-unavailable",
        "The configuration asks for KVM, which this host does not offer.",
        "load kvm_intel or kvm_amd, or set `accelerator` to `auto`",
        ("qemu", "machine"),
        text="KVM cannot be used",
    ),
    Cause(
        "KATA-H05",
        "vhost-unavailable",
        "The configuration asks for vsock, and /dev/vhost-vsock cannot be opened.",
        "run `modprobe vhost_vsock`, or set `agent_channel` to `auto`",
        ("qemu", "machine"),
        text="vsock",
    ),
    Cause(
        "KATA-H06",
        "socket-path-too-long",
        "A socket's path does not fit a Unix socket's address.",
        "use shorter directories or ids",
        text="socket path (is )?too long|socket path of",
    ),
    Cause(
        "KATA-H07",
        "already-there",
        "An earlier sandbox of this id, or a part of it, is still on the node.",
        "run `kata-ctl gc --dry-run`, then `kata-ctl gc`",
        text="is there already|earlier sandbox",
    ),
    # ---- N: the pod's network
    Cause(
        "KATA-N01",
        "netns-missing",
        "There is no network namespace where the manager says the pod's is.",
        "look at the CNI plugins' and the manager's log: they make it",
        ("network",),
        text="no network namespace",
    ),
    Cause(
        "KATA-N02",
        "network-setup",
        "The pod's network cannot be handed to its machine.",
        "look at the link that is named in the pod's network namespace, and at the CNI configuration",
        ("network",),
    ),
    # ---- Q: QEMU and the machine's files
    Cause(
        "KATA-Q01",
        "qemu-missing",
        "There is no QEMU where the configuration says it is.",
        "install qemu-system, or correct `path`",
        ("qemu", "machine"),
        ("HypervisorError",),
        text=rf"({_ABSENT}) \(correct `path`",
    ),
    Cause(
        "KATA-Q02",
        "image-missing",
        "There is no image or initramfs of the guest where the configuration says it is.",
        "install or build the guest, or correct `image` or `initramfs`",
        ("qemu", "machine"),
        text=rf"({_ABSENT}) \(correct `(image|initramfs|initrd)`",
    ),
    Cause(
        "KATA-Q03",
        "kernel-missing",
        "There is no kernel of the guest where the configuration says it is.",
        "install or build the guest, or correct `kernel`",
        ("qemu", "machine"),
        text=rf"({_ABSENT}) \(correct `kernel`",
    ),
    Cause(
        "KATA-Q04",
        "kernel-unusable",
        "QEMU refuses the kernel: it is damaged, no kernel at all, or for another architecture.",
        "install or build the guest's kernel for this node's architecture",
        ("qemu", "machine"),
        text="exited",
        evidence=r"(?i)kernel",
    ),
    Cause(
        "KATA-Q05",
        "qemu-killed",
        "QEMU was killed, most often by the kernel for want of memory.",
        "see `dmesg | grep -i oom`; give the pod's overhead, or the node, more memory",
        text="qemu was killed by",
    ),
    Cause(
        "KATA-Q06",
        "qemu-exited",
        "QEMU ended by itself before its machine ran: it refuses its options, or is something else.",
        "read its last lines; see that `path` is a QEMU of the supported versions",
        ("qemu", "machine"),
        text="exited",
    ),
    # ---- F: the file share
    Cause(
        "KATA-F01",
        "virtiofsd-missing",
        "There is no virtiofsd where the configuration says it is.",
        "install one, or correct `virtio_fs_daemon`",
        ("virtiofsd",),
        text=rf"({_ABSENT}) \(correct `virtio_fs_daemon`|cannot start",
    ),
    Cause(
        "KATA-F02",
        "virtiofsd-unusable",
        "What the configuration names is no virtiofsd, or it ends at once.",
        "run it by hand with --version; correct `virtio_fs_daemon`",
        ("virtiofsd",),
    ),
    Cause(
        "KATA-F03",
        "virtiofsd-killed",
        "virtiofsd died, and the machine's file systems with it.",
        "see `dmesg | grep -i oom` and the shim's log",
        text="virtiofsd",
    ),
    # ---- G: the guest
    Cause(
        "KATA-G01",
        "guest-panic",
        "The guest's kernel panicked: it has no init or no root file system, ran out of memory, or has a fault.",
        "read the console's last lines; use a kernel and an image that belong together",
        anywhere="panicked|Kernel panic",
    ),
    # ---- A: the agent
    Cause(
        "KATA-A01",
        "agent-silent",
        "The guest runs, and no agent answered in the time it has.",
        "read the console's last lines: is there an agent in the image? else raise `dial_timeout`",
        ("agent",),
        ("DeadlineExceeded",),
    ),
    Cause(
        "KATA-A02",
        "command-missing",
        "The container's image has no such program.",
        "correct the pod's command, or its image",
        ("create", "start"),
        text=r"not found in \$PATH|executable file|No such file or directory",
    ),
    Cause(
        "KATA-A03",
        "policy-denied",
        "The guest's policy does not let the request pass.",
        "correct the policy, or the pod",
        text="blocked by policy|denied by policy",
    ),
    Cause(
        "KATA-A04",
        "agent-hung",
        "The agent answered before and does no longer: the guest stands still, or has too little CPU or memory.",
        "read the console's last lines; look at the node's load; raise `create_container_timeout`",
        ("sandbox", "create", "start", "policy"),
        ("DeadlineExceeded",),
    ),
    Cause(
        "KATA-A05",
        "agent-lost",
        "The agent, or the machine it ran in, ended without a word.",
        "read the console's last lines and the shim's log; see `dmesg | grep -i oom`",
        text="agent's connection is lost|connection|agent|machine|killed",
        stages=("agent", "sandbox", "create", "start", "policy", "running"),
    ),
    UNKNOWN,
)
