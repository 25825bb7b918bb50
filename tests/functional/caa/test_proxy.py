"""The agent proxy with real TLS and real sockets: what a runtime meets while its pod VM comes, breaks and goes."""

from __future__ import annotations

import asyncio
import base64
import datetime
import itertools
import logging
import os
import resource
import socket
import ssl
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from kata_caa import certificates, dialing
from kata_caa.errors import ProxyError
from kata_caa.forwarder import service
from kata_caa.forwarder.service import Forwarder
from kata_caa.forwarder.tls import Material, server_context
from kata_caa.proxy import AgentProxy, Endpoint
from kata_caa.rewrite import CDI, GPUS, TARGET_PATH, Rewrite
from kata_caa.tls import Profile, Tls
from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.health_pb2 import HealthCheckResponse
from kata_py.sandbox.agent import REPEATABLE, probe
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.redial import redialling
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code
from tests.tasks import until

NAME = "podvm-web-12345678"
PATIENCE = 10.0
MESSAGE_MAX = (4 << 20) - 64

_serial = itertools.count(1)


@pytest.fixture
def top(short_tmp: Path) -> Path:
    path = short_tmp / f"proxy-{next(_serial)}"
    path.mkdir()
    return path


@pytest.fixture
def tls(top: Path) -> Tls:
    return Tls(Profile(), top / "tls")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other as fast as a test likes them to."""
    monkeypatch.setattr(dialing, "PAUSE_FIRST", 0.01)
    monkeypatch.setattr(dialing, "PAUSE_MAX", 0.05)
    monkeypatch.setattr(dialing, "JITTER", 0.001)


class Agent:
    """An agent behind TLS at a port of this machine, which comes and goes.

    Attributes:
        port: Kept from one life to the next.
        held: Calls that wait in `Hold`.
        created: The requests of `CreateContainer`.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.health = HealthCheckResponse.SERVING
        self.held = 0
        self.created: list[agent.CreateContainerRequest] = []
        self.release = asyncio.Event()
        self.connections: list[asyncio.BaseTransport] = []
        self.port = free_port()
        self._listener: asyncio.Server | None = None
        self._server: Server | None = None

    def endpoint(self, context: ssl.SSLContext | None, name: str = NAME) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, name, context)

    async def start(self) -> None:
        self._server = Server(cancel_abandoned=True)
        self._server.add_raw("grpc.Health", "Check", self._check)
        self._server.add_raw("grpc.AgentService", "CreateContainer", self._create)
        self._server.add_raw("t", "Echo", self._echo)
        self._server.add_raw("t", "Hold", self._hold)
        self._server.add_raw("grpc.AgentService", "WaitProcess", self._hold)
        self._server.add_raw("t", "Size", self._size)
        server = self._server

        def accept() -> asyncio.BaseProtocol:
            link = server.accept()
            made = link.connection_made

            def connection_made(transport: asyncio.BaseTransport) -> None:
                self.connections.append(transport)
                made(transport)

            link.connection_made = connection_made  # type: ignore[method-assign]
            return link

        self._listener = await asyncio.get_running_loop().create_server(
            accept, "127.0.0.1", self.port, ssl=self.context, reuse_address=True
        )

    async def stop(self) -> None:
        """As a machine that is reset: connections break, the port refuses."""
        if self._listener is not None and self._server is not None:
            self._listener.close()
            self.cut()
            self._server.close()
            await self._server.wait_closed(1.0)
            self._listener = None

    def cut(self) -> None:
        """Break the connections; new ones are taken."""
        for transport in self.connections:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        self.connections.clear()

    async def _check(self, payload: bytes, context: Context) -> bytes:
        return HealthCheckResponse(status=self.health).SerializeToString()

    async def _create(self, payload: bytes, context: Context) -> bytes:
        self.created.append(agent.CreateContainerRequest.FromString(payload))
        return b""

    async def _echo(self, payload: bytes, context: Context) -> bytes:
        return payload

    async def _size(self, payload: bytes, context: Context) -> bytes:
        return b"x" * int(payload)

    async def _hold(self, payload: bytes, context: Context) -> bytes:
        self.held += 1
        await self.release.wait()
        return payload


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def listening(tls: Tls, name: str = NAME) -> ssl.SSLContext:
    """As the forwarder in a new pod VM listens."""
    issued = tls.issue(name)
    assert issued.server is not None
    return server_context(Material(issued.server.certificate, issued.server.key, issued.client_ca))


