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
        stages: The stages it is met in, by their first words: a container's has its id as well; empty is any.
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
            (not self.stages or failure.stage.partition(" ")[0] in self.stages)
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
    # ---- S: the shim
    Cause(
        "KATA-S01",
        "shim-killed",
        "The pod's shim was killed, and its machine with it: by somebody, or by the kernel for want of memory.",
        "see `dmesg | grep -i oom`; CRI-O does not remove what is left: `kata-ctl gc` does",
        text=r"^the shim \(pid \d+\) was killed",
    ),
    Cause(
        "KATA-S02",
        "shim-hung",
        "The pod's shim answered its manager no more, which had it killed.",
        "see the node's load, and the shim's log (`journalctl -t kata`); report it",
        text=r"^the shim \(pid \d+\) answered nobody",
    ),
    Cause(
        "KATA-S03",
        "shim-gone",
        "A container was to be made in a pod whose shim is not there any more.",
        "explain the pod's sandbox, whose id the error names; the manager makes a new one",
        ("shim",),
        text="has no live shim",
    ),
    # ---- M: the manager
    Cause(
        "KATA-M01",
        "manager-gave-up",
        "The manager waited no longer for the creation, which was in the stage that is named.",
        "see `kata-ctl timeline` for what takes so long, and the node's load; give the manager more time (kubelet's"
        " `runtimeRequestTimeout`)",
        text="^the manager's time for the creation was up",
    ),
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
        ("plan", "shim"),
        ("SpecError", "UsageError"),
        text=r"config\.json",
    ),
    Cause(
        "KATA-C05",
        "volume-missing",
        "What the pod's spec mounts into a container is not on the node.",
        "look for the path that is named: a volume that is not mounted yet, or a wrong hostPath",
        ("create",),
        text="^cannot share .*No such file or directory",
    ),
    Cause(
        "KATA-C06",
        "hook-failed",
        "A hook of the container's spec failed, or took longer than it may.",
        "run the hook that is named by hand; whoever writes the spec (the manager, NRI, CDI) put it there",
        ("hooks", "create"),
        text="^hook ",
    ),
    Cause(
        "KATA-N05",
        "network-of-host",
        "The pod asks for the host's network, which a machine cannot share.",
        "remove `hostNetwork: true` from the pod, or give it another runtime class",
        ("plan", "network"),
        text="hostNetwork",
    ),
    Cause(
        "KATA-C07",
        "request-refused",
        "The pod asks for what this runtime class cannot give it; the error says what.",
        "change the pod, or the configuration, as the error says; see limitations.md",
        ("plan",),
        ("InvalidArgument", "Unimplemented", "FailedPrecondition"),
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
    Cause(
        "KATA-H08",
        "clock-wrong",
        "A certificate is not valid at the time that node and guest believe it is.",
        "compare `date -u` on the node with a clock that is right, see to NTP; else renew the certificate",
        anywhere="not valid at this time|certificate (has expired|is not yet valid)",
    ),
    # ---- N: the pod's network
    Cause(
        "KATA-N01",
        "netns-missing",
        "There is no network namespace where the manager says the pod's is.",
        "look at the CNI plugins' and the manager's log: they make it",
        ("network",),
        text="no network namespace|^network namespace .*Invalid argument",
    ),
    Cause(
        "KATA-N03",
        "link-in-use",
        "A link in the pod's network namespace has a name that is needed, or is filtered by somebody else.",
        "look at `ip link` and `tc qdisc` in the pod's network namespace: another shim, or a CNI plugin, is at it",
        ("network",),
        text="Device or resource busy|File exists|queueing discipline already",
    ),
    Cause(
        "KATA-N04",
        "link-unsupported",
        "The CNI plugins made a link that cannot become a machine's interface: no Ethernet, or a physical device.",
        "have the CNI configuration give the pod a veth, macvlan, ipvlan or tap link",
        ("network",),
        ("UnsupportedLink",),
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
        "KATA-Q07",
        "qemu-out-of-memory",
        "The host's kernel killed QEMU: the cgroup that is named has a limit that the machine does not fit into.",
        "raise the pod's limit or the runtime class's overhead, or make `default_memory` smaller",
        text="qemu was killed by the host for want of memory",
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
        "KATA-G02",
        "container-out-of-memory",
        "The guest's kernel killed a process of a container, which wanted more memory than the container may have.",
        "raise the container's memory limit, or find what takes so much",
        ("running",),
        text="^the guest's kernel killed in container",
    ),
    Cause(
        "KATA-G03",
        "image-damaged",
        "The guest's kernel cannot unpack its initramfs or mount its root: one is damaged, or not of this guest.",
        "install or build the guest anew; see that `kernel`, `initramfs`, `image` and `rootfs_type` belong together",
        ("agent",),
        evidence=r"Initramfs unpacking failed|initramfs: no \w+ on|Unable to mount root|annot find valid .*superblock",
    ),
    Cause(
        "KATA-G04",
        "guest-architecture",
        "The guest's first program is for another architecture than its kernel.",
        "install or build kernel, initramfs and image of one guest, for this node's architecture",
        ("agent",),
        evidence=r"Failed to execute \S+ \(error -8\)|Exec format error",
    ),
    Cause(
        "KATA-G01",
        "guest-panic",
        "The guest's kernel panicked: it has no init or no root file system, ran out of memory, or has a fault.",
        "read the console's last lines; use a kernel and an image that belong together",
        anywhere="panicked|Kernel panic",
    ),
    # ---- I: images that the guest pulls
    Cause(
        "KATA-I01",
        "image-not-pulled",
        "The guest cannot pull the container's image.",
        "do what the error says of the image; what the guest is told of registries is in its /run/peerpod",
        ("create",),
        text="^agent: image ",
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
        text=r"^agent: .*(not found in \$PATH|executable file|No such file or directory)",
    ),
    Cause(
        "KATA-A07",
        "architecture-other",
        "The container's program, and most likely its whole image, is for another architecture than the node.",
        "use an image that has this node's architecture, or place the pod on a node that the image is for",
        ("create", "start"),
        text="is a program for |[Ee]xec format error",
    ),
    Cause(
        "KATA-A03",
        "policy-denied",
        "The guest's policy does not let the request pass.",
        "correct the policy, or the pod",
        text="blocked by policy|denied by policy",
    ),
    Cause(
        "KATA-A06",
        "policy-invalid",
        "The pod's policy is none that the guest can read.",
        "correct the policy's Rego at the place that is named",
        ("policy",),
        text="not a policy",
    ),
    Cause(
        "KATA-A08",
        "agent-version",
        "The guest's agent does not know a call of this shim's, or answers it otherwise: it is of another version.",
        "use the guest image of this version, see `kata-ctl version`",
        text="the agent is of version|the agent does not tell its version",
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
    Cause(
        "KATA-S04",
        "shim-failed",
        "The pod's shim could not begin to serve, or ended by an error of its own.",
        "read what it said, and the shim's log (`journalctl -t kata`); report both",
        ("shim",),
    ),
    UNKNOWN,
)
