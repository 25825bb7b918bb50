"""What reaches the agent, and what it answers.

Requests are decoded as the agent does it and put into the form it works with. Its handlers are not called here: they
mount, kill and set clocks. Answers go through the shim's side: a value, or a SandboxError.
"""

from __future__ import annotations

from typing import Any, cast

from hypothesis import strategies as st

from kata_protos import agent_pb2
from kata_protos.agent_ttrpc import AgentService
from kata_py.oci import wire
from kata_py.oci.errors import SpecError
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.stats import metrics_v1, metrics_v2
from kata_py.shim.metrics import of_agent
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.service import bind
from kata_py.ttrpc.status import Code
from tests.bundle import process, spec
from tests.fuzz.target import Target, mutated, run

METHODS = sorted(AgentService.__abstractmethods__)


def _handler(name: str) -> Any:
    async def handle(self: object, request: Any, context: Context) -> Any:
        try:
            match name:
                case "CreateContainer":
                    wire.from_agent(request.OCI)
                case "ExecProcess":
                    wire.process_from_agent(request.process)
                case "UpdateContainer":
                    wire.resources_from_agent(request.resources)
        except SpecError as error:
            raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
        return agent_pb2.Metrics()

    return handle


_Agent = cast(Any, type("_Agent", (AgentService,), {name: _handler(name) for name in METHODS}))


class _Answer:
    """A connection on which every call has the same answer."""

    closed = False

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    async def call(self, *args: object, **kwargs: object) -> bytes:
        return self._payload


async def _check(case: tuple[str, bytes]) -> None:
    name, payload = case
    try:
        unary = bind(_Agent().ttrpc_methods()[name]).unary
        assert unary is not None
        await unary(payload, Context("grpc.AgentService", name))
    except StatusError:
        pass
    agent = Agent(cast(Client, _Answer(payload)))
    for call in (
        agent.wait_process("c", ""), agent.read_stdout("c", "", 0), agent.next_oom(), agent.memory_block(),
        agent.check(1), agent.volume_stats("/"), agent.packet_filter(ipv6=False), agent.require_seccomp(),
    ):  # fmt: skip
        try:
            await call
        except SandboxError:
            pass
    try:
        stats = await agent.stats_container("c")
        metrics_v1(stats).SerializeToString()
        metrics_v2(stats).SerializeToString()
        told = of_agent(await agent.metrics(1))
    except SandboxError:
        return
    assert not any(line.startswith(("kata_shim_", "kata_hypervisor_")) for line in told.splitlines())


_u64 = st.sampled_from([0, 1, (1 << 63), (1 << 64) - 1])
_stats = st.builds(
    lambda key, number, op: agent_pb2.StatsContainerResponse(
        cgroup_stats=agent_pb2.CgroupStats(
            memory_stats=agent_pb2.MemoryStats(stats={key: number}, cache=number),
            cpu_stats=agent_pb2.CpuStats(cpu_usage=agent_pb2.CpuUsage(total_usage=number, percpu_usage=[number] * 3)),
            blkio_stats=agent_pb2.BlkioStats(
                io_service_bytes_recursive=[agent_pb2.BlkioStatsEntry(major=number, op=op, value=number)]
            ),
        ),
        network_stats=[agent_pb2.NetworkStats(name=op, rx_bytes=number)],
    ).SerializeToString(),
    st.sampled_from(["anon", "cache", "rss", "usage", "swap", "ByteSize", "total_rss"]) | st.text(max_size=9),
    _u64,
    st.sampled_from(["read", "Write", "rios", "x"]),
)
_create = st.just(
    agent_pb2.CreateContainerRequest(
        container_id="c", OCI=wire.to_agent(cast(Any, spec("c", "rootfs", process(["true"]))))
    ).SerializeToString()
)
_figures = st.builds(
    lambda text: agent_pb2.Metrics(metrics=text).SerializeToString(),
    st.text(st.sampled_from("\n\r\x85\u2028kata_shim_agent_{} 1\x1b#"), max_size=60),
)


TARGET = Target(
    "agent_requests",
    st.tuples(st.sampled_from(METHODS), mutated(_stats | _create | _figures)),
    lambda case: run(_check(case)),
    lambda data: ("CreateContainer", data),
)
