"""What is left to a machine's programs: of all that root may do, next to nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kata_py.config.hypervisor import HypervisorConfig
from kata_py.hypervisor.api import Accelerator, HypervisorError, VmSpec
from kata_py.resource.confinement import Confinement, User, selinux_enabled, throw_away_user

KVM = Path("/dev/kvm")

# What both virtiofsds keep for the files of all users, and what they need to shut themselves in before they drop the
# rest. Source: QEMU ≤ 7.2 `tools/virtiofsd/passthrough_ll.c` (setup_capabilities); virtiofsd `src/sandbox.rs`.
_VIRTIOFSD = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod", "setfcap", "setgid", "setuid",
    "setpcap", "sys_admin", "sys_chroot", "sys_resource",
)  # fmt: skip


def of_helper() -> Confinement:
    """That of a program between QEMU and the shim, which needs its sockets and the guest's memory alone."""
    return Confinement(own_network=True)


def of_virtiofsd(spec: VmSpec) -> Confinement:
    """virtiofsd's: it serves files of any owner, so it has to be root; it makes its own namespaces."""
    return Confinement(_VIRTIOFSD, label=_label(spec))


def of_qemu(config: HypervisorConfig, spec: VmSpec, user: User | None = None) -> Confinement:
    """QEMU's: no capabilities. What it needs is opened for it, so the pod's network is the most that it may reach."""
    network = spec.network_namespace
    return Confinement(
        network=network,
        own_network=network is None,
        user=user,
        label=_label(spec),
        locked_memory=config.hot_plug_vfio != "no-port" or config.cold_plug_vfio != "no-port",
    )


@contextmanager
def user_of(config: HypervisorConfig, spec: VmSpec, accelerator: Accelerator, kvm: Path = KVM) -> Iterator[User | None]:
    """Whom the machine's QEMU runs as; None is root.

    Raises:
        HypervisorError: A throw-away user cannot read what it boots.
        OSError: There is none left.
    """
    if not config.rootless:
        yield None
        return
    with throw_away_user((kvm.stat().st_gid,) if accelerator is Accelerator.KVM else ()) as user:
        boot = spec.boot
        for path in filter(None, (config.path, boot.kernel, boot.initramfs, boot.image, config.firmware)):
            if obstacle := _obstacle(path):
                raise HypervisorError(
                    "qemu", f"rootless is true, but {obstacle}, so QEMU cannot read {path}",
                    hint=f"chmod o+rx {obstacle.split()[0]}, or set rootless to false",
                )  # fmt: skip
        yield user


def lend(path: Path, user: User | None, mode: int) -> None:
    """Give a user the part in a file that it needs: all of a socket or file, the way through a directory.

    Args:
        path: The file.
        user: Whom; None is root, who has it already.
        mode: What owner and group may do.
    """
    if user is not None:
        owner = -1 if stat.S_ISDIR(path.lstat().st_mode) else user.number
        os.chown(path, owner, user.number, follow_symlinks=False)
        path.chmod(mode)


def _label(spec: VmSpec) -> str:
    return spec.selinux_label if spec.selinux_label and selinux_enabled() else ""


def _obstacle(path: Path) -> str:
    """What keeps strangers from reading a file, itself or a directory above; empty if nothing does."""
    real = path.resolve()
    for each in reversed(real.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            return f"{each} is closed to others"
    return "" if real.stat().st_mode & stat.S_IROTH else f"{real} is closed to others"
