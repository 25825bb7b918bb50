"""A pod by the agent's own calls: the real agent in namespaces, the real client, a busybox root file system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.hypervisor.api import Boot, SharedDirectory, Vm, VmSpec
from kata_py.ttrpc.client import Client, connect
from tests.drivers.journal import ListJournal
from tests.drivers.namespace import NamespaceHypervisor, NamespaceVm
from tools import oci_image

TIMEOUT = 20.0  # seconds for whatever is waited for
GUEST_SHARE = "/run/kata-containers/shared/containers"
CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}  # a container's

_MOUNTS = [
    oci.Mount(destination="/proc", type="proc", source="proc"),
    oci.Mount(destination="/dev", type="tmpfs", source="tmpfs", options=["mode=755"]),
    oci.Mount(destination="/dev/pts", type="devpts", source="devpts", options=["newinstance", "ptmxmode=0666"]),
]


@dataclass(frozen=True)
class Outcome:
    """How a process ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Pod:
    """A sandbox in a running agent.

    Attributes:
        vm: The machine, or its stand-in.
        client: The connection to the agent.
        calls: The agent's calls over it.
        share: The host's side of the share.
        rootfs: What a container's root file system is copied from.
    """

    vm: Vm
    client: Client
    calls: AgentClient
    share: Path
    rootfs: Path

    async def create(self, container_id: str, *argv: str, **process: Any) -> None:
        """Create a container that will run the command."""
        self.unpack(container_id)
        await self.calls.CreateContainer(self.request(container_id, *argv, **process), timeout=TIMEOUT)

    def unpack(self, container_id: str) -> None:
        """Put a root file system into the share, if there is none yet."""
        root = self.share / container_id / "rootfs"
        if not root.exists():
            oci_image.copy(self.rootfs, root)

    def request(
        self, container_id: str, *argv: str, share_pids: bool = False, **process: Any
    ) -> agent.CreateContainerRequest:
        """The request that creates a container."""
        spec = oci.Spec(
            Version="1.0.2",
            Process=document(*argv, **process),
            Root=oci.Root(Path=f"{GUEST_SHARE}/{container_id}/rootfs"),
            Mounts=_MOUNTS,
            Linux=oci.Linux(
                Namespaces=[oci.LinuxNamespace(Type=kind) for kind in ("ipc", "uts", "mount")],
                CgroupsPath=f"/pod/{container_id}",
            ),
        )
        return agent.CreateContainerRequest(container_id=container_id, OCI=spec, sandbox_pidns=share_pids)

    async def start(self, container_id: str) -> None:
        """Let a created container's program begin."""
        await self.calls.StartContainer(agent.StartContainerRequest(container_id=container_id), timeout=TIMEOUT)

    async def run(self, container_id: str, *argv: str, **process: Any) -> None:
        """Create and start a container."""
        await self.create(container_id, *argv, **process)
        await self.start(container_id)

    async def exec(self, container_id: str, exec_id: str, *argv: str, **process: Any) -> None:
        """Start one more process."""
        request = agent.ExecProcessRequest(
            container_id=container_id, exec_id=exec_id, process=document(*argv, **process)
        )
        await self.calls.ExecProcess(request, timeout=TIMEOUT)

    async def signal(self, container_id: str, number: int, exec_id: str = "") -> None:
        """Signal a process."""
        request = agent.SignalProcessRequest(container_id=container_id, exec_id=exec_id, signal=number)
        await self.calls.SignalProcess(request, timeout=TIMEOUT)

    async def wait(self, container_id: str, exec_id: str = "") -> int:
        """Wait for a process's end."""
        request = agent.WaitProcessRequest(container_id=container_id, exec_id=exec_id)
        return (await self.calls.WaitProcess(request, timeout=TIMEOUT)).status

    async def write(self, container_id: str, data: bytes, exec_id: str = "") -> int:
        """Write to stdin; nothing is its end."""
        request = agent.WriteStreamRequest(container_id=container_id, exec_id=exec_id, data=data)
        return (await self.calls.WriteStdin(request, timeout=TIMEOUT)).len

    async def close_stdin(self, container_id: str, exec_id: str = "") -> None:
        """End stdin."""
        request = agent.CloseStdinRequest(container_id=container_id, exec_id=exec_id)
        await self.calls.CloseStdin(request, timeout=TIMEOUT)

    async def read(self, container_id: str, exec_id: str = "", *, limit: int = 1 << 16, stderr: bool = False) -> bytes:
        """The next bytes of an output."""
        call = self.calls.ReadStderr if stderr else self.calls.ReadStdout
        request = agent.ReadStreamRequest(container_id=container_id, exec_id=exec_id, len=limit)
        return (await call(request, timeout=TIMEOUT)).data

    async def read_all(self, container_id: str, exec_id: str = "", *, stderr: bool = False) -> bytes:
        """An output up to its end."""
        data = bytearray()
        while piece := await self.read(container_id, exec_id, stderr=stderr):
            data += piece
        return bytes(data)

    async def read_until(self, text: bytes, container_id: str, exec_id: str = "") -> bytes:
        """Stdout up to and with the text, and whatever came along."""
        data = b""
        while text not in data:
            piece = await self.read(container_id, exec_id)
            assert piece, f"stdout ended before {text!r}: {data!r}"
            data += piece
        return data

    async def resize(self, container_id: str, rows: int, columns: int, exec_id: str = "") -> None:
        """Set a terminal's size."""
        request = agent.TtyWinResizeRequest(container_id=container_id, exec_id=exec_id, row=rows, column=columns)
        await self.calls.TtyWinResize(request, timeout=TIMEOUT)

    async def outcome(self, container_id: str, exec_id: str = "") -> Outcome:
        """As a host does it: read both outputs to their ends, then ask for the code."""
        stdout, stderr = await asyncio.gather(
            self.read_all(container_id, exec_id), self.read_all(container_id, exec_id, stderr=True)
        )
        return Outcome(await self.wait(container_id, exec_id), stdout, stderr)

    async def shell(self, container_id: str, script: str, exec_id: str = "script") -> Outcome:
        """Run a shell script in a container."""
        await self.exec(container_id, exec_id, "sh", "-c", script)
        return await self.outcome(container_id, exec_id)

    async def remove(self, container_id: str, timeout: int = 0) -> None:
        """Remove a container."""
        request = agent.RemoveContainerRequest(container_id=container_id, timeout=timeout)
        await self.calls.RemoveContainer(request, timeout=TIMEOUT)

    async def pause(self, container_id: str) -> None:
        """Stop a container where it is."""
        await self.calls.PauseContainer(agent.PauseContainerRequest(container_id=container_id), timeout=TIMEOUT)

    async def resume(self, container_id: str) -> None:
        """Let it continue."""
        await self.calls.ResumeContainer(agent.ResumeContainerRequest(container_id=container_id), timeout=TIMEOUT)

    async def update(self, container_id: str, **resources: Any) -> None:
        """Give a container other resources, by the fields of LinuxResources."""
        request = agent.UpdateContainerRequest(container_id=container_id, resources=oci.LinuxResources(**resources))
        await self.calls.UpdateContainer(request, timeout=TIMEOUT)

    async def oom_event(self) -> str:
        """The next container in which the kernel kills for want of memory."""
        return (await self.calls.GetOOMEvent(agent.GetOOMEventRequest(), timeout=TIMEOUT)).container_id

    async def stats(self, container_id: str) -> agent.CgroupStats:
        """A container's statistics."""
        request = agent.StatsContainerRequest(container_id=container_id)
        return (await self.calls.StatsContainer(request, timeout=TIMEOUT)).cgroup_stats

    @property
    def agent_pid(self) -> int:
        """The agent's pid on the host."""
        return int(Path(f"/proc/{self.vm.pid}/task/{self.vm.pid}/children").read_text().split()[0])

    def path(self, inside: str) -> Path:
        """A path of the guest as the host finds it."""
        return Path(f"/proc/{self.agent_pid}/root{inside}")

    def processes(self) -> dict[int, str]:
        """State letters of all processes below the agent, by pid on the host."""
        return dict(_below(self.agent_pid))


