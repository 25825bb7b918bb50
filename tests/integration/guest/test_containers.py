"""Containers in the guest, with cgroup v2, all rights and a kernel of its own: what functional tests cannot show."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from bench.guest_machine import guest as built
from bench.guest_machine import run
from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import Outcome, Pod

pytestmark = [pytest.mark.qemu, pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20
CALL = 60.0  # seconds
# Takes the MiB that it is told on stdin, a line each.
EATER = 'while read mib; do kept="$kept$(head -c ${mib}m /dev/zero | tr "\\0" x)"; echo eaten; done'
_CGROUP = oci.Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=["ro"])

Change = Callable[[oci.Spec], None]


def _nothing(spec: oci.Spec) -> None:
    pass


@dataclass(frozen=True)
class Guest(Pod):
    """A guest whose containers have its own root file system, writable, as theirs."""

    names: itertools.count[int] = field(default_factory=itertools.count)

    async def begin(self, *argv: str, change: Change = _nothing, start: bool = True, **process: object) -> str:
        """Create, and start, a container; returns its id."""
        name = f"ctr{next(self.names)}"
        place = f"/run/kata-containers/sandbox/{name}"
        request = self.request(name, "busybox", *argv, **process)
        for part in ("upper", "work"):
            request.storages.add(driver="local", mount_point=f"{place}/{part}")
        options = ["lowerdir=/", f"upperdir={place}/upper", f"workdir={place}/work"]
        request.storages.add(
            driver="ephemeral", source="overlay", fstype="overlay", options=options, mount_point=f"{place}/root"
        )
        request.OCI.Root.Path = f"{place}/root"
        request.OCI.Mounts.append(_CGROUP)
        change(request.OCI)
        await self.calls.CreateContainer(request, timeout=CALL)
        if start:
            await self.start(name)
        return name

    async def exec(self, container_id: str, exec_id: str, *argv: str, **process: object) -> None:
        """As any pod's; the guest has busybox and no links to it."""
        await super().exec(container_id, exec_id, "busybox", *argv, **process)

    async def ran(self, script: str, change: Change = _nothing, **process: object) -> Outcome:
        """How a container ends that runs the script."""
        name = await self.begin("sh", "-c", script, change=change, **process)
        outcome = await self.outcome(name)
        await self.remove(name)
        return outcome


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(guest: Path) -> AsyncIterator[Guest]:
    """A sandbox in a running guest, for all tests here."""
    assert guest
    async with run(replace(built(), memory=512)) as machine, machine.agent() as (client, _):
        calls = AgentClient(client)
        await calls.CreateSandbox(agent.CreateSandboxRequest(hostname="pod", sandbox_id="pause"), timeout=CALL)
        yield Guest(machine, client, calls, guest, guest)  # type: ignore[arg-type]


async def _file(pod: Pod, name: str, file: str) -> str:
    serial = f"read-{file}"
    return (await pod.shell(name, f"cat /sys/fs/cgroup/{file}", serial)).stdout.decode().strip()


async def test_containers_share_their_processes_and_orphans_leave_no_zombies(pod: Guest) -> None:
    # The first test of all, because the sandbox's first container is the one whose processes are shared.
    reaping = "trap exit TERM; while :; do sleep 0.1; done"  # as a pause container does
    requests = [pod.request(name, *argv, share_pids=True) for name, argv in (
        ("holder", ("busybox", "sh", "-c", reaping)), ("guest", ("busybox", "sleep", "1000")),
    )]  # fmt: skip
    for request in requests:
        request.OCI.Root.Path = "/"
        await pod.calls.CreateContainer(request, timeout=CALL)
        await pod.start(request.container_id)

    script = "(sleep 0.1 &); sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l; ps | grep -c '[s]leep 1000'"
    outcome = await pod.shell("guest", script)

    zombies, sleeping = map(int, outcome.stdout.split())
    assert (zombies, sleeping) == (0, 1)
    for request in reversed(requests):
        await pod.remove(request.container_id)

    with pytest.raises(StatusError, match="the first container, whose processes were to be shared, has ended"):
        await pod.calls.CreateContainer(requests[1], timeout=CALL)


async def test_a_container_is_paused_resumed_and_killed(pod: Guest) -> None:
    name = await pod.begin("sh", "-c", "while read line; do echo $line; done")
    await pod.exec(name, "x", "sleep", "1000")

    await pod.pause(name)
    await pod.write(name, b"heard\n")
    reading = asyncio.create_task(pod.read(name))
    with pytest.raises(StatusError, match="it is paused; resume it first"):
        await pod.exec(name, "y", "true")
    await pod.signal(name, signal.SIGKILL, "x")
    assert await pod.wait(name, "x") == 137
    assert not reading.done()
    await pod.resume(name)
    assert await reading == b"heard\n"
    await pod.pause(name)
    await pod.signal(name, signal.SIGKILL, name)

    assert await pod.wait(name) == 137
    await pod.remove(name)


