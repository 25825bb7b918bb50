"""`kata-ctl explain` on real faults: the stage and the cause are named right.

What is expected is written down here, from what was broken, never from what explain says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from kata_py.cli.verbs import explain, gc, ps, timeline
from kata_py.sandbox import failure
from kata_py.sandbox.record import ROOT, Record
from kata_py.ttrpc.errors import StatusError, TtrpcError
from tests.faults import in_stage, on_record, processes, stopped
from tests.integration.conftest import ON_NAMESPACES
from tests.integration.test_bad_input import MACHINE, SMALL, booting, configured, refused, wrapped
from tests.manager import Manager
from tests.tasks import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

NAME = "explained"  # the sandbox
HIDDEN = (
    "unshare --mount --propagation slave sh -ec '! [ -e {device} ] || "
    '{{ mount --bind {device} {device}; mount -o remount,bind,nodev {device}; }}; exec "$@"\' sh'
)
VSOCK = ("/dev/vhost-vsock", 'agent_channel = "vsock"')
KVM = ("/dev/kvm", 'accelerator = "kvm"')
HUGE = ("enable_hugepages = true", f"default_memory = {1 << 20}")  # MiB: more than any host has set aside


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No failure of another test is explained, and none is left."""
    path = failure.ROOT / f"{NAME}.json"
    path.unlink(missing_ok=True)
    yield
    path.unlink(missing_ok=True)


async def _key(manager: Manager, tmp: Path, **values: object) -> None:
    await refused(configured(manager, tmp, **values), NAME)


async def _hypervisor(manager: Manager, tmp: Path, *new: str) -> None:
    keys = tuple(line.partition("=")[0] for line in new)
    lines = [line for line in manager.config.read_text().splitlines() if not line.startswith(keys)]
    at = lines.index("[hypervisor.qemu]") + 1
    await _config(manager, tmp, "\n".join([*lines[:at], *new, *lines[at:]]))


async def _without(manager: Manager, tmp: Path, device: str, line: str) -> None:
    """On a host that has the device, nobody can open it there: its place is on a file system without devices."""
    hidden = HIDDEN.format(device=device)
    await _hypervisor(wrapped(manager, tmp, hidden), tmp, line)


async def _guest(manager: Manager, tmp: Path, script: str) -> None:
    await refused(booting(manager, tmp, script), NAME)


async def _config(manager: Manager, tmp: Path, text: str | None) -> None:
    config = tmp / "configuration.toml"
    if text is not None:
        config.write_text(text)
    await refused(manager.using(config=config), NAME)


async def _full(manager: Manager, tmp: Path, place: str) -> None:
    await refused(wrapped(manager, tmp, SMALL.format(place=place, options="nr_inodes=1")), NAME)


async def _command(manager: Manager, tmp: Path) -> None:
    await refused(manager, NAME, "no-such-command")


async def _spec(manager: Manager, tmp: Path, change: Callable[[dict[str, object]], object]) -> None:
    def spoil(bundle: Path) -> None:
        spec = json.loads((bundle / "config.json").read_text())
        change(spec)
        (bundle / "config.json").write_text(json.dumps(spec))

    await refused(manager, NAME, spoil=spoil)


async def _garbled(manager: Manager, tmp: Path) -> None:
    await refused(manager, NAME, spoil=lambda bundle: (bundle / "config.json").write_bytes(b"{,"))


async def _garbled_initramfs(manager: Manager, tmp: Path) -> None:
    garbled = tmp / "initramfs.img"
    garbled.write_bytes(b"no archive" * 1000)
    await _key(manager, tmp, initramfs=str(garbled), dial_timeout=8)


async def _standstill(manager: Manager, tmp: Path) -> None:
    hurried = configured(manager, tmp, create_container_timeout=1)
    async with hurried.container(NAME, "true", create=False) as container:
        creating = asyncio.create_task(container.create())
        content = await on_record(container.id, in_stage("create"))
        driver = next(name for name in MACHINE.values() if name in processes(content))
        with stopped(processes(content)[driver]), pytest.raises(StatusError):
            await creating


async def _killed(manager: Manager, tmp: Path, victim: str) -> None:
    async with manager.container(NAME, "sleep", "1000") as container:
        await container.start()
        content = await on_record(NAME, lambda content: content["state"] == "running")
        os.kill(processes(content)[victim], signal.SIGKILL)
        with suppress(TtrpcError):
            await container.wait()


def _no_netns(spec: dict[str, object]) -> None:
    linux = spec["linux"]
    assert isinstance(linux, dict)
    spaces = [space for space in linux.get("namespaces", []) if space["type"] != "network"]
    linux["namespaces"] = [*spaces, {"type": "network", "path": "/run/netns/no-such"}]


def _bad_annotation(spec: dict[str, object]) -> None:
    spec["annotations"] = {"io.katacontainers.config.hypervisor.default_memroy": "1"}


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    inject: Callable[[Manager, Path], Awaitable[None]]
    stage: str
    cause: str