def _below(pid: int) -> list[tuple[int, str]]:
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        try:
            stat = Path(f"/proc/{child}/stat").read_text()
            found += [(child, stat.rpartition(")")[2].split()[0]), *_below(child)]
        except FileNotFoundError:
            continue  # it has ended meanwhile
    return found


def document(*argv: str, **fields: Any) -> oci.Process:
    """A process document."""
    names = list(CAPABILITIES)
    granted = oci.LinuxCapabilities(Bounding=names, Effective=names, Permitted=names)
    defaults: dict[str, Any] = {"Env": ["PATH=/bin"], "Cwd": "/", "Capabilities": granted}
    return oci.Process(Args=argv, **(defaults | fields))


@asynccontextmanager
async def machine(top: Path, *, debug: bool = False) -> AsyncIterator[tuple[NamespaceVm, Path]]:
    """A running agent and the host's side of its share; leaves nothing behind, or fails."""
    share = top / "share"
    share.mkdir(exist_ok=True)
    configuration = Configuration(HypervisorConfig("namespace", enable_debug=debug), source=top)
    spec = VmSpec(top.name, top / "vm", Boot(Path("/")), devices=(SharedDirectory("kataShared", share),))
    journal = ListJournal()
    async with NamespaceHypervisor(configuration).launch(spec, journal) as vm:
        yield vm, share
    assert journal.entries == []


@asynccontextmanager
async def pod(top: Path, rootfs: Path, hostname: str = "pod") -> AsyncIterator[Pod]:
    """A machine with a sandbox in it."""
    async with machine(top) as (vm, share), connect(vm.agent, timeout=TIMEOUT) as client:
        calls = AgentClient(client)
        await calls.CreateSandbox(sandbox_request(hostname), timeout=TIMEOUT)
        yield Pod(vm, client, calls, share, rootfs)


def sandbox_request(hostname: str = "pod", **fields: Any) -> agent.CreateSandboxRequest:
    """What a host asks for: the share, mounted already here."""
    share = agent.Storage(driver="virtio-fs", source="kataShared", fstype="virtiofs", mount_point=GUEST_SHARE + "/")
    return agent.CreateSandboxRequest(hostname=hostname, storages=[share, *fields.pop("storages", [])], **fields)
