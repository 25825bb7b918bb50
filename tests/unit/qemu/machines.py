"""Machines with a device of every kind, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.hypervisor import BlockConfig
from kata_py.hypervisor.api import Accelerator, Boot, Memory, Vcpus
from kata_qemu.bus import ScsiPlace
from kata_qemu.cmdline import Machine, kernel_parameters
from kata_qemu.devices.balloon import Balloon
from kata_qemu.devices.block import Disk, ScsiController, iothread
from kata_qemu.devices.entropy import RandomNumbers
from kata_qemu.devices.memory import Ram
from kata_qemu.devices.nic import Interface
from kata_qemu.devices.serial import AgentPort, ConsoleDevice
from kata_qemu.devices.share import Share
from kata_qemu.parts import Part
from kata_qemu.platform import Q35, Platform

MAC = "02:00:00:00:00:0a"
PORTS = ("agent.log.0", "agent.debug_console.0")


@dataclass(frozen=True)
class Inherited:
    """The descriptors that QEMU inherits."""

    monitor: int
    console: int
    agent: int


def machine(
    platform: Platform,
    directory: Path,
    inherited: Inherited,
    *,
    share: Path | None = None,
    nics: Sequence[tuple[int, ...]] = (),
    extras: bool = False,
    ports: Sequence[int] = (),
) -> Machine:
    """A machine whose files lie in the directory.

    With a share if its daemon's socket is given; with an interface for each group of tap descriptors, one of several
    queues with vhost-net. The extras are what a configuration has to ask for. The ports are of the agent's log and the
    debug console.
    """
    bus = platform.bus()
    parts: list[Part] = [
        *Ram(256, preallocated=extras).parts(),
        *ConsoleDevice(platform.console[1], inherited.console).parts(),
        *Disk("image", directory / "image", bus.place(), read_only=True).parts(),
        *AgentPort("agent.channel.0", inherited.agent, bus.place(), tuple(zip(PORTS, ports, strict=False))).parts(),
        *Disk("data", directory / "data, too", bus.place()).parts(),
    ]
    if extras:
        tuning = BlockConfig(block_device_aio="native", block_device_logical_sector_size=4096)
        parts += Disk("tuned", directory / "image", bus.place(), read_only=True, tuning=tuning).parts()
        parts += RandomNumbers(Path("/dev/urandom"), bus.place()).parts()
        parts += Balloon(bus.place()).parts()
        parts += [iothread("disk-thread-0"), iothread("scsi-thread")]
        parts += ScsiController(bus.place(), "scsi-thread").parts()
        parts += Disk("scsi", directory / "image", ScsiPlace(257), read_only=True, tuning=tuning).parts()
        parts += Disk("fast", directory / "image", bus.place(), read_only=True, iothread="disk-thread-0").parts()
    place, port = bus.port()
    parts += port
    if share:
        parts += Share("share0", "kataShared", share, place).parts()
    for number, taps in enumerate(nics):
        vhosts = tuple(tap + 10 for tap in taps) if len(taps) > 1 else ()
        parts += Interface(f"network-{number}", MAC, taps, vhosts, 1400, bus.place()).parts()
    parts += bus.for_later(1)[1]
    boot = Boot(directory / "kernel", directory / "initramfs", directory / "image", parameters=("mitigations=off",))
    cpus = Vcpus(1, 2, "pmu=off" if platform is Q35 else "")
    return Machine(
        binary=Path(f"/usr/bin/qemu-system-{platform.architecture}"),
        platform=platform,
        name="sandbox-pod1",
        uuid="b5f3f1a2-7a4e-4c3e-9f6b-0d8f3e1c2a55",
        accelerator=Accelerator.TCG,
        cpus=cpus,
        memory=Memory(256, 1024, 4) if platform is Q35 else Memory(256, 256, 0),
        boot=boot,
        append=kernel_parameters(platform, boot, cpus, "virtio-serial://agent.channel.0", debug=False),
        parts=tuple(parts),
        monitor=inherited.monitor,
        pid_file=directory / "pid",
    )