def dialer(tls: Tls) -> ssl.SSLContext:
    context = tls.dialer(tls.issue(NAME).material, NAME).context
    assert context is not None
    return context


@asynccontextmanager
async def machine(tls: Tls, *, up: bool = True) -> AsyncIterator[Agent]:
    made = Agent(listening(tls))
    if up:
        await made.start()
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def proxied(
    top: Path,
    endpoint: Endpoint,
    *,
    timeout: float = PATIENCE,
    patience: float = PATIENCE,
    loss_after: float = 60.0,
    rewrite: Rewrite | None = None,
    reached: bool = False,
) -> AsyncIterator[AgentProxy]:
    socket = top / "agent.ttrpc"
    options = {"timeout": timeout, "patience": patience, "loss_after": loss_after}
    async with AgentProxy(socket, endpoint, rewrite=rewrite, reached=reached, **options) as made:
        yield made


@asynccontextmanager
async def runtime(top: Path) -> AsyncIterator[Client]:
    async with connect(UnixAddress(str(top / "agent.ttrpc")), timeout=PATIENCE) as client:
        yield client


async def echo(client: Client, text: bytes = b"hello", timeout: float = PATIENCE) -> None:
    assert await client.call("t", "Echo", text, timeout=timeout) == text


async def test_the_socket_is_there_at_once_and_for_this_user_alone(top: Path, tls: Tls) -> None:
    async with machine(tls, up=False) as vm, proxied(top, vm.endpoint(dialer(tls))):
        found = (top / "agent.ttrpc").stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
    assert not (top / "agent.ttrpc").exists()


async def test_it_is_ready_when_the_agent_answers(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))) as made:
        await made.ready()
        async with runtime(top) as client:
            await echo(client)
            assert made.stats.connections == 1
        await until(lambda: made.stats.connections == 0)
        stats = made.stats
        assert (stats.accepted, stats.requests, stats.redials, stats.refused) == (1, 1, 0, 0)
        assert stats.bytes_to_vm > 5 < stats.bytes_to_shim


async def test_it_is_ready_without_tls(top: Path) -> None:
    vm = Agent(None)
    await vm.start()
    async with proxied(top, vm.endpoint(None)) as made:
        await made.ready()
        async with runtime(top) as client:
            await echo(client)
    await vm.stop()


async def test_it_waits_for_a_machine_that_comes_late(top: Path, tls: Tls) -> None:
    async with machine(tls, up=False) as vm, proxied(top, vm.endpoint(dialer(tls))) as made, runtime(top) as client:
        ready = asyncio.create_task(made.ready())
        early = asyncio.create_task(client.call("t", "Echo", b"early", timeout=PATIENCE))
        done, _ = await asyncio.wait([ready, early], timeout=0.2)
        assert not done
        await vm.start()
        async with asyncio.timeout(PATIENCE):
            await ready
            assert await early == b"early"


async def test_it_waits_for_an_agent_that_comes_later_than_its_machine(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))) as made:
        vm.health = HealthCheckResponse.NOT_SERVING
        ready = asyncio.create_task(made.ready())
        done, _ = await asyncio.wait([ready], timeout=0.2)
        assert not done
        vm.health = HealthCheckResponse.SERVING
        async with asyncio.timeout(PATIENCE):
            await ready


async def test_a_machine_that_never_comes_is_an_error_that_says_what_was_met(top: Path, tls: Tls) -> None:
    async with machine(tls, up=False) as vm, proxied(top, vm.endpoint(dialer(tls)), timeout=0.3) as made:
        words = rf"^pod VM {NAME} at 127.0.0.1:{vm.port} was not ready within 0.3 s, in \d+ attempts: .*refused"
        with pytest.raises(ProxyError, match=words + r".*, for 0.\d s; look at"):
            await made.ready()


