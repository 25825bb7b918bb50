"""`kata-ctl explain` on real faults: the stage and the cause are named right.

What is expected is written down here, from what was broken, never from what explain says.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner

from kata_py.cli.verbs import explain, gc, ps, timeline
from kata_py.sandbox import failure
from kata_py.sandbox.record import ROOT, Record
from tests.integration import injections as at
from tests.integration.conftest import ON_NAMESPACES
from tests.integration.injections import NAME
from tests.integration.test_management import rego
from tests.manager import Manager
from tests.tasks import until

LONG = f"/run/{'s' * 102}"  # of a socket
BOUNDED = {"hooks", "agent", "policy", "create", "start"}  # stages that have so much time
SLACK = 3.0  # seconds that a failure may take to be noticed after that
SILENT = "exec /bin/busybox sleep 1000"  # what a guest does that has no agent
MUCH = "99999999"  # MiB, more than any machine can have
TAKEN = ("ip tuntap add tap0_kata mode tap",)  # the first name that a shim gives
FILTERED = ("tc qdisc add dev eth0 ingress",)
TUNNEL = ("ip tuntap add tunnel0 mode tun", "ip addr add 10.1.0.2/24 dev tunnel0")

VSOCK = partial(at.without, device="/dev/vhost-vsock", line='agent_channel = "vsock"')
KVM = partial(at.without, device="/dev/kvm", line='accelerator = "kvm"')
HUGE = ("enable_hugepages = true", f"default_memory = {1 << 20}")  # MiB: more than any host has set aside

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No failure of another test is explained, and none is left."""
    path = failure.ROOT / f"{NAME}.json"
    path.unlink(missing_ok=True)
    yield
    path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    inject: Callable[[Manager, Path], Awaitable[None]]
    stage: str
    cause: str


SHIM = [
    Fault("bundle garbled", partial(at.not_started, spoil=at.garble), "shim", "spec-invalid"),
    Fault("no room for the socket", at.no_room_for_socket, "shim", "disk-full"),
    Fault("socket path too long", partial(at.not_started, flags=("-socket", LONG)), "shim", "socket-path-too-long"),
    Fault("no CAP_SYS_ADMIN", at.no_capability, "shim", "permission-denied"),
    Fault("shim gone", at.shim_gone, "shim", "shim-gone"),
    Fault("shim killed in create", partial(at.killed_in, victim="shim", stage="create"), "create", "shim-killed"),
    Fault("shim killed", at.shim_killed, "running", "shim-killed"),
    Fault("shim hung", at.shim_hung, "running", "shim-hung"),
]  # fmt: skip
ABOVE = [
    Fault("spec garbled", at.garbled, "plan", "spec-invalid"),
    Fault("configuration missing", partial(at.configuration, text=None), "plan", "configuration-missing"),
    Fault("configuration no TOML", partial(at.configuration, text="[runtime\n"), "plan", "configuration-invalid"),
    Fault("unknown key", partial(at.key, default_memroy=1), "plan", "configuration-invalid"),
    Fault("bad annotation", partial(at.annotated, key="default_memroy", value="1"), "plan", "annotation-refused"),
    Fault("memory over limit", partial(at.annotated, key="default_memory", value=MUCH), "plan", "annotation-refused"),
    Fault("records full", partial(at.full, place="/run/vc/sbs"), "plan", "disk-full"),
    Fault("network the host's", partial(at.in_netns, path=None), "plan", "network-of-host"),
    Fault("netns missing", partial(at.in_netns, path=Path("/run/netns/none")), "network", "netns-missing"),
    Fault("netns unmounted", at.netns_unmounted, "network", "netns-missing"),
    Fault("tap busy", partial(at.networked, commands=TAKEN), "network", "link-in-use"),
    Fault("link filtered", partial(at.networked, commands=FILTERED), "network", "link-in-use"),
    Fault("CNI made a tunnel", partial(at.networked, commands=TUNNEL), "network", "link-unsupported"),
    Fault("no tun device", at.no_tun, "network", "permission-denied"),
    Fault("share full", partial(at.full, place="/run/kata-containers/shared"), "share", "disk-full"),
    Fault("hook fails", at.failing_hook, "hooks", "hook-failed"),
    Fault("policy garbled", partial(at.governed, policy="package agent_policy\nX {"), "policy", "policy-invalid"),
    Fault("policy denial", partial(at.governed, policy=rego(CreateContainer=False)), "create", "policy-denied"),
    Fault("command missing", at.command, "create", "command-missing"),
    Fault("command missing later", at.later_container, "create app", "command-missing"),
    Fault("program of s390x", at.foreign_program, "start", "architecture-other"),
    Fault("volume missing", at.no_volume, "create", "volume-missing"),
    Fault("container out of memory", at.greedy_container, "running", "container-out-of-memory"),
    Fault("clock ahead", at.clock_ahead, "create app", "clock-wrong"),
    Fault("agent older", at.older_agent, "create", "agent-version"),
    Fault("agent hung", at.standstill, "create", "agent-hung"),
    Fault("agent killed in create", partial(at.killed_in, victim="agent", stage="create"), "create", "agent-lost"),
    Fault("agent killed", partial(at.killed, victim="agent"), "running", "agent-lost"),
]  # fmt: skip
QEMU = [
    Fault("kernel missing", partial(at.key, kernel="/no/file"), "qemu", "kernel-missing"),
    Fault("kernel no kernel", partial(at.key, kernel="/bin/false"), "qemu", "kernel-unusable"),
    Fault("kernel of s390x", at.foreign_kernel, "qemu", "kernel-unusable"),
    Fault("initramfs missing", partial(at.key, initramfs="/no/file"), "qemu", "image-missing"),
    Fault("image missing", partial(at.key, image="/no/file"), "qemu", "image-missing"),
    Fault("qemu missing", partial(at.key, path="/no/file"), "qemu", "qemu-missing"),
    Fault("qemu no qemu", partial(at.key, path="/bin/false"), "qemu", "qemu-exited"),
    Fault("virtiofsd missing", partial(at.key, virtio_fs_daemon="/no/file"), "virtiofsd", "virtiofsd-missing"),
    Fault("virtiofsd other", partial(at.key, virtio_fs_daemon="/bin/true"), "virtiofsd", "virtiofsd-unusable"),
    Fault("no vsock", VSOCK, "qemu", "vhost-unavailable"),
    Fault("no KVM", KVM, "qemu", "kvm-unavailable"),
    Fault("no huge pages", partial(at.hypervisor, lines=HUGE), "qemu", "memory-unavailable"),
    Fault("machines full", partial(at.full, place="/run/vc/vm"), "qemu", "disk-full"),
    Fault("stale sockets", at.stale_sockets, "qemu", "already-there"),
    Fault("initramfs garbled", at.garbled_initramfs, "agent", "image-damaged"),
    Fault("image garbled", at.garbled_image, "agent", "image-damaged"),
    Fault("init of s390x", at.foreign_init, "agent", "guest-architecture"),
    Fault("manager impatient", at.hurried, "agent", "manager-gave-up"),
    Fault("guest panics", partial(at.guest, script="exit 3", patience=40), "agent", "guest-panic"),
    Fault("no agent", partial(at.guest, script=SILENT, patience=5), "agent", "agent-silent"),
    Fault("qemu out of memory", at.little_memory, "agent", "qemu-out-of-memory"),
    Fault("qemu killed in boot", partial(at.killed_in, victim="qemu", stage="agent"), "agent", "qemu-killed"),
    Fault("qemu killed", at.killed_with_full_shm, "running", "qemu-killed"),
    Fault("virtiofsd killed", partial(at.killed, victim="virtiofsd"), "running", "virtiofsd-killed"),
]  # fmt: skip


