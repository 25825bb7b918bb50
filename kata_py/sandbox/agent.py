"""The agent in the guest: its calls, each with its deadline, and its errors in our terms.

Deadlines are kata's (`virtcontainers/kata_agent.go`): waiting for a process and reading or writing its streams
has none, as they end with the process or the connection.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError

from kata_protos import agent_pb2, agent_types_pb2, csi_pb2, health_pb2, telemetry_pb2
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.health_ttrpc import HealthClient
from kata_protos.telemetry_ttrpc import TelemetryClient
from kata_py.sandbox import durations, errors
from kata_py.sandbox.durations import Measured
from kata_py.sandbox.errors import DeadlineExceeded, SandboxError, StreamCut, Unavailable
from kata_py.sandbox.trace import Traced
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.redial import RedialingClient
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    from kata_protos import oci_pb2
    from kata_py.ttrpc.client import Caller, Client

logger = logging.getLogger(__name__)

CALL_TIMEOUT = 60.0  # seconds
SIGNAL_TIMEOUT = 10.0
DESTROY_TIMEOUT = 5.0
READ_SIZE = 1 << 20  # bytes asked for at once
SEED_SIZE = 512  # bytes
_OFFSET = "kata-py-offset"  # metadata of a call that reads or writes a stream, and the feature; an extension of ours

# Bytes that answers may have. A message of small parts takes fifty times its length once it is decoded, and time too.
ANSWER_MAX = 1 << 16
ANSWERS_MAX = {
    "GetIPTables": 4 << 20,  # all that a frame holds: one string of bytes
    "GetMetrics": 1 << 20,
    "ReadStderr": READ_SIZE + (1 << 10),
    "ReadStdout": READ_SIZE + (1 << 10),
    "StatsContainer": 1 << 17,  # a hundred disks
    "TakeSpans": 1 << 18,  # a thousand spans, and more are not told
    "UpdateRoutes": 1 << 18,  # thousands of routes
}
MESSAGE_MAX = 4000  # characters of what an agent says of an error
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and the end of a line

_T = TypeVar("_T")

# UNAVAILABLE is what upstream's agent says of a missing terminal; that it is gone itself, the connection says.
_MEANINGS: dict[Code, type[SandboxError]] = {
    Code.INVALID_ARGUMENT: errors.InvalidArgument,
    Code.NOT_FOUND: errors.NotFound,
    Code.ALREADY_EXISTS: errors.AlreadyExists,
    Code.FAILED_PRECONDITION: errors.FailedPrecondition,
    Code.UNAVAILABLE: errors.FailedPrecondition,
    Code.UNIMPLEMENTED: errors.Unimplemented,
    Code.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}


class Agent:
    """The agent of one guest, over one connection.

    A container's first process is named by an empty exec id. Every call raises a `SandboxError` by the meaning
    of the agent's status: `DeadlineExceeded` when no answer comes in time, `Unavailable` when the connection
    is lost.

    Args:
        client: The connection, which stays its owner's. Over one that is dialled anew when it is lost, an agent that
            counts the bytes of streams (`learn`) loses none and passes none on twice; with another one, a loss in the
            midst of them is a `StreamCut`.

    Attributes:
        durations: How long its calls took.
    """

    def __init__(self, client: Client | RedialingClient) -> None:
        self.durations = durations.of_agent()
        self._client = client
        self._counts = False
        calls = _Bounded(Measured(client, self.durations))
        self._calls = AgentClient(Traced(calls))
        self._telemetry = TelemetryClient(calls)
        self._health = HealthClient(calls)

    def _counted(self, offset: int) -> dict[str, str] | None:
        """Says how many bytes of a stream went before, to an agent that counts them too."""
        return {_OFFSET: str(offset)} if self._counts else None

    async def _passed(self, call: Awaitable[_T]) -> _T:
        """The answer of a call that takes a stream further, which is not made again unless bytes are counted."""
        try:
            return await _answered(call)
        except SandboxError as error:
            cause = error.__cause__
            lost = isinstance(cause, ConnectionClosed) or (
                isinstance(cause, StatusError) and cause.code is Code.UNAVAILABLE  # says who is between
            )
            if not lost or self._counts or self.gone or not isinstance(self._client, RedialingClient):
                raise
            raise StreamCut(
                "the connection to the agent was lost while bytes were under way: some may be missing or doubled, as"
                f" this guest's agent does not count them ({_told(str(cause))})"
            ) from error

    @property
    def gone(self) -> bool:
        """Whether the connection is lost."""
        return self._client.closed

    async def wait_gone(self) -> None:
        """Wait until the connection is lost, whoever ended it."""
        await self._client.wait_closed()

    async def close(self) -> None:
        """End the connection: every pending call fails with `Unavailable`."""
        await self._client.aclose()

    async def check(self, timeout: float) -> None:
        """Learn that the agent serves."""
        await _answered(self._health.Check(health_pb2.CheckRequest(), timeout=timeout))

    async def version(self, timeout: float) -> str:
        """Its version, as it says."""
        return (await _answered(self._health.Version(health_pb2.CheckRequest(), timeout=timeout))).agent_version

    async def learn(self, timeout: float) -> None:
        """Learn whether the agent counts the bytes of streams; without it, it is taken for one that does not.

        Nothing is asked over a connection whose loss is the agent's.

        Raises:
            Unavailable, DeadlineExceeded: It does not answer. What else it may say means that it does not count.
        """
        if not isinstance(self._client, RedialingClient):
            return
        try:
            details = await _answered(self._calls.GetGuestDetails(agent_pb2.GuestDetailsRequest(), timeout=timeout))
        except (Unavailable, DeadlineExceeded):
            raise
        except SandboxError as error:
            logger.warning("whether the agent counts the bytes of streams is not known, so it does not: %s", error)
            return
        self._counts = _OFFSET in details.agent_details.extra_features
        if self._counts:
            self._client.repeat(COUNTED)
        else:
            logger.info("the agent does not count the bytes of streams: those under way at a loss may be lost with it")

    async def set_clock(self) -> None:
        """Set the guest's clock to the host's."""
        now = time.time_ns() // 1000
        request = agent_pb2.SetGuestDateTimeRequest(Sec=now // 1_000_000, Usec=now % 1_000_000)
        await _answered(self._calls.SetGuestDateTime(request, timeout=CALL_TIMEOUT))

    async def seed(self) -> None:
        """Give the guest's random number generator a seed from the host's."""
        request = agent_pb2.ReseedRandomDevRequest(data=os.urandom(SEED_SIZE))
        await _answered(self._calls.ReseedRandomDev(request, timeout=CALL_TIMEOUT))

    async def update_interface(self, interface: agent_types_pb2.Interface) -> None:
        """Give an interface of the guest its name, addresses and MTU."""
        request = agent_pb2.UpdateInterfaceRequest(interface=interface)
        await _answered(self._calls.UpdateInterface(request, timeout=CALL_TIMEOUT))

    async def update_routes(self, routes: Sequence[agent_types_pb2.Route]) -> None:
        """Add routes to the guest's."""
        request = agent_pb2.UpdateRoutesRequest(routes=agent_pb2.Routes(Routes=routes))
        await _answered(self._calls.UpdateRoutes(request, timeout=CALL_TIMEOUT))

    async def add_neighbours(self, neighbours: Sequence[agent_types_pb2.ARPNeighbor]) -> None:
        """Add entries to the guest's table of neighbours."""
        request = agent_pb2.AddARPNeighborsRequest(neighbors=agent_pb2.ARPNeighbors(ARPNeighbors=neighbours))
        await _answered(self._calls.AddARPNeighbors(request, timeout=CALL_TIMEOUT))

    async def memory_block(self) -> int:
        """Bytes that the guest takes memory in; 0 when its kernel can take none."""
        request = agent_pb2.GuestDetailsRequest(mem_block_size=True)
        return (await _answered(self._calls.GetGuestDetails(request, timeout=CALL_TIMEOUT))).mem_block_size_bytes

    async def online(self, cpus: int, *, memory: bool) -> None:
        """Let the guest put to use what was plugged in.

        Args:
            cpus: How many processors it shall use in all; 0 leaves them as they are.
            memory: Whether memory was plugged in.
        """
        request = agent_pb2.OnlineCPUMemRequest(nb_cpus=cpus, cpu_only=not memory)
        await _answered(self._calls.OnlineCPUMem(request, timeout=CALL_TIMEOUT))

    async def set_policy(self, policy: str) -> None:
        """Put a policy in force, in Rego; from now on it decides on every call."""
        await _answered(self._calls.SetPolicy(agent_pb2.SetPolicyRequest(policy=policy), timeout=CALL_TIMEOUT))

    async def packet_filter(self, *, ipv6: bool) -> bytes:
        """The guest's packet filter rules, as iptables-save writes them."""
        request = agent_pb2.GetIPTablesRequest(is_ipv6=ipv6)
        return (await _answered(self._calls.GetIPTables(request, timeout=CALL_TIMEOUT))).data

    async def set_packet_filter(self, rules: bytes, *, ipv6: bool) -> None:
        """Replace the tables of the guest's packet filter that the rules are for."""
        request = agent_pb2.SetIPTablesRequest(is_ipv6=ipv6, data=rules)
        await _answered(self._calls.SetIPTables(request, timeout=CALL_TIMEOUT))

    async def volume_stats(self, path: str) -> csi_pb2.VolumeStatsResponse:
        """How full the volume at a path of the guest is."""
        request = agent_pb2.VolumeStatsRequest(volume_guest_path=path)
        return await _answered(self._calls.GetVolumeStats(request, timeout=CALL_TIMEOUT))

    async def resize_volume(self, path: str, size: int) -> None:
        """Let the volume at a path of the guest have so many bytes, which its disk has already."""
        request = agent_pb2.ResizeVolumeRequest(volume_guest_path=path, size=size)
        await _answered(self._calls.ResizeVolume(request, timeout=CALL_TIMEOUT))

    async def metrics(self, timeout: float) -> str:
        """Figures of agent and guest, as Prometheus reads them."""
        return (await _answered(self._calls.GetMetrics(agent_pb2.GetMetricsRequest(), timeout=timeout))).metrics

    async def set_log_level(self, level: str) -> None:
        """Have the agent log from that level on.

        Raises:
            Unimplemented: It is not one of ours, which has no such call.
        """
        request = telemetry_pb2.SetLogLevelRequest(level=level)
        await _extended(self._telemetry.SetLogLevel(request, timeout=SIGNAL_TIMEOUT))

    async def take_spans(self, callers: Sequence[bytes], timeout: float) -> Sequence[telemetry_pb2.Span]:
        """What the agent has noted of the calls with these spans, and of the guest's boot.

        Raises:
            Unimplemented: As `set_log_level`.
        """
        request = telemetry_pb2.TakeSpansRequest(callers=callers)
        return (await _extended(self._telemetry.TakeSpans(request, timeout=timeout))).spans

    async def create_sandbox(self, request: agent_pb2.CreateSandboxRequest, timeout: float = CALL_TIMEOUT) -> None:
        """Make what the pod's containers share."""
        await _answered(self._calls.CreateSandbox(request, timeout=timeout))

    async def destroy_sandbox(self) -> None:
        """End all containers; the agent exits, and with it the guest."""
        request = agent_pb2.DestroySandboxRequest()
        await _answered(self._calls.DestroySandbox(request, timeout=DESTROY_TIMEOUT))

    async def require_seccomp(self) -> None:
        """Make sure that it can apply seccomp profiles.

        Raises:
            Unimplemented: It cannot.
        """
        details = await _answered(self._calls.GetGuestDetails(agent_pb2.GuestDetailsRequest(), timeout=CALL_TIMEOUT))
        if not details.agent_details.supports_seccomp:
            raise errors.Unimplemented(
                "disable_guest_seccomp is false, but the guest's agent cannot apply seccomp profiles: use a guest image"
                " whose agent can, or set it to true"
            )

    async def create_container(self, request: agent_pb2.CreateContainerRequest, timeout: float) -> None:
        """Make a container up to its start."""
        await _answered(self._calls.CreateContainer(request, timeout=timeout))

    async def remove_container(self, container_id: str) -> None:
        """Remove a container with whatever still runs in it, and what was mounted for it."""
        request = agent_pb2.RemoveContainerRequest(container_id=container_id)
        await _answered(self._calls.RemoveContainer(request, timeout=CALL_TIMEOUT))

    async def next_oom(self) -> str:
        """Wait until the kernel has killed in a container for want of memory; returns the container's id."""
        return (await _answered(self._calls.GetOOMEvent(agent_pb2.GetOOMEventRequest()))).container_id

    async def copy_file(self, request: agent_pb2.CopyFileRequest) -> None:
        """Send a directory, a link, or a piece of a file."""
        await _answered(self._calls.CopyFile(request, timeout=CALL_TIMEOUT))

    async def start_container(self, container_id: str) -> None:
        """Let a created container's process run."""
        request = agent_pb2.StartContainerRequest(container_id=container_id)
        await _answered(self._calls.StartContainer(request, timeout=CALL_TIMEOUT))

    async def exec_process(self, request: agent_pb2.ExecProcessRequest) -> None:
        """Start a further process in a container."""
        await _answered(self._calls.ExecProcess(request, timeout=CALL_TIMEOUT))

    async def signal_process(self, container_id: str, exec_id: str, signal: int) -> None:
        """Signal a process; SIGKILL to the first one reaches all of the container."""
        request = agent_pb2.SignalProcessRequest(container_id=container_id, exec_id=exec_id, signal=signal)
        await _answered(self._calls.SignalProcess(request, timeout=SIGNAL_TIMEOUT))

    async def wait_process(self, container_id: str, exec_id: str) -> int:
        """Wait for a process's end, after its outputs were read to theirs; returns its status."""
        request = agent_pb2.WaitProcessRequest(container_id=container_id, exec_id=exec_id)
        return (await _answered(self._calls.WaitProcess(request))).status & 0xFF

    async def write_stdin(self, container_id: str, exec_id: str, data: bytes, offset: int) -> None:
        """Pass bytes to a process's stdin, after so many before; returns when it has room for more.

        Raises:
            StreamCut: Whether it has them is not known.
        """
        request = agent_pb2.WriteStreamRequest(container_id=container_id, exec_id=exec_id, data=data)
        await self._passed(self._calls.WriteStdin(request, metadata=self._counted(offset)))

    async def close_stdin(self, container_id: str, exec_id: str) -> None:
        """End a process's stdin."""
        request = agent_pb2.CloseStdinRequest(container_id=container_id, exec_id=exec_id)
        await _answered(self._calls.CloseStdin(request, timeout=CALL_TIMEOUT))

    async def read_stdout(self, container_id: str, exec_id: str, offset: int) -> bytes:
        """The next bytes of a process's output, after so many before; empty at its end.

        Raises:
            StreamCut: Some may be missing before those that are read next.
        """
        request = agent_pb2.ReadStreamRequest(container_id=container_id, exec_id=exec_id, len=READ_SIZE)
        return (await self._passed(self._calls.ReadStdout(request, metadata=self._counted(offset)))).data

    async def read_stderr(self, container_id: str, exec_id: str, offset: int) -> bytes:
        """As `read_stdout`."""
        request = agent_pb2.ReadStreamRequest(container_id=container_id, exec_id=exec_id, len=READ_SIZE)
        return (await self._passed(self._calls.ReadStderr(request, metadata=self._counted(offset)))).data

    async def resize_terminal(self, container_id: str, exec_id: str, rows: int, columns: int) -> None:
        """Give a process's terminal another size, in characters."""
        request = agent_pb2.TtyWinResizeRequest(
            container_id=container_id, exec_id=exec_id, row=rows, column=columns
        )  # fmt: skip
        await _answered(self._calls.TtyWinResize(request, timeout=CALL_TIMEOUT))

    async def pause_container(self, container_id: str) -> None:
        """Freeze all of a container's processes."""
        request = agent_pb2.PauseContainerRequest(container_id=container_id)
        await _answered(self._calls.PauseContainer(request, timeout=CALL_TIMEOUT))

    async def resume_container(self, container_id: str) -> None:
        """Let a paused container go on."""
        request = agent_pb2.ResumeContainerRequest(container_id=container_id)
        await _answered(self._calls.ResumeContainer(request, timeout=CALL_TIMEOUT))

    async def update_container(self, container_id: str, resources: oci_pb2.LinuxResources) -> None:
        """Give a container other limits."""
        request = agent_pb2.UpdateContainerRequest(container_id=container_id, resources=resources)
        await _answered(self._calls.UpdateContainer(request, timeout=CALL_TIMEOUT))

    async def stats_container(self, container_id: str) -> agent_pb2.StatsContainerResponse:
        """What a container uses."""
        request = agent_pb2.StatsContainerRequest(container_id=container_id)
        return await _answered(self._calls.StatsContainer(request, timeout=CALL_TIMEOUT))


