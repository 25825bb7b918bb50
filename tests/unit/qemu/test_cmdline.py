from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kata_py.hypervisor.api import Accelerator, Boot, Memory, Vcpus
from kata_qemu.cmdline import Machine, kernel_parameters
from kata_qemu.platform import Q35, S390, Platform
from kata_qemu.sockets import connected, listening
from tests.unit.qemu.machines import Inherited, machine

GOLDEN = Path(__file__).parent / "golden"
PLATFORMS = pytest.mark.parametrize("platform", [Q35, S390], ids=lambda platform: platform.machine)

example = machine(Q35, Path("/vm"), Inherited(3, 4, 5))


def told(line: Machine) -> str:
    """The command line as the golden files have it."""
    text = "".join(f"\n{word}" if word.startswith("-") else f" {word}" for word in line.argv())
    return text.strip() + "\n"


def value_of(line: Machine, option: str) -> str:
    argv = line.argv()
    return argv[argv.index(option) + 1]


@PLATFORMS
def test_the_command_line_is_the_one_that_was_agreed(platform: Platform) -> None:
    line = machine(platform, Path("/vm"), Inherited(3, 4, 5), share=Path("/vm/vhost-fs.sock"), nics=[(6,), (7, 8)])
    assert told(line) == (GOLDEN / f"{platform.machine}.txt").read_text()


@PLATFORMS
def test_a_guest_that_is_debugged_has_ports_for_its_agents_log_and_a_shell(platform: Platform) -> None:
    line = machine(platform, Path("/vm"), Inherited(3, 4, 5), ports=(20, 21))
    assert told(line) == (GOLDEN / f"{platform.machine}-debugged.txt").read_text()


@PLATFORMS
def test_qemu_itself_takes_the_command_line(platform: Platform, short_tmp: Path) -> None:
    for name in ("image", "data, too", "kernel", "initramfs"):
        (short_tmp / name).write_bytes(bytes(1 << 16))
    with ExitStack() as stack:
        bound = [stack.enter_context(listening(short_tmp / f"{platform.machine}-{n}")) for n in range(3)]
        monitor = stack.enter_context(connected(short_tmp / f"{platform.machine}-0"))
        numbers = [sock.fileno() for sock in bound]
        argv = machine(platform, short_tmp, Inherited(*numbers), extras=True).argv()
        argv[argv.index("-initrd") : argv.index("-append")] = []  # a kernel of zeros has no place to note an initrd
        with subprocess.Popen([*argv, "-S"], pass_fds=numbers, stderr=subprocess.PIPE) as qemu:
            for sock in bound:
                sock.close()
            monitor.settimeout(20)
            lines = monitor.makefile("rw")
            assert "QMP" in json.loads(lines.readline() or "{}"), qemu.stderr.read() if qemu.stderr else b""
            for command in ("qmp_capabilities", "quit"):
                lines.write(json.dumps({"execute": command}) + "\n")
                lines.flush()
            assert qemu.wait(20) == 0


@pytest.mark.parametrize(
    ("form", "mode"), [("hmp", "readline"), ("qmp", "control"), ("qmp-pretty", "control,pretty=on")]
)
def test_people_get_a_monitor_of_their_own_in_the_form_they_ask_for(form: str, mode: str) -> None:
    argv = replace(example, extra_monitor=(9, form)).argv()
    assert "socket,id=extra-monitor,fd=9,server=on,wait=off" in argv
    assert f"chardev=extra-monitor,mode={mode}" in argv
    assert "extra-monitor" not in " ".join(example.argv())


def test_kvm_runs_the_hosts_own_processor() -> None:
    line = replace(example, accelerator=Accelerator.KVM)
    assert value_of(line, "-cpu") == "host,pmu=off"
    assert value_of(line, "-machine").startswith("q35,accel=kvm,")
    assert "kvm-pit.lost_tick_policy=discard" in line.argv()
    assert "kvm-pit.lost_tick_policy=discard" not in example.argv()


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (Memory(512, 2048, 10), "512M,slots=10,maxmem=2048M"),
        (Memory(512, 2048, 0), "512M"),
        (Memory(512, 512, 10), "512M"),
    ],
)
def test_memory_can_grow_only_with_slots_and_room(memory: Memory, text: str) -> None:
    assert value_of(replace(example, memory=memory), "-m") == text


def test_the_users_machine_options_come_last() -> None:
    assert value_of(replace(example, machine_options="kernel_irqchip=split"), "-machine").endswith(
        ",i8042=off,kernel_irqchip=split"
    )


def test_qemu_is_sandboxed_when_that_is_asked_for() -> None:
    assert value_of(replace(example, seccomp="on,spawn=deny"), "-sandbox") == "on,spawn=deny"
    assert "-sandbox" not in example.argv()


def test_what_runs_before_the_kernel_can_be_another_firmware() -> None:
    assert value_of(replace(example, firmware=Path("/usr/share/OVMF.fd")), "-bios") == "/usr/share/OVMF.fd"
    assert "-bios" not in example.argv()


def test_a_kernel_without_initramfs_gets_none() -> None:
    assert "-initrd" not in replace(example, boot=Boot(Path("/kernel"))).argv()


def test_the_users_kernel_parameters_come_last_and_so_win() -> None:
    boot = Boot(Path("/kernel"), parameters=("panic=5",))
    assert kernel_parameters(Q35, boot, Vcpus(), "vsock://-1:1024", debug=False)[-2:] == (
        "agent.server_addr=vsock://-1:1024",
        "panic=5",
    )


def test_a_guest_that_is_debugged_talks() -> None:
    talking = kernel_parameters(Q35, Boot(Path("/kernel")), Vcpus(), "x", debug=True)
    assert "debug" in talking
    assert not {"quiet", "agent.log=debug"} & set(talking)  # how much the agent says is the agent's setting


def test_a_guest_without_image_is_told_of_no_root() -> None:
    assert not [
        word for word in kernel_parameters(S390, Boot(Path("/k")), Vcpus(), "x", debug=False) if word.startswith("root")
    ]