BOTH = [
    Fault("command missing", _command, "create", "command-missing"),
    Fault("spec garbled", _garbled, "plan", "spec-invalid"),
    Fault("configuration missing", lambda m, t: _config(m, t, None), "plan", "configuration-missing"),
    Fault("configuration no TOML", lambda m, t: _config(m, t, "[runtime\n"), "plan", "configuration-invalid"),
    Fault("unknown key", lambda m, t: _key(m, t, default_memroy=1), "plan", "configuration-invalid"),
    Fault("bad annotation", lambda m, t: _spec(m, t, _bad_annotation), "plan", "annotation-refused"),
    Fault("netns missing", lambda m, t: _spec(m, t, _no_netns), "network", "netns-missing"),
    Fault("share full", lambda m, t: _full(m, t, "/run/kata-containers/shared"), "share", "disk-full"),
    Fault("agent hung", _standstill, "create", "agent-hung"),
    Fault("agent killed", lambda m, t: _killed(m, t, "agent"), "running", "agent-lost"),
]
QEMU = [
    Fault("kernel missing", lambda m, t: _key(m, t, kernel="/no/file"), "qemu", "kernel-missing"),
    Fault("kernel no kernel", lambda m, t: _key(m, t, kernel="/bin/false"), "qemu", "kernel-unusable"),
    Fault("initramfs missing", lambda m, t: _key(m, t, initramfs="/no/file"), "qemu", "image-missing"),
    Fault("image missing", lambda m, t: _key(m, t, image="/no/file"), "qemu", "image-missing"),
    Fault("qemu missing", lambda m, t: _key(m, t, path="/no/file"), "qemu", "qemu-missing"),
    Fault("qemu no qemu", lambda m, t: _key(m, t, path="/bin/false"), "qemu", "qemu-exited"),
    Fault("virtiofsd missing", lambda m, t: _key(m, t, virtio_fs_daemon="/no/file"), "virtiofsd", "virtiofsd-missing"),
    Fault("virtiofsd other", lambda m, t: _key(m, t, virtio_fs_daemon="/bin/true"), "virtiofsd", "virtiofsd-unusable"),
    Fault("no vsock", lambda m, t: _without(m, t, *VSOCK), "qemu", "vhost-unavailable"),
    Fault("no KVM", lambda m, t: _without(m, t, *KVM), "qemu", "kvm-unavailable"),
    Fault("no huge pages", lambda m, t: _hypervisor(m, t, *HUGE), "qemu", "memory-unavailable"),
    Fault("initramfs garbled", _garbled_initramfs, "agent", "guest-panic"),
    Fault("guest panics", lambda m, t: _guest(m, t, "exit 3"), "agent", "guest-panic"),
    Fault("no agent", lambda m, t: _guest(m, t, "exec /bin/busybox sleep 1000"), "agent", "agent-silent"),
    Fault("qemu killed", lambda m, t: _killed(m, t, "qemu"), "running", "qemu-killed"),
    Fault("virtiofsd killed", lambda m, t: _killed(m, t, "virtiofsd"), "running", "virtiofsd-killed"),
]  # fmt: skip


FAULTS = [("namespace", fault) for fault in BOTH] + [("qemu", fault) for fault in QEMU]


@pytest.mark.parametrize(
    ("driver", "fault"), FAULTS, indirect=["driver"], ids=[fault.name.replace(" ", "-") for _, fault in FAULTS]
)
async def test_a_fault_is_explained(
    manager: Manager, tmp_path: Path, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    await fault.inject(manager, tmp_path)
    result = CliRunner().invoke(explain.command, [NAME, "-o", "json"], standalone_mode=False)
    assert result.exception is None
    assert result.return_value == 3
    verdict = json.loads(result.output)
    record_property("expected", f"{fault.stage} {fault.cause}")
    record_property("got", f"{verdict['stage']} {verdict['cause']}")
    assert (verdict["stage"], verdict["cause"]) == (fault.stage, fault.cause), result.output


@ON_NAMESPACES
async def test_a_running_pod_is_listed_with_its_memory_and_has_a_timeline(manager: Manager) -> None:
    async with manager.container(NAME, "sleep", "1000") as container:
        await container.start()
        listed = json.loads(CliRunner().invoke(ps.command, ["-o", "json"]).output)
        (mine,) = [each for each in listed if each["id"] == NAME]
        assert mine["state"] == "running"
        assert mine["memory"]["shim"] > 1 << 20
        stages = json.loads(CliRunner().invoke(timeline.command, [NAME[:5], "-o", "json"]).output)
        assert {"request", "agent", "create", "start"} <= {stage["name"] for stage in stages}
        assert f"sandbox {NAME} is running" in CliRunner().invoke(explain.command, [NAME]).output


@ON_NAMESPACES
async def test_what_a_killed_shim_left_is_shown_and_then_collected(manager: Manager) -> None:
    async with manager.container(NAME, "sleep", "1000") as container:
        await container.start()
        os.kill(container.shim_pid, signal.SIGKILL)
        aside = container.bundle.rename(container.bundle.with_name("aside"))  # else its manager would delete it
        try:
            await until(lambda: not Record.load(NAME).shim.alive)
            for words, told in ((["--dry-run"], "left"), ([], "gone")):
                found = json.loads(CliRunner().invoke(gc.command, [*words, "-o", "json"]).output)
                assert NAME in [each["id"] for each in found[told]]
            assert not (ROOT / NAME).exists()
        finally:
            aside.rename(container.bundle)
