"""Tools on the host reach a running guest: management API, debug console, the agent's log."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from kata_py.ttrpc.errors import StatusError
from tests import bundle
from tests.conftest import REPOSITORY
from tests.integration.conftest import ON_QEMU
from tests.manager import Container, Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

POLICY = "io.katacontainers.config.agent.policy"
ALLOWED = (
    *("AddARPNeighbors", "CreateContainer", "CreateSandbox", "DestroySandbox", "GetOOMEvent", "GuestDetails"),
    "OnlineCPUMem",
    *("ReadStream", "RemoveContainer", "ReseedRandomDev", "SetGuestDateTime", "SetPolicy", "SignalProcess"),
    *("StartContainer", "StatsContainer", "TtyWinResize", "UpdateInterface", "UpdateRoutes", "WaitProcess"),
    "WriteStream",
)


def kata_ctl(*words: str, stdin: bytes | None = None, code: int = 0, told: bool = False) -> bytes:
    """Run kata-ctl; stderr is returned where it is to fail, or to tell something."""
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; from kata_py.cli.command import main; sys.exit(main())", *words],
        cwd=REPOSITORY, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == code, (ran.returncode, ran.stdout, ran.stderr)
    return ran.stderr if code == 1 or told else ran.stdout


async def ctl(*words: str, stdin: bytes | None = None, code: int = 0, told: bool = False) -> bytes:
    return await asyncio.to_thread(kata_ctl, *words, stdin=stdin, code=code, told=told)


def rego(**rules: bool) -> str:
    """A policy that lets pass what a shim asks for, but for the rules given."""
    lines = ["package agent_policy", *(f"default {name}Request := true" for name in ALLOWED if name not in rules)]
    return "\n".join([*lines, *(f"default {name}Request := {str(allowed).lower()}" for name, allowed in rules.items())])


@asynccontextmanager
async def governed(manager: Manager, id: str, policy: str, *args: str) -> AsyncIterator[Container]:
    """A container under a policy of the pod's own, created and not started."""
    spec = bundle.spec(id, manager.rootfs, bundle.process(args))
    spec["annotations"] = {POLICY: base64.b64encode(policy.encode()).decode()}
    async with manager.container(id, spec=spec) as container:
        yield container


async def test_a_policy_of_the_pods_own_keeps_the_host_from_running_more_in_it(manager: Manager) -> None:
    async with governed(manager, "governed", rego(ExecProcess=False), "sh", "-c", "echo out; read x") as container:
        await container.start()
        await container.io.until(b"out\n")
        process = await container.exec("true")
        with pytest.raises(StatusError, match="ExecProcessRequest is blocked by policy"):
            await process.start()
        await process.delete()


async def test_a_container_whose_output_may_not_be_read_runs_on_unheard(manager: Manager) -> None:
    script = "yes secret | head -c 1000000; exit 7"  # far more than a pipe holds
    async with governed(manager, "unheard", rego(ReadStream=False), "sh", "-c", script) as container:
        await container.start()
        assert (await container.wait()).status == 7
        assert await container.io.ended() == b""


async def test_a_policy_that_is_none_fails_the_start_with_the_agents_words(manager: Manager) -> None:
    with pytest.raises(StatusError, match=r"policy failed after .*not a policy"):
        async with governed(manager, "ungoverned", "package agent_policy\nX {", "true"):
            raise AssertionError("it was created")


async def test_tools_reach_a_running_sandbox_through_its_shim(manager: Manager, driver: str) -> None:
    async with manager.container("reached", "sleep", "100000") as container:
        await container.start()
        socket = (container.bundle / "monitor_address").read_text()
        assert socket == "unix:///run/vc/sbs/reached/shim-monitor.sock"
        assert Path(socket.removeprefix("unix://")).stat().st_mode & 0o777 == 0o600
        figures = (await ctl("metrics", "reach")).decode()
        expected = {"kata_shim_threads", "kata_shim_io_stat", "kata_hypervisor_fds", "kata_agent_scrape_count"}
        expected |= {"kata_guest_load"} | ({"kata_virtiofsd_proc_stat"} if driver == "qemu" else set())
        expected |= {f"kata_shim_{kind}rpc_durations_histogram_milliseconds" for kind in ("", "agent_")}
        assert expected <= set(re.findall(r"^# TYPE (\w+) ", figures, re.M))
        for action in ("create", "start", "grpc.CreateContainerRequest", "grpc.StartContainerRequest"):
            assert re.search(rf'_milliseconds_count{{action="{re.escape(action)}"}} [1-9]', figures), action
        rules = b"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 4321 -j DROP\nCOMMIT\n"
        await ctl("iptables", "set", "--sandbox-id", "reached", "-", stdin=rules)
        assert b"--dport 4321 -j DROP" in await ctl("iptables", "get", "--sandbox-id", "reached")
        assert b"4321" not in await ctl("iptables", "get", "--v6", "--sandbox-id", "reached")
        assert await ctl("loglevel", "reached") == b"debug\n"
        assert await ctl("loglevel", "reached", "info", told=True) == b""
        await ctl("policy", "set", "--sandbox-id", "reached", "-", stdin=rego(StatsContainer=False).encode())
        with pytest.raises(StatusError, match="StatsContainerRequest is blocked by policy"):
            await container.stats()
        denied = await ctl("loglevel", "reached", "error", told=True)
        assert denied.startswith(b"the agent in the guest logs as before: agent: SetLogLevelRequest: internal error")
        assert await ctl("loglevel", "reached") == b"error\n"
        refusal = await ctl("iptables", "get", "--sandbox-id", "reached", code=1)
        assert b"GetIPTablesRequest: internal error" in refusal
    assert b"no running sandbox 'reached'" in await ctl("metrics", "reached", code=1)