async def test_an_agent_that_never_answers_is_told_from_a_machine_that_does_not(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls)), timeout=0.3) as made:
        vm.health = HealthCheckResponse.NOT_SERVING
        with pytest.raises(ProxyError, match=r"agent does not serve|agent has not answered"):
            await made.ready()


async def test_waiting_can_be_cancelled(top: Path, tls: Tls) -> None:
    async with machine(tls, up=False) as vm, proxied(top, vm.endpoint(dialer(tls))) as made:
        ready = asyncio.create_task(made.ready())
        await asyncio.wait([ready], timeout=0.05)
        ready.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ready


async def refusal(made: AgentProxy) -> str:
    """What `ready` says at once."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ProxyError) as caught:
        await made.ready()
    assert loop.time() - began < PATIENCE / 2
    return str(caught.value)


async def test_a_machine_with_another_s_certificate_is_refused_at_once(top: Path, tls: Tls) -> None:
    other = Tls(Profile(), top / "other")
    async with machine(other) as vm, proxied(top, vm.endpoint(dialer(tls)), timeout=60.0) as made:
        assert "the certificate of pod VM" in await refusal(made)


async def test_a_machine_of_another_name_is_refused_at_once(top: Path, tls: Tls) -> None:
    vm = Agent(listening(tls, "podvm-db-12345678"))
    await vm.start()
    async with proxied(top, vm.endpoint(dialer(tls)), timeout=60.0) as made:
        assert "Hostname mismatch" in await refusal(made)
        assert "another machine may have its address" in await refusal(made)
    await vm.stop()


async def test_a_certificate_that_has_expired_is_refused_at_once(top: Path, tls: Tls) -> None:
    dialled = dialer(tls)
    _, authority = tls._authorities.current()
    past = datetime.datetime.now(datetime.UTC) - certificates.VALIDITY - datetime.timedelta(days=1)
    dated = certificates.make_authority(past)
    server = dated.issue(NAME, past)
    dialled.load_verify_locations(cadata=dated.ca.certificate)
    vm = Agent(server_context(Material(server.certificate, server.key, authority.client.certificate)))
    await vm.start()
    async with proxied(top, vm.endpoint(dialled), timeout=60.0) as made:
        assert "expired" in await refusal(made)
    await vm.stop()


@contextmanager
def strict(context: ssl.SSLContext) -> Iterator[int]:
    """A listener that tells whom it refuses why, as Go's does and asyncio's does not; gives its port."""

    def serve() -> None:
        while True:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as client:
                if closing:
                    return
                with suppress(ssl.SSLError):
                    client.do_handshake()
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass

    closing: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        closing.append(None)
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join(PATIENCE)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_machine_that_does_not_take_our_certificate_is_given_up_at_once(
    top: Path, tls: Tls, version: ssl.TLSVersion
) -> None:
    issued = tls.issue(NAME)
    assert issued.server is not None
    stranger = Tls(Profile(), top / "other").issue(NAME)
    context = server_context(Material(issued.server.certificate, issued.server.key, stranger.client_ca))
    context.maximum_version = version
    with strict(context) as port:
        async with proxied(top, Endpoint("127.0.0.1", port, NAME, dialer(tls)), timeout=60.0) as made:
            assert "alert" in await refusal(made)
            async with runtime(top) as client:
                with pytest.raises((ConnectionClosed, StatusError)):
                    await echo(client)


async def test_a_machine_without_tls_is_given_up_at_once(top: Path, tls: Tls) -> None:
    closing: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing.append(writer)
        await reader.read(10)
        writer.write(b"\x00\x00\x00\x02\x00\x00\x00\x01\x02\x00\x0a\x00")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxied(top, Endpoint("127.0.0.1", port, NAME, dialer(tls)), timeout=60.0) as made:
        assert "wrong version number; compare" in await refusal(made)
    server.close()
    for writer in closing:
        writer.close()


async def test_two_connections_of_the_runtime_have_one_each_to_the_machine(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))) as made:
        async with runtime(top) as one, runtime(top) as other:
            await asyncio.gather(echo(one), echo(other))
            assert len(vm.connections) == 2
            assert made.stats.connections == 2
        await until(lambda: made.stats.connections == 0)
        await until(lambda: all(transport.is_closing() for transport in vm.connections))
        async with runtime(top) as later:
            await echo(later)


async def test_when_the_machine_breaks_calls_under_way_fail_and_later_ones_go_to_the_new_connection(
    top: Path, tls: Tls
) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))) as made, runtime(top) as client:
        await made.ready()
        held = [asyncio.create_task(client.call("t", "Hold", b"", timeout=PATIENCE)) for _ in range(3)]
        await until(lambda: vm.held == 3)
        await vm.stop()
        for call in held:
            with pytest.raises(StatusError, match="connection to the pod VM was lost") as caught:
                await call
            assert caught.value.code is Code.UNAVAILABLE
        waiting = [asyncio.create_task(echo(client, bytes([i]))) for i in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=0.1)
        assert not done
        await vm.start()
        await asyncio.gather(*waiting)
        assert not client.closed
        assert made.stats.redials == 1


async def test_a_wait_for_a_process_outlives_a_break(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))), runtime(top) as client:
        waiting = asyncio.create_task(AgentClient(client).WaitProcess(agent.WaitProcessRequest(), timeout=PATIENCE))
        await until(lambda: vm.held == 1)
        await vm.stop()
        await vm.start()
        await until(lambda: vm.held == 2)
        vm.release.set()
        assert await waiting == agent.WaitProcessResponse()


async def test_a_break_is_followed_by_a_new_connection_at_once(
    top: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))) as made, runtime(top) as client:
        monkeypatch.setattr(dialing, "PAUSE_FIRST", 60.0)
        for _ in range(3):
            await echo(client)
            vm.cut()
            await until(lambda: len(vm.connections) == 1)
        await echo(client)
        assert made.stats.redials == 3


async def test_a_machine_that_hangs_up_again_and_again_is_dialled_with_pauses(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[asyncio.StreamWriter] = []
    taken: list[float] = []

    def pauses() -> Iterator[float]:
        while True:
            taken.append(0.01)
            yield 0.01

    monkeypatch.setattr(dialing, "pauses", pauses)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxied(top, Endpoint("127.0.0.1", port, NAME, None)), runtime(top):
        await until(lambda: len(connections) == 5)
        assert len(taken) >= 4
    server.close()


async def test_calls_wait_for_a_lost_machine_no_longer_than_they_may(top: Path, tls: Tls) -> None:
    async with (
        machine(tls) as vm,
        proxied(top, vm.endpoint(dialer(tls)), patience=0.2) as made,
        runtime(top) as client,
    ):
        await made.ready()
        await echo(client)
        await vm.stop()
        for _ in range(2):  # the first one waits, the second does not
            with pytest.raises(StatusError, match=r"has not been reached for 0\.2 s") as caught:
                await echo(client)
            assert caught.value.code is Code.UNAVAILABLE
        await vm.start()
        await until(lambda: vm.connections)
        await echo(client)


async def test_when_the_runtime_leaves_its_connection_to_the_machine_ends(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))):
        async with runtime(top) as client:
            hold = asyncio.create_task(client.call("t", "Hold", b"", timeout=PATIENCE))
            await until(lambda: vm.held)
        with pytest.raises(ConnectionClosed):
            await hold
        await until(lambda: all(transport.is_closing() for transport in vm.connections))


async def test_a_runtime_that_leaves_ends_the_dialling(top: Path, tls: Tls) -> None:
    async with machine(tls, up=False) as vm, proxied(top, vm.endpoint(dialer(tls))) as made:
        async with runtime(top):
            await until(lambda: made.stats.connections == 1)
        await until(lambda: made.stats.connections == 0)


async def test_a_defect_of_ours_ends_the_runtime_s_connection_and_is_logged(
    top: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(dialing, "connect", fail)
    async with proxied(top, Endpoint("127.0.0.1", 1, NAME, None)), runtime(top) as client:
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
    assert "RuntimeError: broken" in caplog.text


async def test_when_the_proxy_ends_the_runtime_s_connections_end(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, AsyncExitStack() as stack:
        async with proxied(top, vm.endpoint(dialer(tls))):
            client = await stack.enter_async_context(runtime(top))
            await echo(client)
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()


async def test_the_socket_of_an_adaptor_that_was_killed_is_replaced(top: Path, tls: Tls) -> None:
    path = top / "agent.ttrpc"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(Tls(Profile(), top / "tls")))) as made:
        await made.ready()
        async with runtime(top) as client:
            await echo(client)


async def test_the_next_adaptor_takes_the_socket_of_one_that_lives_and_keeps_it(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, AsyncExitStack() as last:
        await last.enter_async_context(proxied(top, vm.endpoint(dialer(tls))))
        async with runtime(top) as old, proxied(top, vm.endpoint(dialer(tls))):
            await echo(old)  # a connection stays where it was made
            await last.aclose()
            async with runtime(top) as client:
                await echo(client)


async def test_a_machine_that_stays_away_is_told_to_be_lost(top: Path, tls: Tls) -> None:
    address = UnixAddress(str(top / "agent.ttrpc"))
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls)), patience=0.1, loss_after=0.3) as proxy:
        await proxy.ready()
        async with redialling(address, probe, timeout=5, patience=60, repeatable=REPEATABLE) as client:
            await client.call("t", "Echo", b"hello")
            await vm.stop()
            async with asyncio.timeout(PATIENCE):
                await client.wait_closed()
        async with runtime(top) as late:
            with pytest.raises(StatusError, match=r"the pod VM is lost: .* has not been reached for 0\.3 s"):
                await probe(late)


async def test_after_a_restart_of_the_adaptor_a_dead_machine_is_given_up_as_soon(top: Path, tls: Tls) -> None:
    """It was up before, so nobody waits for it to boot."""
    async with machine(tls, up=False) as vm:
        waits = proxied(top, vm.endpoint(dialer(tls)), timeout=3600.0, patience=0.1, loss_after=0.3, reached=True)
        async with waits as made:
            assert made.met == "it was not dialled yet"
            async with runtime(top) as client, asyncio.timeout(PATIENCE):
                await client.wait_closed()
            async with runtime(top) as late:
                with pytest.raises(StatusError, match=r"the pod VM is lost: .* has not been reached for 0\.3 s"):
                    await probe(late)


async def test_a_directory_that_is_not_there_is_an_error(top: Path, tls: Tls) -> None:
    with pytest.raises(ProxyError, match="No such file"):
        async with proxied(top / "none", Endpoint("127.0.0.1", 1, NAME, None)):
            pass


async def test_a_container_is_rewritten_and_nothing_of_it_logged(
    top: Path, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = "/var/lib/kubelet/pods/0-1/volumes/kubernetes.io~csi/pvc-1/mount"
    (top / "volumes" / base64.urlsafe_b64encode(source.encode()).decode()).mkdir(parents=True)
    spec = oci.Spec(Mounts=[oci.Mount(source=source)], Annotations={GPUS: "1", "password": "hunter2"})
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls)), rewrite=Rewrite(top / "volumes")):
        async with runtime(top) as client:
            await AgentClient(client).CreateContainer(
                agent.CreateContainerRequest(container_id="c1", OCI=spec), timeout=PATIENCE
            )
        assert dict(vm.created[0].OCI.Annotations) == {
            GPUS: "1",
            "password": "hunter2",
            CDI: "nvidia.com/gpu=all",
            TARGET_PATH: source,
        }
    assert "container c1" in caplog.text
    assert "hunter2" not in caplog.text
    assert source not in caplog.text


async def test_messages_of_the_full_length_pass_both_ways(top: Path, tls: Tls) -> None:
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))), runtime(top) as client:
        message = os.urandom(1 << 20) * 4
        await asyncio.gather(*(echo(client, message[:MESSAGE_MAX]) for _ in range(4)))


async def test_a_runtime_that_does_not_read_makes_nobody_keep_its_answers(top: Path, tls: Tls) -> None:
    """Forty answers of 4 MiB; the proxy and the agent here may keep some, not all."""
    answers, size = 40, MESSAGE_MAX
    async with machine(tls) as vm, proxied(top, vm.endpoint(dialer(tls))) as made, runtime(top) as client:
        await echo(client)
        client.link.hold()
        calls = [asyncio.create_task(client.call("t", "Size", b"%d" % size, timeout=60)) for _ in range(answers)]
        passed = -1
        while passed != made.stats.bytes_to_shim:  # until nothing moves any more
            passed = made.stats.bytes_to_shim
            await asyncio.sleep(0.2)
        assert made.stats.bytes_to_shim < 4 * size
        client.link.release()
        for call in asyncio.as_completed(calls):
            assert len(await call) == size
        calls.clear()


async def test_a_machine_that_does_not_read_holds_up_the_runtime(top: Path) -> None:
    """A stopped machine: what the runtime sends stays with it, but for what lies in sockets."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with proxied(top, Endpoint("127.0.0.1", port, NAME, None)) as made, runtime(top) as client:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            accepted.append((await asyncio.get_running_loop().sock_accept(listener))[0])
            message = bytes(MESSAGE_MAX)
            calls = [asyncio.create_task(client.call("t", "Echo", message, timeout=60)) for _ in range(50)]
            passed = -1
            while passed != made.stats.bytes_to_vm:
                passed = made.stats.bytes_to_vm
                await asyncio.sleep(0.2)
            assert made.stats.bytes_to_vm < 6 * MESSAGE_MAX
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        accepted[0].close()