async def test_a_paused_container_can_be_removed(pod: Guest) -> None:
    name = await pod.begin("sh", "-c", "sleep 1000 & sleep 1000")
    await pod.pause(name)

    await pod.remove(name, timeout=10)


async def test_limits_become_those_of_v2(pod: Guest) -> None:
    name = await pod.begin("sleep", "1000")

    await pod.update(
        name,
        Memory=oci.LinuxMemory(Limit=64 * MIB, Reservation=32 * MIB, Swap=80 * MIB),
        CPU=oci.LinuxCPU(Shares=1024, Quota=20000, Period=50000, Cpus="0", Mems="0"),
        Pids=oci.LinuxPids(Limit=77),
    )
    script = "cd /sys/fs/cgroup; cat memory.max memory.low memory.swap.max cpu.weight cpu.max cpuset.cpus pids.max"
    lines = (await pod.shell(name, script)).stdout.decode().splitlines()
    assert lines == [str(64 * MIB), str(32 * MIB), str(16 * MIB), "39", "20000 50000", "0", "77"]

    await pod.update(name, CPU=oci.LinuxCPU(Period=100000), Memory=oci.LinuxMemory(Limit=-1))
    lines = (await pod.shell(name, script, "y")).stdout.decode().splitlines()
    assert lines == ["max", str(32 * MIB), "max", "39", "20000 100000", "0", "77"]
    await pod.remove(name)


async def test_a_limit_below_what_is_in_use_kills_nobody(pod: Guest) -> None:
    name = await pod.begin("sh", "-c", EATER)
    await pod.write(name, b"20\n")
    await pod.read_until(b"eaten", name)

    with pytest.raises(StatusError, match=r"cannot set memory.limit to 4194304: the container uses \d+ bytes"):
        await pod.update(name, Memory=oci.LinuxMemory(Limit=4 * MIB))

    await pod.write(name, b"1\n")
    assert await pod.read(name) == b"eaten\n"
    await pod.remove(name)


@pytest.mark.parametrize("memory", [{"Swappiness": 10}, {"Kernel": MIB}, {"Limit": 2 * MIB, "Swap": MIB}])
async def test_a_limit_that_v2_cannot_have_is_named(pod: Guest, memory: dict[str, int]) -> None:
    name = await pod.begin("sleep", "1000")

    with pytest.raises(StatusError, match=r"memory\.") as refusal:
        await pod.update(name, Memory=oci.LinuxMemory(**memory))

    assert refusal.value.code is Code.INVALID_ARGUMENT
    await pod.remove(name)


async def test_each_kill_for_want_of_memory_is_an_event(pod: Guest) -> None:
    name = await pod.begin("sh", "-c", EATER)
    await pod.update(name, Memory=oci.LinuxMemory(Limit=16 * MIB))

    for number in range(2):
        await pod.shell(name, "head -c 64m /dev/zero | tail -c 60m | wc -c", f"x{number}")
        assert await pod.oom_event() == name
    await pod.write(name, b"64\n")
    assert await pod.wait(name) == 137

    assert await pod.oom_event() == name
    await pod.remove(name)


async def test_figures_are_those_of_the_cgroups_files(pod: Guest) -> None:
    name = await pod.begin("sh", "-c", EATER)
    await pod.update(name, Memory=oci.LinuxMemory(Limit=64 * MIB), CPU=oci.LinuxCPU(Quota=50000, Period=100000))
    await pod.write(name, b"8\n")
    await pod.read_until(b"eaten", name)

    before = await pod.stats(name)
    script = "cd /sys/fs/cgroup; cat memory.peak memory.max pids.max; cat cpu.stat"
    peak, limit, pids, *cpu = (await pod.shell(name, script)).stdout.decode().splitlines()
    after = await pod.stats(name)

    figures = {key: int(value) for key, value in (line.split() for line in cpu)}
    for usage, key in (("total_usage", "usage_usec"), ("usage_in_usermode", "user_usec")):
        low, high = (getattr(stats.cpu_stats.cpu_usage, usage) for stats in (before, after))
        assert 0 < low <= figures[key] * 1000 <= high
    throttled = [stats.cpu_stats.throttling_data.throttled_time for stats in (before, after)]
    assert 0 < throttled[0] <= figures["throttled_usec"] * 1000 <= throttled[1]
    assert before.memory_stats.usage.max_usage <= int(peak) <= after.memory_stats.usage.max_usage
    assert (after.memory_stats.usage.limit, limit) == (64 * MIB, str(64 * MIB))
    assert after.memory_stats.cache == after.memory_stats.stats["file"]
    assert after.memory_stats.usage.usage > 8 * MIB
    assert (pids, after.pids_stats.limit, after.pids_stats.current) == ("max", 0, 1)
    await pod.remove(name)


