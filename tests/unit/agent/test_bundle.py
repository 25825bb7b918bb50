from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kata_agent import linux
from kata_agent.container import bundle
from kata_agent.errors import InvalidArgument

if TYPE_CHECKING:
    from kata_py.oci.spec import Process, Spec

SHARED = {"ipc": "/run/sandbox-ns/ipc", "uts": "/run/sandbox-ns/uts"}


def _spec(**linux_section: object) -> Spec:
    return {  # type: ignore[return-value]
        "ociVersion": "1.0.2",
        "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "apparmorProfile": "host"},
        "root": {"path": "/share/ctr/rootfs"},
        "linux": linux_section,
    }


def _adapted(spec: Spec, *, pid_namespace: str | None = None, unified: bool = True) -> Spec:
    return bundle.adapted(spec, "ctr", shared=SHARED, pid_namespace=pid_namespace, unified=unified)


def test_namespaces_of_the_pod_are_joined_and_those_of_the_host_left_out() -> None:
    spec = _spec(namespaces=[{"type": kind} for kind in ("mount", "ipc", "uts", "network", "pid", "cgroup")])

    namespaces = _adapted(spec)["linux"]["namespaces"]

    assert namespaces == [
        {"type": "mount"},
        {"type": "ipc", "path": "/run/sandbox-ns/ipc"},
        {"type": "uts", "path": "/run/sandbox-ns/uts"},
        {"type": "pid"},
        {"type": "cgroup"},
    ]


def test_a_network_namespace_that_was_made_here_is_joined() -> None:
    podns = {"type": "network", "path": "/run/netns/podns"}
    adapted = _adapted(_spec(namespaces=[podns, {"type": "network"}], sysctl={"net.core.somaxconn": "1"}))

    assert [each for each in adapted["linux"]["namespaces"] if each["type"] == "network"] == [podns]


def test_a_shared_pid_namespace_is_joined() -> None:
    namespaces = _adapted(_spec(), pid_namespace="/proc/1/fd/9", unified=False)["linux"]["namespaces"]

    assert namespaces == [{"type": "pid", "path": "/proc/1/fd/9"}]


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/kubepods/pod1/ctr", "/kubepods/pod1/ctr"),
        ("kubepods.slice:crio:ctr", "/kubepods.slice/crio/ctr"),
        ("", "/ctr"),
        ("::", "/ctr"),
        ("/", "/ctr"),
    ],
)
def test_the_cgroups_path_becomes_one_of_cgroupfs(sent: str, path: str) -> None:
    assert _adapted(_spec(cgroupsPath=sent))["linux"]["cgroupsPath"] == path


def test_settings_of_the_network_are_made_in_the_guests_and_unknown_ones_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapted = _adapted(_spec(sysctl={"net.ipv4.ip_forward": "1", "net.no_such": "1"}))

    assert adapted["linux"]["sysctl"] == {"net.ipv4.ip_forward": "1"}
    assert {"type": "network", "path": f"/proc/{os.getpid()}/ns/net"} in adapted["linux"]["namespaces"]
    assert "net.no_such" in caplog.text


@pytest.mark.parametrize("name", ["kernel.shmmax", "kernel.domainname", "fs.mqueue.msg_max", "net.core.somaxconn"])
def test_settings_of_the_pods_namespaces_are_made(name: str) -> None:
    assert _adapted(_spec(sysctl={name: "1"}))["linux"]["sysctl"] == {name: "1"}


@pytest.mark.parametrize("name", ["vm.swappiness", "kernel.hostname", "kernel.msgmnx", "fs.file-max", "network.x"])
def test_a_setting_of_the_whole_guest_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"sysctl {name} is not namespaced"):
        _adapted(_spec(sysctl={name: "1"}))


def test_limits_of_the_network_are_dropped_and_others_stay() -> None:
    spec = _spec(resources={"network": {"classID": 1}, "memory": {"limit": 1 << 20}})

    assert _adapted(spec)["linux"]["resources"] == {"memory": {"limit": 1 << 20}}


def test_hooks_and_profiles_of_the_host_are_left_out() -> None:
    spec = _spec()
    spec["hooks"] = {"prestart": [{"path": "/host/hook"}]}

    adapted = _adapted(spec)

    assert "hooks" not in adapted
    assert "apparmorProfile" not in adapted["process"]


def test_the_hosts_document_is_not_changed() -> None:
    spec = _spec(resources={"network": {}}, namespaces=[{"type": "pid"}])
    before = repr(spec)

    _adapted(spec)

    assert repr(spec) == before


@pytest.mark.parametrize("key", ["process", "root"])
def test_a_spec_without_process_or_root_is_refused(key: str) -> None:
    spec = _spec()
    del spec[key]  # type: ignore[misc]

    with pytest.raises(InvalidArgument, match=f"has no {key}"):
        _adapted(spec)


@pytest.fixture
def limits() -> Process:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "args": ["true"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "oomScoreAdj": -998,
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "hard": hard + 1, "soft": hard + 1},
            {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            {"type": "RLIMIT_UNHEARD_OF", "hard": 1, "soft": 1},
        ],
    }


def test_what_cannot_be_granted_is_lowered_with_a_warning(
    limits: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linux, "missing_capabilities", lambda: frozenset({"CAP_SYS_RESOURCE"}))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    granted = bundle.process(limits)

    assert "oomScoreAdj" not in granted
    assert granted["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": hard, "soft": hard}, *limits["rlimits"][1:]]
    assert "oomScoreAdj" in caplog.text
    assert "RLIMIT_NOFILE" in caplog.text


def test_an_agent_with_all_capabilities_grants_everything(limits: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "missing_capabilities", frozenset)

    assert bundle.process(limits) == limits


def test_a_capability_that_the_agent_lacks_is_left_out_of_every_set_with_a_warning(
    limits: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linux, "missing_capabilities", lambda: frozenset({"CAP_SYS_TIME", "CAP_BPF"}))
    wanted = ["CAP_CHOWN", "CAP_SYS_TIME"]
    limits["capabilities"] = {"bounding": wanted, "effective": wanted, "permitted": wanted, "ambient": []}

    granted = bundle.process(limits)

    left = ["CAP_CHOWN"]
    assert granted["capabilities"] == {"bounding": left, "effective": left, "permitted": left, "ambient": []}
    assert granted["rlimits"] == limits["rlimits"]
    assert "CAP_SYS_TIME" in caplog.text
    assert "CAP_BPF" not in caplog.text


@pytest.mark.root
def test_the_capabilities_that_a_process_lacks_are_those_outside_its_effective_set() -> None:
    command = [
        "setpriv", "--bounding-set", "-sys_time,-checkpoint_restore", sys.executable, "-c",
        "from kata_agent import linux; print(*sorted(linux.missing_capabilities()))",
    ]  # fmt: skip
    here = linux.missing_capabilities()

    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    assert set(told) == here | {"CAP_SYS_TIME", "CAP_CHECKPOINT_RESTORE"}


@pytest.mark.parametrize("version", ["1.0.2", "1.2.0"])
def test_crun_is_given_a_version_that_it_knows_whichever_the_manager_wrote_for(version: str) -> None:
    spec = _spec()
    spec["ociVersion"] = version

    assert _adapted(spec)["ociVersion"] == "1.0.2"