FAULTS = [("namespace", fault) for fault in (*SHIM, *ABOVE)] + [("qemu", fault) for fault in QEMU]


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
    if fault.stage.split()[0] in BOUNDED and not fault.cause.startswith("shim-"):
        assert 0 <= verdict["elapsed"] <= verdict["budget"] + SLACK


@pytest_asyncio.fixture(loop_scope="session")
async def journald() -> AsyncIterator[None]:
    """A journal of the node."""
    places = top, _ = Path("/run/systemd"), Path("/run/log")
    for place in places:
        place.mkdir()  # in a room there is none; a host's own would be in the way
    settings, journal = top / "journald.conf.d", top / "journal"
    sockets = [journal / name for name in ("socket", "stdout", "dev-log", "io.systemd.journal")]
    settings.mkdir()
    (settings / "tests.conf").write_text("[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\n")  # nothing of the host
    # systemd raises it when a node boots: else a shim that says much at once has lines dropped by a busy journal.
    Path("/proc/sys/net/unix/max_dgram_qlen").write_text("512")  # of the room's network
    daemon = await asyncio.create_subprocess_exec("/lib/systemd/systemd-journald", stderr=subprocess.PIPE)
    try:
        await until(lambda: all(path.exists() for path in sockets) or daemon.returncode is not None)
        assert daemon.returncode is None, await daemon.communicate()
        yield
    finally:
        if daemon.returncode is None:
            daemon.terminate()
        await daemon.communicate()
    for place in places:
        shutil.rmtree(place)


async def _run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


@ON_NAMESPACES
async def test_what_shim_and_manager_say_in_the_journal_is_told(
    manager: Manager, tmp_path: Path, journald: None
) -> None:
    await at.command(manager, tmp_path)
    await _run("systemd-cat", "-t", "crio", "echo", f"no container in {NAME}: \x1b[31mred")
    await _run("systemd-cat", "-t", "crio", "echo", "of another pod")
    await _run("journalctl", "--sync")
    told = CliRunner().invoke(explain.command, [NAME]).output
    assert f"crio: no container in {NAME}: \\x1b[31mred\n" in told
    assert re.search('kata: time=".*" level=error msg="Create: create failed .*" source=', told)
    assert "of another pod" not in told


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
            explained = CliRunner().invoke(explain.command, [NAME], standalone_mode=False)
            assert explained.return_value == 3
            assert re.search(r"KATA-S01 shim-killed(.*\n)*evidence  agent \(pid \d+\)", explained.output)
            assert explained.output.endswith(f"now       sandbox {NAME} of it is dead\n")
            for words, told in ((["--dry-run"], "left"), ([], "gone")):
                found = json.loads(CliRunner().invoke(gc.command, [*words, "-o", "json"]).output)
                assert NAME in [each["id"] for each in found[told]]
            assert not (ROOT / NAME).exists()
        finally:
            aside.rename(container.bundle)