async def test_through_the_real_forwarder_a_break_at_either_place_is_survived(top: Path, tls: Tls) -> None:
    """Proxy and forwarder together: the adaptor's side is one connection after another, the agent's as well."""
    agent_address = UnixAddress(str(top / "vm.sock"))
    server = Server()
    server.add_raw("grpc.Health", "Check", Agent(None)._check)
    server.add_raw("t", "Echo", Agent(None)._echo)
    issued = tls.issue(NAME)
    assert issued.server is not None
    forwarder = Forwarder(agent_address)
    material = Material(issued.server.certificate, issued.server.key, issued.client_ca)
    listener = service.listening("127.0.0.1", 0)
    await forwarder.serve(listener, server_context(material))
    port = listener.getsockname()[1]
    async with proxied(top, Endpoint("127.0.0.1", port, NAME, dialer(tls))) as made:
        ready = asyncio.create_task(made.ready())
        done, _ = await asyncio.wait([ready], timeout=0.1)
        assert not done  # the forwarder stands, the agent does not
        await server.listen(agent_address)
        await ready
        async with runtime(top) as client:
            await echo(client)
            for session in list(server._sessions):
                session.abort()
            await until(lambda: made.stats.redials == 1)
            await echo(client)
    await forwarder.close()
    server.close()
    await server.wait_closed(PATIENCE)


async def test_a_connection_to_a_machine_that_says_nothing_any_more_ends(tls: Tls) -> None:
    async with machine(tls) as vm, Client() as client:
        await dialing.connect(vm.endpoint(dialer(tls)), lambda: client.link)
        assert client.link._transport is not None
        sock = client.link._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_pauses_double_to_their_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "PAUSE_FIRST", 0.2)
    monkeypatch.setattr(dialing, "PAUSE_MAX", 5.0)
    monkeypatch.setattr(dialing, "JITTER", 0.0)
    assert list(itertools.islice(dialing.pauses(), 7)) == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