def _filtered(action: str, errno: int | None = None) -> Change:
    def change(spec: oci.Spec) -> None:
        seccomp = spec.Linux.Seccomp
        seccomp.DefaultAction = "SCMP_ACT_ALLOW"
        rule = seccomp.Syscalls.add(Names=["mkdir", "mkdirat"], Action=action)
        if errno is not None:
            rule.errnoret = errno

    return change


@pytest.mark.parametrize(
    ("action", "errno", "words"),
    [
        ("SCMP_ACT_ERRNO", None, b"Operation not permitted"),
        ("SCMP_ACT_ERRNO", 28, b"No space left on device"),
        ("SCMP_ACT_KILL_PROCESS", None, b"Bad system call"),
    ],
)
async def test_a_seccomp_profile_is_enforced(pod: Guest, action: str, errno: int | None, words: bytes) -> None:
    outcome = await pod.ran("mkdir /tmp/x || exit 9", _filtered(action, errno))

    assert outcome.code == 9
    assert words in outcome.stderr
    assert (await pod.ran("mkdir /tmp/x", _filtered("SCMP_ACT_LOG"))).code == 0


async def test_a_process_has_the_user_groups_and_rights_that_its_spec_says(pod: Guest) -> None:
    keys = "^(CapBnd|CapEff|NoNewPrivs|Seccomp):"
    script = f"cd /proc/self; id -u; id -g; id -G; ulimit -n; cat oom_score_adj; grep -E '{keys}' status"

    outcome = await pod.ran(
        script,
        User=oci.User(UID=1000, GID=2000, AdditionalGids=[3000, 4000]),
        Capabilities=oci.LinuxCapabilities(Bounding=["CAP_KILL"]),
        NoNewPrivileges=True,
        Rlimits=[oci.POSIXRlimit(Type="RLIMIT_NOFILE", Hard=500, Soft=400)],
        OOMScoreAdj=-500,
    )

    uid, gid, gids, files, adjustment, *status = outcome.stdout.decode().splitlines()
    assert (uid, gid, set(gids.split())) == ("1000", "2000", {"2000", "3000", "4000"})
    assert dict(line.split(":\t") for line in status) == {
        "CapBnd": "0000000000000020", "CapEff": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "0",
    }  # fmt: skip
    assert (files, adjustment) == ("400", "-500")


async def test_paths_are_masked_and_read_only(pod: Guest) -> None:
    def change(spec: oci.Spec) -> None:
        spec.Root.Readonly = True
        spec.Linux.MaskedPaths.extend(["/proc/kallsyms", "/proc/bus"])
        spec.Linux.ReadonlyPaths.append("/proc/sys")
        spec.Mounts.add(destination="/dev/shm", type="tmpfs", source="shm", options=["nosuid", "size=1m"])

    outcome = await pod.ran(
        "touch /x; wc -c </proc/kallsyms; ls /proc/bus | wc -l; echo 1 >/proc/sys/vm/drop_caches;"
        "head -c 2m /dev/zero >/dev/shm/x; wc -c </dev/shm/x",
        change,
    )

    assert outcome.stdout.split() == [b"0", b"0", b"1048576"]
    read_only, also_read_only, full = outcome.stderr.decode().splitlines()
    assert read_only.endswith(": Read-only file system")
    assert also_read_only.endswith(": Read-only file system")
    assert full.startswith("head: ")


async def test_settings_of_the_namespaces_are_made_and_those_of_the_guest_refused(pod: Guest) -> None:
    def set_to(**sysctl: str) -> Change:
        return lambda spec: spec.Linux.Sysctl.update({key.replace("__", "."): value for key, value in sysctl.items()})

    script = "cd /proc/sys; cat kernel/shmmax kernel/domainname net/ipv4/ip_forward fs/mqueue/msg_max"
    change = set_to(
        kernel__shmmax="65536", kernel__domainname="example", net__ipv4__ip_forward="1", fs__mqueue__msg_max="20"
    )

    assert (await pod.ran(script, change)).stdout.split() == [b"65536", b"example", b"1", b"20"]
    with pytest.raises(StatusError, match=r"sysctl vm\.swappiness is not namespaced") as refusal:
        await pod.begin("true", change=set_to(vm__swappiness="1"))
    assert refusal.value.code is Code.INVALID_ARGUMENT


