"""What a node tells of itself by commands and by files of the kernel, as bounded texts for a bug report."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from kata_py.diagnosis import redaction

COMMAND_TIMEOUT = 20.0  # seconds
LINES = 5000  # of a journal
ENTRIES_MAX = 2000  # of a listing
SIZE_MAX = 2 << 20  # bytes of one text; of a longer one the end is kept

# The journal's entries by who wrote them: identifiers, and units.
JOURNALS: Mapping[str, tuple[str, ...]] = {
    "shim": ("-t", "kata"),
    "virtiofsd": ("-t", "virtiofsd"),
    "containerd": ("-u", "containerd"),
    "crio": ("-u", "crio"),
    "kubelet": ("-u", "kubelet"),
    "kata-monitor": ("-u", "kata-monitor"),
    "cloud-api-adaptor": ("-u", "cloud-api-adaptor"),
}
# Commands that tell of the host what its files do not.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "host/links.txt": ("ip", "-d", "link"),
    "host/addresses.txt": ("ip", "addr"),
    "host/routes.txt": ("ip", "route"),
    "host/nft.txt": ("nft", "list", "ruleset"),
    "host/pci.txt": ("lspci", "-nn"),
    "host/units.txt": (
        *("systemctl", "show", "--no-pager", "-p", "Id,LoadState,ActiveState,Result,NRestarts,StateChangeTimestamp"),
        "containerd", "crio", "kubelet", "kata-monitor", "cloud-api-adaptor",
    ),
    "host/packages-rpm.txt": ("rpm", "-qa", "kata*", "qemu*", "containerd*", "cri-o*", "crun*", "virtiofsd*"),
    "host/packages-deb.txt": (
        "dpkg-query", "-W", "kata*", "qemu-system*", "containerd*", "cri-o*", "crun*", "virtiofsd*"
    ),
}  # fmt: skip
FILES = ("proc/meminfo", "proc/modules", "proc/filesystems", "proc/cgroups", "proc/loadavg", "etc/os-release")

# What makes a line of the kernel's worth sending.
_KERNEL = re.compile(
    r"kvm|vhost|virtio|qemu|kata|\btun\b|\btap\d|macvtap|vfio|iommu|fuse|overlay|cgroup|oom|out of memory|"
    r"killed process|segfault|general protection|i/o error|ext4-fs|xfs|btrfs|no space|hung task|blocked for more|"
    r"call trace|\bBUG\b|"
    r"hardware error|page allocation|avc:|seccomp|type=1326|linux version|command line:|soft lockup|clocksource",
    re.I,
)
_OURS = re.compile(
    r"containerd-shim-kata|qemu-system|qemu-kvm|virtiofsd|kata-(?:monitor|agent|ctl)|cloud-api-adaptor|vhost-device-vsock|"
    r"\bcontainerd\b|\bcrio\b|\bconmon|kubelet"
)


class Absent(Exception):
    """The node has no such thing; that is no failure."""


def file(path: Path) -> str:
    """A file of the kernel's or the distribution's.

    Raises:
        Absent: This node has none: a kernel without modules has no list of them.
        OSError: It cannot be read.
    """
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        raise Absent(f"there is no {path}") from None


def command(*words: str) -> str:
    """What a command prints, with its errors.

    Raises:
        Absent: There is no such program here.
        OSError: It cannot be run, or does not end in time.
    """
    program = shutil.which(words[0])
    if program is None:
        raise Absent(f"there is no {words[0]} here")
    try:
        ran = subprocess.run(
            [program, *words[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT, check=False, env=os.environ | {"LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{words[0]} does not end within {COMMAND_TIMEOUT:g} s") from error
    return ran.stdout.decode(errors="replace")


def journal(selection: tuple[str, ...], since: str) -> str:
    """The journal's last entries of somebody.

    Args:
        selection: Whose, as journalctl takes it.
        since: From when on, as journalctl takes it.

    Raises:
        Absent: There is no journal here.
        OSError: As `command`.
    """
    return command(
        "journalctl", *selection, "--since", since, "-n", str(LINES), "-o", "short-iso-precise", "--no-pager", "-q"
    )  # fmt: skip


def kernel_log() -> str:
    """Those of the kernel's lines that may have to do with machines, memory, disks or confinement.

    Raises:
        Absent: There is no dmesg here.
        OSError: As `command`.
    """
    told: list[str] = []
    for line in command("dmesg", "--time-format", "iso").splitlines():
        before, says, parameters = line.partition("ommand line: ")  # the kernel repeats its own
        if _KERNEL.search(line):
            told.append(before + says + redaction.kernel_parameters(parameters) if says else line)
    return "".join(f"{line}\n" for line in told)


def processes(proc: Path = Path("/proc")) -> str:
    """The processes that sandboxes and their managers are made of, with what they hold and bounded command lines."""
    lines = [f"{'pid':>8} {'ppid':>8} {'state':5} {'rss KiB':>10} command"]
    for pid in sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit()):
        with contextlib.suppress(OSError, KeyError):  # it has ended
            words = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            if _OURS.search(" ".join(words[:3])):
                fields = dict(
                    line.split(":", 1) for line in (proc / str(pid) / "status").read_text().splitlines() if ":" in line
                )
                state, rss = fields["State"].split()[0], fields.get("VmRSS", "0").split()[0]
                told = redaction.command_line(words)
                lines.append(f"{pid:>8} {fields['PPid'].strip():>8} {state:5} {rss:>10} {told}")
    return "\n".join(lines) + "\n"


def virtual_functions(attribute: str, sys: Path = Path("/sys")) -> str:
    """An attribute of SR-IOV of each network card that has it, a line each.

    Args:
        attribute: `sriov_numvfs`: functions that are made; `sriov_totalvfs`: that can be.
        sys: Where sysfs is.

    Raises:
        Absent: No card of this node has it.
    """
    lines = []
    for path in sorted(sys.glob(f"class/net/*/device/{attribute}")):
        with contextlib.suppress(OSError):  # the card is taken away
            lines.append(f"{path}: {path.read_text().strip()}\n")
    if not lines:
        raise Absent(f"no network card here has {attribute}")
    return "".join(lines)


def listing(*roots: Path) -> str:
    """The files below some directories, with mode, owner, size: no content. What is mounted there is not entered."""
    lines: list[str] = []
    for root in roots:
        for path in _below(root):
            if len(lines) == ENTRIES_MAX:
                return "\n".join([*lines, "..."]) + "\n"
            with contextlib.suppress(OSError):
                found = path.lstat()
                target = f" -> {path.readlink()}" if stat.S_ISLNK(found.st_mode) else ""
                mode = stat.filemode(found.st_mode)
                lines.append(f"{mode} {found.st_uid:>6} {found.st_gid:>6} {found.st_size:>12} {path}{target}")
    return "\n".join(lines) + "\n"


def mounts(proc: Path = Path("/proc")) -> str:
    """The mounts that sandboxes have made.

    Raises:
        OSError: They cannot be read.
    """
    lines = (proc / "self/mountinfo").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if "kata" in line or "/run/vc" in line)


def bounded(text: str) -> tuple[str, bool]:
    """A text's end, as much as is kept of it; and whether that is less than all."""
    data = text.encode(errors="replace")
    if len(data) <= SIZE_MAX:
        return text, False
    return f"... the first {len(data) - SIZE_MAX} bytes are left out\n" + data[-SIZE_MAX:].decode(errors="ignore"), True


def _below(root: Path) -> Iterator[Path]:
    try:
        device = root.lstat().st_dev
    except OSError:
        return
    for directory, names, files in os.walk(root):
        here = Path(directory)
        yield here
        yield from (here / name for name in sorted(files))
        names[:] = sorted(name for name in names if _device(here / name) == device)


def _device(path: Path) -> int | None:
    try:
        return path.lstat().st_dev
    except OSError:
        return None
