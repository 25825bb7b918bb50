from __future__ import annotations

import os
from dataclasses import replace

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.platform import Q35, S390, Platform, platform


@pytest.mark.parametrize(
    ("machine", "known"),
    [("q35", Q35), ("pc-q35-7.2", Q35), ("s390-ccw-virtio", S390), ("s390-ccw-virtio-7.2", S390)],
)
def test_a_machine_type_is_known_with_its_version_which_it_keeps(machine: str, known: Platform) -> None:
    assert platform(machine) == replace(known, machine=machine)


@pytest.mark.parametrize(("architecture", "known"), [("x86_64", Q35), ("s390x", S390)])
def test_an_empty_type_is_the_hosts_own(architecture: str, known: Platform) -> None:
    assert platform("", architecture) == known
    assert platform().architecture == os.uname().machine


def test_an_unknown_type_is_named_with_those_that_are_known() -> None:
    with pytest.raises(HypervisorError, match=r"unknown machine type 'pc'.*machine_type to q35 or s390-ccw-virtio"):
        platform("pc")


def test_a_host_of_another_architecture_is_named() -> None:
    with pytest.raises(HypervisorError, match=r"no machine type for this host \(riscv64\)"):
        platform("", "riscv64")