class _Bounded:
    """A connection whose answers are no longer than they may be; a `Caller`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """As `kata_py.ttrpc.client.Client.call`."""
        answer = await self._caller.call(service, method, payload, timeout=timeout, metadata=metadata)
        longest = ANSWERS_MAX.get(method, ANSWER_MAX)
        if len(answer) > longest:
            text = f"an answer to {method} of {len(answer)} bytes, at most {longest} are taken"
            raise StatusError(Code.RESOURCE_EXHAUSTED, text)
        return answer


# What may take effect twice: it is called again where an answer was lost.
REPEATABLE = frozenset({
    "Check", "CloseStdin", "GetGuestDetails", "GetMetrics", "GetOOMEvent", "PauseContainer", "ReseedRandomDev",
    "ResumeContainer", "SetGuestDateTime", "SignalProcess", "StatsContainer", "UpdateContainer", "WaitProcess",
})  # fmt: skip
COUNTED = frozenset({"ReadStderr", "ReadStdout", "WriteStdin"})  # and these, by an agent that counts the bytes


async def probe(client: Client) -> None:
    """Ask whether the agent is there, over a connection that may end at whoever is between."""
    try:
        await HealthClient(client).Check(health_pb2.CheckRequest())
    except DecodeError as error:  # to who dials anew, an agent that answers so is one that does not come back
        raise StatusError(Code.INTERNAL, "an answer that is not of the call's type") from error


async def _extended(call: Awaitable[_T]) -> _T:
    """The answer of a service that is ours alone; upstream's agent takes its name for a wrong argument."""
    try:
        return await _answered(call)
    except (errors.InvalidArgument, errors.Unimplemented) as error:
        raise errors.Unimplemented(f"this guest's agent has no such call: {error}") from error


async def _answered(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except StatusError as error:
        raise _MEANINGS.get(error.code, SandboxError)(f"agent: {_told(error.message)}") from error
    except ConnectionClosed as error:
        raise Unavailable(f"the agent is gone: {error}") from error
    except DecodeError as error:  # the guest is not trusted to answer in messages
        raise SandboxError("agent: an answer that is not of the call's type") from error


def _told(message: str) -> str:
    """An agent's words as they may be passed on: to logs, managers, and whoever reads a pod's events at a terminal."""
    cut = message if len(message) <= MESSAGE_MAX else f"{message[:MESSAGE_MAX]}…"
    return _CONTROL.sub("\ufffd", cut)
