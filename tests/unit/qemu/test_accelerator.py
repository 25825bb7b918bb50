from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.hypervisor.api import Accelerator, HypervisorError
from kata_qemu.accelerator import choose


class Host:
    """A host's /dev, /proc and /sys, with a KVM that can run anything."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for directory in ("dev", "proc", "sys/module/kvm_intel"):
            (root / directory).mkdir(parents=True)
        (root / "dev/kvm").touch()
        (root / "proc/cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n")

    def choose(self, wanted: Accelerator, architecture: str = "x86_64") -> tuple[Accelerator, str]:
        return choose(wanted, architecture, host="x86_64", root=self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_kvm_is_taken_where_it_can_be_had(host: Host) -> None:
    assert host.choose(Accelerator.AUTO) == (Accelerator.KVM, "")
    assert host.choose(Accelerator.KVM) == (Accelerator.KVM, "")


def test_emulation_is_taken_without_a_word_when_asked_for(host: Host) -> None:
    assert host.choose(Accelerator.TCG) == (Accelerator.TCG, "")


def test_a_host_without_kvm_falls_back_and_says_why(host: Host) -> None:
    (host.root / "dev/kvm").unlink()
    assert host.choose(Accelerator.AUTO) == (
        Accelerator.TCG,
        f"{host.root}/dev/kvm cannot be opened: No such file or directory",
    )


def test_a_device_that_does_not_open_falls_back(host: Host) -> None:
    (host.root / "dev/kvm").unlink()
    (host.root / "dev/kvm").mkdir()
    assert "cannot be opened: Is a directory" in host.choose(Accelerator.AUTO)[1]


def test_a_paravirtual_kvm_is_recognised(host: Host) -> None:
    (host.root / "sys/module/kvm_intel").rmdir()
    accelerator, why = host.choose(Accelerator.AUTO)
    assert accelerator is Accelerator.TCG
    assert "paravirtual" in why
    (host.root / "sys/module/kvm_amd").mkdir()
    assert host.choose(Accelerator.AUTO) == (Accelerator.KVM, "")


def test_on_bare_metal_the_modules_may_be_missing(host: Host) -> None:
    (host.root / "sys/module/kvm_intel").rmdir()
    (host.root / "proc/cpuinfo").write_text("flags\t\t: fpu vme\n")
    assert host.choose(Accelerator.AUTO) == (Accelerator.KVM, "")


def test_a_guest_of_another_architecture_is_emulated(host: Host) -> None:
    assert host.choose(Accelerator.AUTO, "s390x") == (
        Accelerator.TCG,
        "the guest is s390x, the host x86_64",
    )


def test_kvm_asked_for_and_not_to_be_had_is_an_error_with_a_way_out(host: Host) -> None:
    (host.root / "dev/kvm").unlink()
    with pytest.raises(HypervisorError, match=r'KVM cannot be used: .*set accelerator to "auto" or "tcg"'):
        host.choose(Accelerator.KVM)
