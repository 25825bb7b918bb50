"""What a spec says about security, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kata_py.config.hypervisor import ConfinementConfig
from kata_py.oci.spec import LinuxDeviceCgroup, Spec
from kata_py.sandbox.confinement import (
    REFUSALS,
    guest_devices,
    is_privileged,
    network_namespace,
    refuse_unsupported,
    selinux_label,
)
from kata_py.sandbox.errors import InvalidArgument

LIMITATIONS = Path(__file__).parents[3] / "docs" / "limitations.md"
ALL = [{"allow": False, "access": "rwm"}, {"allow": True, "access": "rwm"}]
DENIED = [{"allow": False, "access": "rwm"}]

ASKING: dict[str, dict[str, Any]] = {
    "appArmorProfile of type Localhost": {"process": {"apparmorProfile": "k8s-apparmor-example-deny-write"}},
    "annotation cdi.k8s.io/*": {"annotations": {"cdi.k8s.io/vfio17": "nvidia.com/gpu=0"}},
    "hooks.createContainer": {"hooks": {"createContainer": [{"path": "/usr/bin/nvidia-cdi-hook"}]}},
    "hooks.startContainer": {"hooks": {"startContainer": [{"path": "/usr/bin/hook"}]}},
    "linux.seccomp.listenerPath": {"linux": {"seccomp": {"defaultAction": "x", "listenerPath": "/run/n.sock"}}},
    "linux.intelRdt": {"linux": {"intelRdt": {"l3CacheSchema": "L3:0=f"}}},
    "linux.personality": {"linux": {"personality": {"domain": "LINUX32"}}},
    "linux.timeOffsets": {"linux": {"timeOffsets": {"monotonic": {"secs": 5}}}},
    "linux.netDevices": {"linux": {"netDevices": {"eth1": {}}}},
    "linux.memoryPolicy": {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}},
    "domainname": {"domainname": "example.org"},
    "process.ioPriority": {"process": {"ioPriority": {"class": "IOPRIO_CLASS_RT"}}},
    "process.scheduler": {"process": {"scheduler": {"policy": "SCHED_FIFO"}}},
    "process.execCPUAffinity": {"process": {"execCPUAffinity": {"initial": "0-1"}}},
}


def spec(**fields: Any) -> Spec:
    return cast(Spec, {"ociVersion": "1.1.0", **fields})


def devices(*nodes: tuple[str, str, int, int], rules: list[dict[str, Any]] = DENIED) -> list[str]:
    listed = [{"path": path, "type": kind, "major": major, "minor": minor} for path, kind, major, minor in nodes]
    return [each["path"] for each in guest_devices(spec(linux={"devices": listed, "resources": {"devices": rules}}))]


@pytest.mark.parametrize("refusal", REFUSALS, ids=[refusal.field for refusal in REFUSALS])
def test_what_cannot_work_is_refused_by_its_name(refusal: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        refuse_unsupported(spec(**ASKING[refusal.field]))
    assert str(caught.value) == str(refusal)
    assert str(caught.value).startswith(f"{refusal.field} is not supported: ")


def test_every_refusal_is_documented_word_by_word() -> None:
    text = LIMITATIONS.read_text()
    assert [str(refusal) for refusal in REFUSALS if f"`{refusal}`" not in text] == []


@pytest.mark.parametrize(
    "profile",
    ["", "unconfined", "cri-containerd.apparmor.d", "crio-default", "crio-default-1.32.0", "docker-default",
     "nerdctl-default", "containers-default-0.57.4"],
)  # fmt: skip
def test_the_managers_default_profiles_are_left_out(profile: str) -> None:
    refuse_unsupported(spec(process={"apparmorProfile": profile}))


def test_what_asks_for_nothing_is_not_refused() -> None:
    refuse_unsupported(
        spec(
            mounts=[{"destination": "/m", "options": ["rbind", "rslave"]}, {"destination": "/proc"}],
            hooks={"prestart": [{"path": "/bin/true"}], "createContainer": []},
            annotations={"io.kubernetes.cri.container-type": "sandbox"},
            linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}},
        )
    )


@pytest.mark.parametrize(
    ("rules", "privileged"),
    [
        ([], False),
        (DENIED, False),
        (ALL, True),
        ([{"allow": True, "type": "a", "access": "rwm"}], True),
        ([{"allow": True, "type": "a", "major": -1, "minor": -1, "access": "rwm"}], True),
        ([{"allow": True, "type": "c", "access": "rwm"}], False),
        ([{"allow": True, "access": "m"}], False),
        ([{"allow": True, "type": "a", "major": 8, "access": "rwm"}], False),
    ],
)
def test_a_container_that_may_use_all_devices_is_privileged(rules: list[LinuxDeviceCgroup], privileged: bool) -> None:
    assert is_privileged(rules) is privileged


def test_a_privileged_container_gets_the_guests_devices_and_none_of_the_hosts() -> None:
    assert devices(
        ("/dev/null", "c", 1, 3), ("/dev/sda", "b", 8, 0), ("/dev/dm-0", "b", 253, 0), ("/dev/mem", "c", 1, 1),
        ("/dev/net/tun", "c", 10, 200), ("/dev/vfio/12", "c", 240, 0), ("/dev/nvidia0", "c", 195, 0),
        ("/dev/fuse", "c", 10, 229), ("/dev/tty0", "c", 4, 0), ("/dev/vhost-vsock", "c", 10, 241), rules=ALL,
    ) == ["/dev/null", "/dev/net/tun", "/dev/fuse"]  # fmt: skip


def test_a_device_that_every_linux_has_is_given_to_whoever_asks() -> None:
    assert devices(("/dev/fuse", "c", 10, 229), ("/dev/console", "c", 5, 1)) == ["/dev/fuse", "/dev/console"]
    assert devices(("/run/fifo", "p", 0, 0)) == ["/run/fifo"]


def test_a_single_device_of_the_host_is_refused_by_its_path() -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.devices: /dev/sgx_enclave is a device of the host"):
        devices(("/dev/sgx_enclave", "c", 10, 125))


def test_a_disk_that_is_asked_for_stays_to_be_plugged_in() -> None:
    assert devices(("/dev/sda", "b", 8, 0)) == ["/dev/sda"]


def test_the_label_of_the_pod_is_the_machines_unless_it_is_turned_off() -> None:
    labelled = spec(process={"selinuxLabel": "system_u:system_r:container_kvm_t:s0:c12,c34"})
    assert selinux_label(labelled, ConfinementConfig()) == "system_u:system_r:container_kvm_t:s0:c12,c34"
    assert selinux_label(labelled, ConfinementConfig(disable_selinux=True)) == ""
    assert selinux_label(spec(), ConfinementConfig()) == ""


@pytest.mark.parametrize("label", ["container_t", "a:b:c:d e", "a:b:c\n", "a:b:$(x)"])
def test_what_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(InvalidArgument, match="selinuxLabel"):
        selinux_label(spec(process={"selinuxLabel": label}), ConfinementConfig())


def test_the_pods_network_namespace_is_the_one_that_has_a_path() -> None:
    named = {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/cni-1"}]}
    assert network_namespace(spec(linux=named)) == Path("/run/netns/cni-1")
    assert network_namespace(spec(linux={"namespaces": [{"type": "network"}]})) is None
