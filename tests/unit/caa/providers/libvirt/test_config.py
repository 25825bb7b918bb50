"""The settings of the libvirt provider."""

from __future__ import annotations

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt.config import LibvirtConfig, refuse_nonsense
from kata_caa.settings import load, settings_of

UPSTREAM = {
    ("uri", "LIBVIRT_URI"): "qemu+ssh://root@192.168.122.1/system?no_verify=1",
    ("pool-name", "LIBVIRT_POOL"): "default",
    ("network-name", "LIBVIRT_NET"): "default",
    ("vol-name", "LIBVIRT_VOL_NAME"): "podvm-base.qcow2",
    ("launch-security", "LIBVIRT_LAUNCH_SECURITY"): "",
    ("firmware", "LIBVIRT_EFI_FIRMWARE"): "/usr/share/OVMF/OVMF_CODE_4M.fd",
    ("cpu", "LIBVIRT_CPU"): 2,
    ("memory", "LIBVIRT_MEMORY"): 8192,
    ("cpuset", "LIBVIRT_CPUSET"): "",
    ("root-disk-size", "LIBVIRT_ROOT_DISK_SIZE"): 10,
    ("data-dir", ""): "/var/lib/libvirt/images",
    ("disable-cvm", "DISABLECVM"): True,
}


def test_every_flag_and_variable_of_upstreams_is_there_with_its_default():
    ours = {(how.flag, how.environment): field.default for field, how in settings_of(LibvirtConfig)}
    assert UPSTREAM.items() <= ours.items()


def test_every_setting_says_what_it_means_and_is_unlike_any_other():
    settings = [how for _, how in settings_of(LibvirtConfig)]
    assert all(how.meaning for how in settings)
    assert len({how.flag for how in settings}) == len(settings)


def test_the_defaults_are_sound():
    refuse_nonsense(load(LibvirtConfig, {}, {}))


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("domain-type", "xen", "LIBVIRT_DOMAIN_TYPE"),
        ("architecture", "vax", "LIBVIRT_ARCH"),
        ("launch-security", "sev", "LIBVIRT_LAUNCH_SECURITY"),
        ("cpuset", "1-", "LIBVIRT_CPUSET"),
        ("cpuset", "all", "LIBVIRT_CPUSET"),
        ("disk-bus", "ide", "LIBVIRT_DISK_BUS"),
        ("initrd", "initrd.img", "LIBVIRT_INITRD"),
        ("cpu", "0", "LIBVIRT_CPU"),
    ],
)
def test_what_cannot_be_is_refused_by_name(flag, value, named):
    with pytest.raises(ProviderError, match=named) as error:
        refuse_nonsense(load(LibvirtConfig, {flag: [value]}, {}))
    assert error.value.fault is Fault.FATAL


@pytest.mark.parametrize("cpuset", ["0", "0-3", "0-3,^2,7"])
def test_processors_are_a_list_of_numbers_and_ranges(cpuset):
    refuse_nonsense(load(LibvirtConfig, {}, {"LIBVIRT_CPUSET": cpuset}))


def test_machines_are_confidential_when_asked_for_by_either_setting():
    assert not load(LibvirtConfig, {}, {}).confidential
    assert load(LibvirtConfig, {}, {"DISABLECVM": "false"}).confidential
    assert load(LibvirtConfig, {}, {"LIBVIRT_LAUNCH_SECURITY": "s390-pv"}).confidential
