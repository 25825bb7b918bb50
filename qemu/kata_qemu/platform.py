"""What differs between the machine types: frozen values, no code."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.bus import Bus, CcwBus, PciBus


@dataclass(frozen=True, slots=True)
class Platform:
    """A machine type.

    Attributes:
        machine: What `-machine` is told: its name, with a version if one was asked for.
        architecture: What `uname -m` says in its guests.
        options: What `-machine` is told besides: devices that no guest of ours needs are left out.
        bus: Makes the bus of a new machine.
        console: The kernel's name of the console, and the device behind it: the one that speaks earliest.
        emulated_cpu: The processor without KVM.
        parameters: Kernel parameters that fit the machine.
        memory_slots: Whether memory can be plugged into slots while the machine runs.
        removable_cpus: Whether a processor can be unplugged while the machine runs.
        kvm_options: Further command line options under KVM.
    """

    machine: str
    architecture: str
    options: str
    bus: Callable[[], Bus]
    console: tuple[str, str]
    emulated_cpu: str
    parameters: tuple[str, ...]
    memory_slots: bool = True
    removable_cpus: bool = True
    kvm_options: tuple[str, ...] = ()


# No keyboard controller, hence reset by triple fault; trusted clock and timer instead of their calibration; no
# self-tests of ciphers, which take a quarter of an emulated boot. `rep stosb` is emulated byte by byte: a kernel
# that believes it to be slow (no erms) clears its pages by words. Memory slots make the kernel expect memory above
# 4 GiB and keep 64 MiB of bounce buffers for devices that do not reach it; ours all do: 4 MiB (2,048 slabs) is ample.
Q35 = Platform(
    machine="q35",
    architecture="x86_64",
    options="smm=off,vmport=off,smbus=off,sata=off,i8042=off",
    bus=PciBus,
    console=("ttyS0", "isa-serial"),
    emulated_cpu="max,erms=off",
    parameters=(
        "reboot=t", "tsc=reliable", "no_timer_check", "noreplace-smp", "rcupdate.rcu_expedited=1",
        "cryptomgr.notests", "swiotlb=2048",
    ),
    kvm_options=("-global", "kvm-pit.lost_tick_policy=discard"),
)  # fmt: skip

S390 = Platform(
    machine="s390-ccw-virtio",
    architecture="s390x",
    options="",
    bus=CcwBus,
    console=("ttysclp0", "sclpconsole"),
    emulated_cpu="max",
    parameters=("rcupdate.rcu_expedited=1", "cryptomgr.notests"),
    memory_slots=False,
    removable_cpus=False,
)


def platform(machine: str = "", host: str = "") -> Platform:
    """The platform of a machine type, versioned or not (`q35`, `pc-q35-7.2`, `s390-ccw-virtio`).

    Args:
        machine: The type, which QEMU is given as it stands; empty is the host's own.
        host: The host's architecture; empty asks it.

    Raises:
        HypervisorError: A type that we cannot drive.
    """
    host = host or os.uname().machine
    for known in (Q35, S390):
        if known.machine in machine if machine else known.architecture == host:
            return replace(known, machine=machine or known.machine)
    raise HypervisorError(
        "qemu",
        f"unknown machine type {machine!r}" if machine else f"no machine type for this host ({host})",
        hint="set machine_type to q35 or s390-ccw-virtio",
    )