@pytest.fixture
def debugged(config: Path, short_tmp: Path, launcher: Path, rootfs: Path) -> Manager:
    """A manager of guests that are debugged."""
    place = short_tmp / "debugged"
    (place / "config.d").mkdir(parents=True, exist_ok=True)
    (place / "configuration.toml").write_text(config.read_text())
    (place / "config.d" / "10.toml").write_text(
        "[hypervisor.qemu]\nenable_debug = true\n[agent.kata]\ndebug_console_enabled = true\nenable_debug = true\n"
    )
    return Manager(launcher, place, place / "configuration.toml", rootfs)


class Log:
    """What the shim logs, read as it comes: what a full fifo does not take is lost."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = ""
        self._grown = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        self._text += os.read(self._fd, 1 << 16).decode(errors="replace")
        self._grown.set()

    async def until(self, pattern: str) -> str:
        """Wait for a line that fits, and return it."""
        try:
            async with asyncio.timeout(30):
                while not (found := re.search(pattern, self._text, re.M)):
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"no line like {pattern!r} in {self._text[-4000:]}") from None
        return found[0]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


@ON_QEMU
async def test_a_guest_that_is_debugged_gives_a_shell_files_and_its_agents_log(
    debugged: Manager, short_tmp: Path
) -> None:
    async with (
        AsyncExitStack() as stack,
        debugged.container("debugged", "sleep", "100000", create=False) as container,
    ):
        log = Log(container.bundle / "log")
        stack.callback(log.close)
        await container.create()
        await container.start()
        line = await log.until(r"^.*kata-agent \S+ serves virtio-serial.*$")
        assert " level=info " in line
        assert line.endswith("source=agent subsystem=server")
        await log.until(r"level=debug .*source=agent")
        process = await container.exec("no-such-program")
        with pytest.raises(StatusError):
            await process.start()
        await log.until(rf" container=debugged exec={process.exec_id} .*sandbox=debugged source=agent ")
        await process.delete()

        assert await ctl("exec", "debugged", "--", "cat", "/proc/1/comm") == b"python3\n"
        assert await ctl("exec", "debugged", "--", "sh", "-c", "echo 'a  b'; exit 3", code=3) == b"a  b\n"
        binary = await ctl("exec", "debugged", "--", "head", "-c", "100000", "/usr/bin/python3.11")
        assert len(binary) == 100000
        assert binary.startswith(b"\x7fELF")
        (short_tmp / "file").write_bytes(binary)
        (short_tmp / "file").chmod(0o751)
        await ctl("cp", str(short_tmp / "file"), "debugged:/run")
        await ctl("cp", "debugged:/run/file", str(short_tmp / "back"))
        assert (short_tmp / "back").read_bytes() == binary
        assert (short_tmp / "back").stat().st_mode & 0o7777 == 0o751
        typed = b"echo $((6 * 7)) of $(hostname)\nexit 5\n"
        said = await ctl("exec", "debugged", stdin=typed, code=5)
        assert re.fullmatch(rb"42 of \S+\n", said)
        log_again = await log.until(r"^.*debug console: shell \d+ begins.*$")
        assert "subsystem=debug_console" in log_again


@ON_QEMU
async def test_a_guest_that_is_not_debugged_has_no_shell_and_says_how_to_get_one(manager: Manager) -> None:
    async with manager.container("closed", "sleep", "100000") as container:
        await container.start()
        refusal = (await ctl("exec", "closed", "--", "true", code=1)).decode()
        assert "no debug console" in refusal
        assert "next: set debug_console_enabled = true" in refusal
        assert sorted(path.name for path in Path("/run/vc/vm/closed").glob("*console*")) == ["console.sock"]


@ON_QEMU
async def test_a_direct_assigned_volume_is_measured_and_grows_while_it_is_used(
    manager: Manager, short_tmp: Path
) -> None:
    disk, volume = short_tmp / "disk.img", short_tmp / "volume"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    await asyncio.to_thread(subprocess.run, ["mke2fs", "-q", "-t", "ext4", disk], check=True)
    info = {"volume-type": "block", "device": str(disk), "fstype": "ext4"}
    await ctl("direct-volume", "add", "--volume-path", str(volume), "--mount-info", json.dumps(info))
    mount = {"destination": "/data", "type": "bind", "source": str(volume), "options": ["rbind", "rw"]}
    try:
        async with manager.container("direct", "sleep", "100000", mounts=[mount]) as container:
            await container.start()
            [total, _] = json.loads(await ctl("direct-volume", "stats", str(volume)))["usage"]
            assert 40 << 20 < total["total"] < 64 << 20
            assert total["unit"] == 1
            await ctl("direct-volume", "resize", str(volume), str(256 << 20))
            assert disk.stat().st_size == 256 << 20
            [total, _] = json.loads(await ctl("direct-volume", "stats", str(volume)))["usage"]
            assert total["total"] > 200 << 20
            assert await container.run("sh", "-c", "head -c 80000000 /dev/zero > /data/x; echo $?") == (0, b"0\n")
            refusal = await ctl("direct-volume", "resize", str(volume), str(1 << 20), code=1)
            assert b"cannot become smaller" in refusal
        assert b"no running sandbox uses the volume" in await ctl("direct-volume", "stats", str(volume), code=1)
    finally:
        await ctl("direct-volume", "remove", str(volume))
    assert b"no direct-assigned volume" in await ctl("direct-volume", "stats", str(volume), code=1)
