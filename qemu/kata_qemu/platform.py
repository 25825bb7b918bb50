"""What differs between the machine types: frozen values, no code."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.bus import Bus, CcwBus, PciBus


@dataclass(frozen=True, slots=True)
class Platform:
    """A machine type.

    Attributes:
        machine: Its name, without a version.
        architecture: What `uname -m` says in its guests.
        options: What `-machine` is told besides: devices that no guest of ours needs are left out.
        bus: Makes the bus of a new machine.
        spare_ports: How many devices can be plugged in later; each of q35's takes 20 ms of an emulated boot.
        console: The kernel's name of the console, and the device behind it: the one that speaks earliest.
        parameters: Kernel parameters that fit the machine.
        kvm_options: Further command line options under KVM.
    """

    machine: str
    architecture: str
    options: str
    bus: Callable[[], Bus]
    spare_ports: int
    console: tuple[str, str]
    parameters: tuple[str, ...] = ()
    kvm_options: tuple[str, ...] = ()


# No keyboard controller, hence reset by triple fault; trusted clock and timer instead of their calibration; no
# self-tests of ciphers, which take a quarter of an emulated boot.
Q35 = Platform(
    "q35", "x86_64", "smm=off,vmport=off,smbus=off,sata=off,i8042=off", PciBus, 2, ("ttyS0", "isa-serial"),
    ("reboot=t", "tsc=reliable", "no_timer_check", "noreplace-smp", "rcupdate.rcu_expedited=1", "cryptomgr.notests"),
    ("-global", "kvm-pit.lost_tick_policy=discard"),
)  # fmt: skip

S390 = Platform(
    "s390-ccw-virtio", "s390x", "", CcwBus, 32, ("ttysclp0", "sclpconsole"),
    ("rcupdate.rcu_expedited=1", "cryptomgr.notests"),
)  # fmt: skip


def platform(machine: str = "", architecture: str | None = None) -> Platform:
    """The platform of a machine type, versioned or not (`q35`, `pc-q35-7.2`, `s390-ccw-virtio`).

    Args:
        machine: The type; empty is the host's own.
        architecture: The host's; None asks it.

    Raises:
        HypervisorError: A type that we cannot drive.
    """
    for known in (Q35, S390):
        if known.machine in machine if machine else known.architecture == (architecture or os.uname().machine):
            return known
    raise HypervisorError(
        "qemu",
        f"unknown machine type {machine!r}" if machine else f"no machine type for this host ({os.uname().machine})",
        hint="set machine_type to q35 or s390-ccw-virtio",
    )
