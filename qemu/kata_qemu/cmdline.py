"""QEMU's command line and the guest kernel's, rendered from frozen values. Nothing is looked up here.

Source: kata `govmm/qemu/qemu.go` (LaunchQemu), whose names of options and sandboxes are kept where users see
them; QEMU `qemu-options.hx`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_py.hypervisor.api import Accelerator, Boot, Memory, Vcpus
from kata_qemu.devices.memory import RAM
from kata_qemu.parts import Part
from kata_qemu.platform import Platform


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, down to its last part.

    Attributes:
        binary: QEMU.
        platform: What the machine type brings.
        name: What people see in `ps`: `sandbox-<id>`.
        uuid: Its own, random.
        accelerator: KVM or TCG.
        cpus: Virtual processors.
        memory: Its memory.
        boot: What it boots.
        append: The kernel's parameters.
        parts: Everything else, in order.
        monitor: A listening socket for QMP, inherited.
        extra_monitor: A listening socket for people's own monitor, inherited, and the form of it: `hmp`, `qmp` or
            `qmp-pretty`.
        pid_file: Where QEMU writes its pid.
        machine_options: Added to `-machine`.
        seccomp: Value of `-sandbox`; empty is none.
        firmware: What runs before the kernel; None is the machine type's own.
    """

    binary: Path
    platform: Platform
    name: str
    uuid: str
    accelerator: Accelerator
    cpus: Vcpus
    memory: Memory
    boot: Boot
    append: tuple[str, ...]
    parts: tuple[Part, ...]
    monitor: int
    pid_file: Path
    extra_monitor: tuple[int, str] | None = None
    machine_options: str = ""
    seccomp: str = ""
    firmware: Path | None = None

    def argv(self) -> list[str]:
        """The command line."""
        kvm = self.accelerator is Accelerator.KVM
        cpus = self.cpus
        line = [
            str(self.binary),
            "-name", f"{self.name},debug-threads=on",
            "-uuid", self.uuid,
            "-no-user-config", "-nodefaults", "-display", "none", "-vga", "none", "-no-reboot",
            "-machine", _join(self.platform.machine, f"accel={self.accelerator.value}", f"memory-backend={RAM}",
                              self.platform.options, self.machine_options),
            "-cpu", _join("host" if kvm else self.platform.emulated_cpu, cpus.features),
            "-smp", f"{cpus.count},cores=1,threads=1,sockets={cpus.maximum},maxcpus={cpus.maximum}",
            "-m", self._memory(),
            "-rtc", "base=utc,driftfix=slew,clock=host",
            *(self.platform.kvm_options if kvm else ()),
            "-chardev", f"socket,id=monitor,fd={self.monitor},server=on,wait=off",
            "-mon", "chardev=monitor,mode=control",
            *self._extra_monitor(),
            "-pidfile", str(self.pid_file),
        ]  # fmt: skip
        for part in self.parts:
            line += part.option()
        line += ["-kernel", str(self.boot.kernel)]
        if self.boot.initramfs:
            line += ["-initrd", str(self.boot.initramfs)]
        line += ["-append", " ".join(self.append)]
        if self.firmware:
            line += ["-bios", str(self.firmware)]
        if self.seccomp:
            line += ["-sandbox", self.seccomp]
        return line

    def _extra_monitor(self) -> tuple[str, ...]:
        if self.extra_monitor is None:
            return ()
        fd, form = self.extra_monitor
        mode = {"hmp": "mode=readline", "qmp": "mode=control", "qmp-pretty": "mode=control,pretty=on"}[form]
        chardev = f"socket,id=extra-monitor,fd={fd},server=on,wait=off"
        return "-chardev", chardev, "-mon", f"chardev=extra-monitor,{mode}"

    def _memory(self) -> str:
        memory = self.memory
        if not (memory.slots or memory.virtio_mem) or memory.maximum <= memory.size:
            return f"{memory.size}M"
        return f"{memory.size}M,slots={memory.slots},maxmem={memory.maximum}M"


def kernel_parameters(platform: Platform, boot: Boot, cpus: Vcpus, agent: str, *, debug: bool) -> tuple[str, ...]:
    """The guest kernel's parameters; what the user asks for comes last and so wins.

    Args:
        platform: The machine type.
        boot: What is booted, with the user's parameters.
        cpus: Virtual processors.
        agent: The address that the agent is to listen on.
        debug: Whether the kernel talks much.
    """
    image = ("root=/dev/vda", f"rootfstype={boot.image_fstype}", "ro") if boot.image else ()
    return (
        *platform.parameters,
        f"console={platform.console[0]}",
        "panic=1",
        f"nr_cpus={cpus.maximum}",
        "net.ifnames=0",
        "debug" if debug else "quiet",
        *image,
        f"agent.server_addr={agent}",
        *boot.parameters,
    )


def _join(*options: str) -> str:
    return ",".join(filter(None, options))
