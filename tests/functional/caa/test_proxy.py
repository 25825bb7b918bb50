"""The proxy of a pod's agent: over real TLS to a server that comes late, goes, and comes back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kata_caa import proxy as proxies
from kata_caa.proxy import AgentProxy, Endpoint, ProxyError
from kata_caa.rewrite import METHOD, SERVICE
from kata_caa.tls import Authority, Pair, Trust, kept
from kata_protos import agent_pb2, health_pb2, oci_pb2
from kata_protos.health_ttrpc import HealthService
from kata_py.sandbox.agent import REPEATABLE, probe
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.redial import redialling
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code

NAME = "podvm-web-01234567"
HOST = "127.0.0.1"
BOUND = 10.0  # seconds


class Healthy(HealthService):
    async def Check(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Version(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.VersionCheckResponse:
        return health_pb2.VersionCheckResponse()


@dataclass
class Machine:
    """A pod VM: a forwarder's TLS listener with an agent behind it, in this process."""

    authority: Authority
    name: str = NAME
    port: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    created: list[agent_pb2.CreateContainerRequest] = field(default_factory=list)
    transports: list[asyncio.BaseTransport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._agent = Server()
        self._agent.add(Healthy())
        self._agent.add_raw(SERVICE, METHOD, self._create)
        self._agent.add_raw(SERVICE, "Echo", self._echo)
        self._agent.add_raw(SERVICE, "ReadStdout", self._wait)
        self._agent.add_raw(SERVICE, "StartContainer", self._wait)
        self._listener: asyncio.Server | None = None

    async def listen(self, tls: ssl.SSLContext | None = None) -> None:
        def accept() -> asyncio.BaseProtocol:
            protocol = self._agent.accept()
            made = protocol.connection_made

            def connection_made(transport: asyncio.BaseTransport) -> None:
                self.transports.append(transport)
                made(transport)

            protocol.connection_made = connection_made  # type: ignore[method-assign]
            return protocol

        loop = asyncio.get_running_loop()
        context = tls or server_context(self.authority.issue(self.name), self.authority.client)
        self._listener = await loop.create_server(accept, HOST, self.port, ssl=context)
        self.port = self._listener.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End all connections where they are."""
        while self.transports:
            transport = self.transports.pop()
            assert isinstance(transport, asyncio.Transport)
            transport.abort()

    async def away(self) -> None:
        """Cut, and refuse connections until `listen`."""
        assert self._listener is not None
        self._listener.close()
        self.cut()

    async def aclose(self) -> None:
        self.gate.set()
        if self._listener is not None:
            await self.away()
        self._agent.close()
        await self._agent.wait_closed(BOUND)

    async def _create(self, payload: bytes, context: Context) -> bytes:
        self.created.append(agent_pb2.CreateContainerRequest.FromString(payload))
        return b""

    async def _echo(self, payload: bytes, context: Context) -> bytes:
        return payload

    async def _wait(self, payload: bytes, context: Context) -> bytes:
        self.entered.set()
        await self.gate.wait()
        return b""


def server_context(pair: Pair, client: Pair) -> ssl.SSLContext:
    from kata_caa.forwarder.tls import Material, server_context

    return server_context(Material(pair.certificate, pair.key, client.certificate))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "PAUSE", 0.02)
    monkeypatch.setattr(proxies, "JITTER", 0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return kept(tmp_path / "tls")


@pytest.fixture
async def machine(authority: Authority) -> AsyncIterator[Machine]:
    machine = Machine(authority)
    await machine.listen()
    yield machine
    await machine.aclose()


def endpoint(machine: Machine, authority: Authority, name: str = NAME) -> Endpoint:
    context = Trust(authority.ca.certificate, authority.client).context()
    return Endpoint(HOST, machine.port, name, context)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.ttrpc"


@asynccontextmanager
async def proxied(
    path: Path, machine: Machine, timeout: float = BOUND, redial: float = BOUND
) -> AsyncIterator[AgentProxy]:
    async with AgentProxy(path, endpoint(machine, machine.authority), timeout=timeout, redial=redial) as proxy:
        yield proxy


async def test_an_agent_that_answers_is_ready_and_its_calls_pass(machine: Machine, path: Path) -> None:
    async with proxied(path, machine) as proxy:
        await proxy.ready()
        assert path.stat().st_mode & 0o777 == 0o600
        async with connect(UnixAddress(str(path)), timeout=5) as client, asyncio.timeout(BOUND):
            big = bytes(3 << 20)
            assert await client.call(SERVICE, "Echo", big) == big
            answers = await asyncio.gather(*(client.call(SERVICE, "Echo", bytes([i])) for i in range(100)))
            assert answers == [bytes([i]) for i in range(100)]
        assert (proxy.stats.connections, proxy.stats.losses) == (1, 0)


async def test_one_that_comes_late_is_waited_for(machine: Machine, path: Path) -> None:
    await machine.away()
    async with proxied(path, machine) as proxy:
        waiting = asyncio.create_task(proxy.ready())
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        await machine.listen()
        async with asyncio.timeout(BOUND):
            await waiting


async def test_one_that_never_comes_is_an_error_that_says_what_was_met(machine: Machine, path: Path) -> None:
    await machine.away()
    async with proxied(path, machine, timeout=0.2) as proxy:
        with pytest.raises(
            ProxyError, match=r"127.0.0.1:\d+ does not answer, tried \d+ times in 0 s: .*Connect call failed"
        ):
            await proxy.ready()


async def test_a_machine_of_another_name_or_authority_is_refused_at_once(
    machine: Machine, path: Path, tmp_path: Path, authority: Authority
) -> None:
    other = Endpoint(HOST, machine.port, "podvm-other", Trust(authority.ca.certificate, authority.client).context())
    stranger = endpoint(machine, kept(tmp_path / "others"))
    for wrong in (other, stranger):
        async with AgentProxy(path, wrong, timeout=60, redial=60) as proxy, asyncio.timeout(BOUND):
            with pytest.raises(ProxyError, match="is not podvm-"):
                await proxy.ready()


async def test_whoever_is_not_the_adaptor_is_not_let_in(machine: Machine, path: Path, tmp_path: Path) -> None:
    stranger = Trust(machine.authority.ca.certificate, kept(tmp_path / "others").client).context()
    async with AgentProxy(path, Endpoint(HOST, machine.port, NAME, stranger), timeout=0.2, redial=1) as proxy:
        with pytest.raises(ProxyError, match="does not answer"):
            await proxy.ready()


async def test_a_lost_machine_answers_what_was_under_way_and_is_dialled_anew(machine: Machine, path: Path) -> None:
    async with proxied(path, machine) as proxy, connect(UnixAddress(str(path)), timeout=5) as client:
        call = asyncio.create_task(client.call(SERVICE, "StartContainer", b""))
        await machine.entered.wait()
        await machine.away()
        with pytest.raises(StatusError) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
        later = asyncio.create_task(client.call(SERVICE, "Echo", b"later"))
        await asyncio.wait([later], timeout=0.1)
        assert not later.done()
        await machine.listen()
        async with asyncio.timeout(BOUND):
            assert await later == b"later"
        assert (proxy.stats.dials, proxy.stats.losses) == (2, 1)


async def test_a_machine_that_stays_away_is_told_to_be_lost(machine: Machine, path: Path) -> None:
    async with proxied(path, machine, redial=0.2):
        address = UnixAddress(str(path))
        async with redialling(address, probe, timeout=5, patience=60, repeatable=REPEATABLE) as client:
            await client.call(SERVICE, "Echo", b"")
            await machine.away()
            async with asyncio.timeout(BOUND):
                await client.wait_closed()
        async with connect(address, timeout=5) as client:
            with pytest.raises(StatusError, match=r"the pod VM is lost: the forwarder at 127\.0\.0\.1"):
                await probe(client)


async def test_the_next_adaptor_s_proxy_takes_the_place_of_the_last_one_s(machine: Machine, path: Path) -> None:
    async with proxied(path, machine) as first:
        await first.ready()
        address = UnixAddress(str(path))
        async with redialling(address, probe, timeout=5, patience=BOUND, repeatable=REPEATABLE) as client:
            reading = asyncio.create_task(client.call(SERVICE, "ReadStdout", b""))
            await machine.entered.wait()
            async with proxied(path, machine):
                await first.__aexit__()
                machine.gate.set()
                async with asyncio.timeout(BOUND):
                    assert await reading == b""


async def test_what_only_the_node_knows_is_added(machine: Machine, path: Path) -> None:
    spec = oci_pb2.Spec(Annotations={"io.katacontainers.config.hypervisor.default_gpus": "1"})
    request = agent_pb2.CreateContainerRequest(container_id="c1", OCI=spec)
    async with proxied(path, machine), connect(UnixAddress(str(path)), timeout=5) as client:
        await client.call(SERVICE, METHOD, request.SerializeToString(), timeout=BOUND)
    assert machine.created[0].OCI.Annotations["cdi.k8s.io/peer-pods"] == "nvidia.com/gpu=all"


async def test_a_socket_that_cannot_be_made_is_an_error(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ProxyError, match="cannot be listened at"):
        async with proxied(tmp_path / "missing" / "agent.ttrpc", machine):
            raise AssertionError("it listens")