async def test_devices_are_made_and_allowed_by_rules(pod: Guest) -> None:
    def change(spec: oci.Spec) -> None:
        spec.Linux.Devices.add(Path="/dev/disk", Type="b", Major=254, Minor=0, FileMode=0o640, UID=7, GID=8)

    def restricted(spec: oci.Spec) -> None:
        change(spec)
        spec.Linux.Resources.Devices.add(Allow=False, Access="rwm")

    script = "stat -c '%a %u %g %t' /dev/disk; head -c 4 /dev/disk | wc -c; echo x >/dev/null"

    assert (await pod.ran(script, change)).stdout.split(b"\n")[:2] == [b"640 7 8 fe", b"4"]
    outcome = await pod.ran(script, restricted)
    assert outcome.stdout.split(b"\n")[1] == b"0"
    assert b"Operation not permitted" in outcome.stderr
    assert outcome.code == 0


async def test_device_rules_can_be_changed(pod: Guest) -> None:
    def change(spec: oci.Spec) -> None:
        spec.Linux.Devices.add(Path="/dev/disk", Type="b", Major=254, Minor=0, FileMode=0o666)

    name = await pod.begin("sleep", "1000", change=change)
    await pod.update(name, Devices=[oci.LinuxDeviceCgroup(Allow=False, Access="rwm")])
    assert b"Operation not permitted" in (await pod.shell(name, "head -c 4 /dev/disk", "one")).stderr
    rules = [
        oci.LinuxDeviceCgroup(Allow=False, Access="rwm"),
        oci.LinuxDeviceCgroup(Allow=True, Type="b", Major=254, Minor=0, Access="r"),
    ]
    await pod.update(name, Devices=rules)

    assert (await pod.shell(name, "head -c 4 /dev/disk | wc -c", "two")).stdout == b"4\n"
    await pod.remove(name)


async def test_mounts_are_read_only_to_the_depth_and_propagate_as_asked(pod: Guest) -> None:
    def change(spec: oci.Spec) -> None:
        spec.Linux.RootfsPropagation = "rshared"  # as managers say when a mount is
        spec.Mounts.add(destination="/mnt", type="bind", source="/run", options=["rbind", "rro"])
        spec.Mounts.add(destination="/var", type="bind", source="/sys", options=["rbind", "rshared"])

    script = "touch /mnt/x; touch /mnt/kata-containers/x; grep ' /var ' /proc/self/mountinfo"
    outcome = await pod.ran(script, change)

    assert outcome.stderr.count(b"Read-only file system") == 2
    assert b" shared:" in outcome.stdout


@pytest.mark.parametrize(("propagation", "word"), [("rshared", b" shared:"), ("rslave", b""), ("private", b"")])
async def test_the_root_propagates_as_asked(pod: Guest, propagation: str, word: bytes) -> None:
    def change(spec: oci.Spec) -> None:
        spec.Linux.RootfsPropagation = propagation

    line = (await pod.ran("grep ' / / ' /proc/self/mountinfo", change)).stdout

    assert word in line
    assert (b" shared:" in line) is (propagation == "rshared")


async def test_a_privileged_container_sees_and_may_all(pod: Guest) -> None:
    every = [
        f"CAP_{name}"
        for name in ("SYS_ADMIN", "SYS_RAWIO", "MKNOD", "NET_ADMIN", "DAC_OVERRIDE", "CHOWN", "SETUID", "SETGID")
    ]

    def change(spec: oci.Spec) -> None:
        spec.Linux.Resources.Devices.add(Allow=True, Access="rwm")
        spec.Mounts[-1].options[:] = ["rw"]

    granted = oci.LinuxCapabilities(Bounding=every, Effective=every, Permitted=every)
    script = (
        "cd /tmp; mknod d b 254 0; head -c 4 d | wc -c; mount -t tmpfs none /mnt && mkdir /sys/fs/cgroup/x && echo done"
    )

    assert (await pod.ran(script, change, Capabilities=granted)).stdout.split() == [b"4", b"done"]


async def test_a_container_sees_its_cgroup_as_the_root(pod: Guest) -> None:
    assert (await pod.ran("cat /proc/self/cgroup")).stdout == b"0::/\n"
