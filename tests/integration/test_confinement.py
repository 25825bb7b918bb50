"""How little a pod's machine may do on the host, and what a pod's spec may not ask for, with a real guest."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kata_py.resource import process
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle
from tests.integration.conftest import ON_QEMU
from tests.manager import Container, Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

_DROP_IN = """
[hypervisor.qemu]
rootless = true
[runtime]
disable_guest_seccomp = false
"""


@pytest.fixture(scope="module")
def confining(config: Path, launcher: Path, rootfs: Path, short_tmp: Path) -> Manager:
    """A manager whose machines are rootless, and hand seccomp profiles on."""
    place = short_tmp / "confining"
    (place / "config.d").mkdir(parents=True)
    (place / "configuration.toml").write_text(config.read_text())
    (place / "config.d" / "10.toml").write_text(_DROP_IN)
    return Manager(launcher, place, place / "configuration.toml", rootfs)


@asynccontextmanager
async def changed(manager: Manager, id: str, script: str, **changes: Any) -> AsyncIterator[Container]:
    """A container whose spec is changed in some keys; those of `linux` are laid over."""
    spec = bundle.spec(id, manager.rootfs, bundle.process(["sh", "-c", script]))
    spec["linux"] = {**spec["linux"], **changes.pop("linux", {})}
    async with manager.container(id, spec={**spec, **changes}) as container:
        yield container


def status(pid: int) -> Mapping[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


@ON_QEMU
async def test_a_container_runs_in_a_rootless_machine_and_all_of_it_is_removed(confining: Manager) -> None:
    async with changed(confining, "rootless", "echo hello; touch /made; sleep 1000") as container:
        pid = await container.start()
        await container.io.until(b"hello\n")
        seen = status(pid)
        assert int(seen["Uid"][0]) > 1_000_000_000
        assert (set(seen["Uid"]), seen["Groups"]) == (set(seen["Gid"]), [])
        assert (seen["CapBnd"], seen["NoNewPrivs"], seen["Seccomp"]) == ([f"{0:016x}"], ["1"], ["2"])
        assert Path("/run/vc/vm/rootless").stat().st_mode & 0o007 == 0
        assert await container.run("sh", "-c", "echo more") == (0, b"more\n")
        (confining.rootfs / "made").unlink()  # by virtiofsd, for the guest's root
    assert not Path("/run/vc/vm/rootless").exists()


@ON_QEMU
async def test_a_rootless_machine_whose_shim_is_killed_is_removed_by_its_record(confining: Manager) -> None:
    async with changed(confining, "orphan", "sleep 1000") as container:
        pid = await container.start()
        shim = container.shim_pid
        process.kill(shim, process.start_time(shim) or 0, signal.SIGKILL, name="shim")
        confining.delete("orphan", container.bundle)
        assert process.start_time(pid) is None
        assert not Path("/run/vc/vm/orphan").exists()


@ON_QEMU
async def test_a_seccomp_profile_is_applied_in_the_guest_where_the_configuration_wants_it(confining: Manager) -> None:
    denied = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}
    async with changed(confining, "filtered", "mkdir /tmp/x || echo refused", linux={"seccomp": profile}) as container:
        await container.start()
        assert await container.io.ended() == b"refused\n"


@ON_QEMU
async def test_a_privileged_container_is_so_in_its_machine_and_sees_no_device_of_the_host(manager: Manager) -> None:
    nodes = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
        {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
        {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1},
    ]
    linux = {"devices": nodes, "resources": {"devices": [{"allow": True, "access": "rwm"}]}}
    async with changed(manager, "privileged", "cd /dev; ls fuse sda mem 2>/dev/null; echo", linux=linux) as container:
        await container.start()
        assert (await container.io.ended()).split() == [b"fuse"]


async def test_hooks_run_on_the_host_and_a_failing_one_fails_the_creation(manager: Manager, tmp_path: Path) -> None:
    told = tmp_path / "told"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{told}"]}
    async with changed(manager, "hooked", "true", hooks={"createRuntime": [hook]}) as container:
        pid = await container.start()
        assert json.loads(told.read_text())["pid"] == pid
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo no such device >&2; exit 3"]}
    with pytest.raises(StatusError, match="hook createRuntime /bin/sh exited with status 3: no such device"):
        async with changed(manager, "unhooked", "true", hooks={"createRuntime": [failing]}):
            raise AssertionError("created")


async def test_what_a_machine_cannot_do_is_refused_by_its_name(manager: Manager) -> None:
    profiled = {**bundle.process(["true"]), "apparmorProfile": "my-profile"}
    with pytest.raises(StatusError, match="appArmorProfile of type Localhost is not supported") as caught:
        async with changed(manager, "armoured", "", process=profiled):
            raise AssertionError("created")
    assert caught.value.code == Code.INVALID_ARGUMENT


@ON_QEMU
async def test_a_guest_has_an_iommu_and_ports_where_the_configuration_wants_them(
    config: Path, launcher: Path, rootfs: Path, short_tmp: Path
) -> None:
    place = short_tmp / "ported"
    (place / "config.d").mkdir(parents=True)
    (place / "configuration.toml").write_text(config.read_text())
    keys = 'hot_plug_vfio = "switch-port"\npcie_switch_port = 2\nenable_iommu = true\n'
    (place / "config.d" / "10.toml").write_text(f"[hypervisor.qemu]\n{keys}")
    ours = Manager(launcher, place, place / "configuration.toml", rootfs)
    look = "cat /sys/bus/pci/devices/*/device; ls /sys/class/iommu; cat /proc/cmdline"
    async with changed(ours, "ported", look) as container:
        await container.start()
        seen = (await container.io.ended()).decode()
    assert seen.count("0x8233") == 2  # TI XIO3130, downstream
    assert "dmar0" in seen
    assert "intel_iommu=on iommu=pt" in seen


@ON_QEMU
async def test_a_vfio_device_is_refused_on_a_host_without_iommu_with_the_fix(
    config: Path, launcher: Path, rootfs: Path, short_tmp: Path
) -> None:
    place = short_tmp / "deviceless"
    (place / "config.d").mkdir(parents=True)
    (place / "configuration.toml").write_text(config.read_text())
    (place / "config.d" / "10.toml").write_text('[hypervisor.qemu]\nhot_plug_vfio = "root-port"\n')
    ours = Manager(launcher, place, place / "configuration.toml", rootfs)
    device = {"path": "/dev/vfio/12", "type": "c", "major": 240, "minor": 0}
    with pytest.raises(StatusError, match=r"/dev/vfio/12 cannot be given to a machine: .*intel_iommu=on"):
        async with changed(ours, "deviceless", "true", linux={"devices": [device]}):
            raise AssertionError("created")
