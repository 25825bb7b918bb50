"""What the host's kernel can do beyond its modules: its configuration, file systems and cgroup controllers."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kata_py.node.eligibility import Finding, Verdict

_OPTION = re.compile(r"^(CONFIG_\w+)=([ym])$", re.M)
_SIZE_MAX = 4 << 20  # bytes of a configuration; they have some 250 KiB

# Options that sandboxes need, and what for; any of an entry's will do.
NEEDED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("CONFIG_TUN",), "the machines' network devices"),
    (("CONFIG_MEMFD_CREATE",), "memory that QEMU and virtiofsd share"),
    (("CONFIG_NET_NS",), "the pods' network namespaces"),
    (("CONFIG_PID_NS",), "virtiofsd's sandbox"),
    (("CONFIG_CGROUPS",), "the pods' cgroups"),
)
# Options that some settings need.
WANTED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("CONFIG_NET_SCH_INGRESS",), "internetworking_model tcfilter"),
    (("CONFIG_NET_CLS_U32",), "internetworking_model tcfilter"),
    (("CONFIG_NET_ACT_MIRRED",), "internetworking_model tcfilter"),
    (("CONFIG_MACVTAP",), "internetworking_model macvtap"),
    (("CONFIG_SECCOMP_FILTER",), "seccompsandbox"),
    (("CONFIG_CGROUP_BPF", "CONFIG_CGROUP_DEVICE"), "keeping the machine from devices that are not the pod's"),
    (("CONFIG_OVERLAY_FS",), "the managers' images"),
)
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
FILE_SYSTEMS = ("tmpfs", "overlay")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel.

    Attributes:
        release: As `uname -r` has it.
        options: What it was built with, `y` or `m`; None where it does not tell.
        file_systems: Those that it has now; a module's come when they are used.
        controllers: Of cgroups, those that are switched on.
        unified: Whether cgroups are of the second version.
    """

    release: str
    options: Mapping[str, str] | None
    file_systems: frozenset[str]
    controllers: frozenset[str]
    unified: bool


def read(release: str, root: Path = Path("/")) -> Kernel:
    """Read what a kernel can do.

    Args:
        release: As `uname -r` has it.
        root: Where its /proc, /sys, /boot and /lib/modules are.
    """
    unified = root / "sys/fs/cgroup/cgroup.controllers"
    if unified.exists():
        controllers = frozenset(_text(unified).split())
    else:
        rows = [line.split() for line in _text(root / "proc/cgroups").splitlines() if not line.startswith("#")]
        controllers = frozenset(row[0] for row in rows if len(row) == 4 and row[3] == "1")
    return Kernel(
        release=release,
        options=_options(release, root),
        file_systems=frozenset(line.split()[-1] for line in _text(root / "proc/filesystems").splitlines() if line),
        controllers=controllers,
        unified=unified.exists(),
    )


def judged(kernel: Kernel) -> Iterator[Finding]:
    """Judge a kernel; of what is there, one line for all."""
    if kernel.options is None:
        evidence = f"{kernel.release}: neither /proc/config.gz nor /boot/config-{kernel.release} can be read"
        yield Finding("kernel: options", Verdict.WARN, evidence, "modprobe configs, or install the kernel's own file")
    else:
        yield from _judged_options(kernel.release, kernel.options)
    version = "v2" if kernel.unified else "v1"
    if missing := [name for name in CONTROLLERS if name not in kernel.controllers]:
        fix = "switch them on: cgroup_enable= on the kernel's command line, or cgroup.subtree_control"
        yield Finding("cgroups", Verdict.WARN, f"{version}, without {', '.join(missing)}: pods are not limited", fix)
    else:
        yield Finding("cgroups", Verdict.OK, f"{version}: {', '.join(CONTROLLERS)}")
    if missing := [name for name in FILE_SYSTEMS if name not in kernel.file_systems]:
        fix = "; ".join(f"modprobe {name}" for name in missing)
        yield Finding("file systems", Verdict.WARN, f"/proc/filesystems has no {', '.join(missing)}", fix)
    else:
        yield Finding("file systems", Verdict.OK, ", ".join(FILE_SYSTEMS))


def _judged_options(release: str, options: Mapping[str, str]) -> Iterator[Finding]:
    lacking = False
    for table, verdict in ((NEEDED, Verdict.FAIL), (WANTED, Verdict.WARN)):
        for names, use in table:
            if not any(name in options for name in names):
                lacking = True
                evidence = f"{' or '.join(names)} is not set: it is needed for {use}"
                yield Finding(
                    f"kernel: {names[0].removeprefix('CONFIG_')}", verdict, evidence, "use a kernel that has it"
                )
    if not lacking:
        yield Finding("kernel: options", Verdict.OK, f"{release} has the {len(NEEDED) + len(WANTED)} that are used")


def _options(release: str, root: Path) -> dict[str, str] | None:
    for path in (root / "proc/config.gz", root / f"boot/config-{release}", root / f"lib/modules/{release}/config"):
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                return dict(_OPTION.findall(file.read(_SIZE_MAX).decode(errors="replace")))
        except (OSError, EOFError):
            continue
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
