"""The forwarder with real TLS, real sockets, and for some the real agent: what an adaptor meets."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from kata_caa import apf, userdata
from kata_caa.apf import ForwarderConfig
from kata_caa.errors import ForwarderError
from kata_caa.forwarder import mounts, tls
from kata_caa.forwarder.interceptor import HOOKED, TARGET_PATH, Interceptor
from kata_caa.forwarder.service import Forwarder, listening
from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.health_pb2 import CheckRequest, HealthCheckResponse
from kata_protos.health_ttrpc import HealthClient
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.stream import ServerStream
from tests import netns
from tests.drivers.pod import TIMEOUT, Pod, machine, sandbox_request
from tests.pki import Pair, pair
from tests.tasks import until
from tools import oci_image

NAME = "podvm-web-12345678"
SERVER_CA = pair("forwarder-ca", ca=True)
SERVER = pair(NAME, issuer=SERVER_CA)
CLIENT = pair("cloud-api-adaptor", client=True)
MESSAGE_MAX = (4 << 20) - 64

_serial = itertools.count(1)


@pytest.fixture
def top(short_tmp: Path) -> Path:
    path = short_tmp / f"forwarder-{next(_serial)}"
    path.mkdir()
    return path


def material(client_ca: Pair = CLIENT, **more: str) -> tls.Material:
    return tls.Material(SERVER.certificate, SERVER.key, client_ca.certificate, **more)


def adaptor_context(client: Pair | None, top: Path, trusted: Pair = SERVER_CA) -> ssl.SSLContext:
    """As the adaptor dials."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted.certificate)
    if client is not None:
        (top / "client.pem").write_text(client.certificate + client.key)
        context.load_cert_chain(top / "client.pem")
    return context


@asynccontextmanager
async def forwarding(agent: UnixAddress, made: tls.Material | None = None, **options: float) -> AsyncIterator[int]:
    """A forwarder at a port of its own."""
    forwarder = Forwarder(agent, Interceptor("/run/netns/podns"), HOOKED, **options)
    context = tls.server_context(made or material())
    listener = listening("127.0.0.1", 0)
    await forwarder.serve(listener, context)
    port = listener.getsockname()[1]
    try:
        yield port
    finally:
        await forwarder.close()


@asynccontextmanager
async def dialled(port: int, context: ssl.SSLContext | None, name: str = NAME) -> AsyncIterator[Client]:
    """An adaptor's connection."""
    async with Client("adaptor") as client:
        server_name = name if context is not None else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client.link, "127.0.0.1", port, ssl=context, server_hostname=server_name)
        yield client


class Stand:
    """What a test's agent does: a server of bytes at a Unix socket."""

    def __init__(self, top: Path) -> None:
        self.address = UnixAddress(str(top / "agent.sock"))
        self.called = asyncio.Event()
        self.server = Server(cancel_abandoned=True)
        self.server.add_raw("grpc.Health", "Check", self._echo)
        self.server.add_raw("grpc.AgentService", "Echo", self._echo)
        self.server.add_raw("grpc.AgentService", "Hang", self._hang)
        self.server.add_raw_stream("grpc.AgentService", "Double", self._double)

    async def listen(self) -> None:
        await self.server.listen(self.address)

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed(0)

    async def _echo(self, payload: bytes, context: Context) -> bytes:
        return payload

    async def _hang(self, payload: bytes, context: Context) -> bytes:
        self.called.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def _double(self, stream: ServerStream, context: Context) -> None:
        async for message in stream:
            await stream.send(message * 2)


@pytest.fixture
async def stand(top: Path) -> AsyncIterator[Stand]:
    stand = Stand(top)
    await stand.listen()
    yield stand
    await stand.stop()


async def echo(client: Client, payload: bytes = b"x", timeout: float = TIMEOUT) -> bytes:
    return await client.call("grpc.AgentService", "Echo", payload, timeout=timeout)


async def test_calls_of_every_size_pass_many_at_a_time(stand: Stand, top: Path) -> None:
    async with forwarding(stand.address) as port, dialled(port, adaptor_context(CLIENT, top)) as client:
        sizes = [0, 1, 1000, 70_000, 1 << 20, MESSAGE_MAX] * 5
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(echo(client, os.urandom(1) * size)) for size in sizes]
        assert [len(call.result()) for call in calls] == sizes
        assert await client.call("grpc.Health", "Check", b"", timeout=TIMEOUT) == b""


async def test_streams_pass_both_ways_side_by_side(stand: Stand, top: Path) -> None:
    async def talk(client: Client, word: bytes) -> None:
        async with client.stream("grpc.AgentService", "Double") as stream:
            for i in range(20):
                message = word * (i * 1000)
                await stream.send(message)
                assert await stream.receive() == message * 2
            stream.close_send()
            assert await stream.receive() is None

    async with (
        forwarding(stand.address) as port,
        dialled(port, adaptor_context(CLIENT, top)) as client,
        asyncio.TaskGroup() as group,
    ):
        for word in (b"a", b"b", b"c", b"d"):
            group.create_task(talk(client, word))


@pytest.mark.parametrize("version", ["VersionTLS12", "VersionTLS13"])
@pytest.mark.parametrize("client", [None, pair("cloud-api-adaptor", client=True)], ids=["none", "another"])
async def test_a_client_with_another_certificate_or_none_is_refused(
    stand: Stand, top: Path, client: Pair | None, version: str
) -> None:
    context = adaptor_context(client, top)
    context.maximum_version = tls.VERSIONS[version]
    async with forwarding(stand.address) as port:
        with pytest.raises((ssl.SSLError, ConnectionClosed, ConnectionError)):
            async with dialled(port, context) as refused:
                await echo(refused)
        async with dialled(port, adaptor_context(CLIENT, top)) as let_in:
            assert await echo(let_in) == b"x"


async def test_a_client_that_a_trusted_authority_vouches_for_is_let_in(stand: Stand, top: Path) -> None:
    authority = pair("clients", ca=True, client=True)
    client = pair("adaptor", issuer=authority, client=True)
    for trusted in (authority, client):  # the latter as in Go, though who vouches for it is not known
        async with (
            forwarding(stand.address, material(trusted)) as port,
            dialled(port, adaptor_context(client, top)) as let_in,
        ):
            assert await echo(let_in) == b"x"


async def test_versions_and_suites_are_kept_to(stand: Stand, top: Path) -> None:
    old = adaptor_context(CLIENT, top)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with forwarding(stand.address, material(min_version="VersionTLS13")) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with dialled(port, old):
                pass
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    async with forwarding(stand.address, material(cipher_suites=suite)) as port, dialled(port, old) as client:
        assert await echo(client) == b"x"
        transport = client.link._transport
        assert transport is not None
        assert transport.get_extra_info("cipher")[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


async def test_who_speaks_no_tls_gets_no_agent_and_harms_nobody(stand: Stand, top: Path) -> None:
    async with forwarding(stand.address) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n" * 10)
        async with asyncio.timeout(TIMEOUT):
            await reader.read()
        writer.close()
        assert stand.server._sessions == set()
        async with dialled(port, adaptor_context(CLIENT, top)) as client:
            assert await echo(client) == b"x"


async def test_calls_wait_for_an_agent_that_comes_late(top: Path) -> None:
    stand = Stand(top)
    async with forwarding(stand.address) as port, dialled(port, adaptor_context(CLIENT, top)) as client:
        call = asyncio.create_task(echo(client, b"early"))
        done, _ = await asyncio.wait([call], timeout=0.3)
        assert not done
        await stand.listen()
        assert await call == b"early"
        await stand.stop()


async def test_an_agent_that_never_comes_ends_the_connection(top: Path) -> None:
    nowhere = UnixAddress(str(top / "none.sock"))
    async with (
        forwarding(nowhere, agent_timeout=0.2) as port,
        dialled(port, adaptor_context(CLIENT, top)) as client,
    ):
        with pytest.raises(ConnectionClosed):
            await echo(client)


async def test_an_agent_that_dies_in_a_call_is_an_error_of_that_call(stand: Stand, top: Path) -> None:
    async with forwarding(stand.address) as port:
        async with dialled(port, adaptor_context(CLIENT, top)) as client:
            call = asyncio.create_task(client.call("grpc.AgentService", "Hang", b"", timeout=TIMEOUT))
            await stand.called.wait()
            for session in list(stand.server._sessions):
                session.abort()
            with pytest.raises(StatusError, match="UNAVAILABLE: the server's connection ended"):
                await call
        async with dialled(port, adaptor_context(CLIENT, top)) as again:
            assert await echo(again) == b"x"


async def test_an_adaptor_that_goes_takes_its_connection_to_the_agent_along(stand: Stand, top: Path) -> None:
    async with forwarding(stand.address) as port:
        async with dialled(port, adaptor_context(CLIENT, top)) as client:
            await echo(client)
            assert len(stand.server._sessions) == 1
        await until(lambda: not stand.server._sessions)


async def test_a_taken_address_is_an_error_that_names_it(stand: Stand) -> None:
    async with forwarding(stand.address) as port:
        with pytest.raises(ForwarderError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            listening("127.0.0.1", port)


# The command, as a process.


@contextmanager
def command(top: Path, stand: Stand, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`agent-protocol-forwarder`, with an `apf.json` that tells of no pod network; its port is its own choice."""
    config = {"tls-server-key": SERVER.key, "tls-server-cert": SERVER.certificate, "tls-client-ca": CLIENT.certificate}
    (top / "apf.json").write_text(json.dumps(config))
    line = [
        sys.executable, "-c", "import sys; from kata_caa.forwarder.command import main; sys.exit(main())",
        "-config", str(top / "apf.json"), "--listen=127.0.0.1:0", "-kata-agent-socket", stand.address.path, *flags,
    ]  # fmt: skip
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for told in process.stderr:
                if "ready on" in told:
                    yield process, int(told.split()[3].rpartition(":")[2])
                    break
            else:
                raise AssertionError("it ended before it was ready")
        finally:
            process.kill()


async def test_the_command_serves_until_it_is_told_to_stop(stand: Stand, top: Path) -> None:
    with command(top, stand) as (process, port):
        async with dialled(port, adaptor_context(CLIENT, top)) as client:
            assert await echo(client) == b"x"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await client.call("grpc.AgentService", "Hang", b"", timeout=TIMEOUT)
        assert await asyncio.to_thread(process.wait, TIMEOUT) == 0


async def test_the_command_speaks_plainly_if_that_is_asked_for(stand: Stand, top: Path) -> None:
    with command(top, stand, "-disable-tls") as (_, port):
        async with dialled(port, None) as client:
            assert await echo(client) == b"x"


# What needs root.


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rootfs")
    oci_image.rootfs(path)
    path.chmod(0o755)
    return path


async def run(*line: str) -> None:
    process = await asyncio.create_subprocess_exec(*line)
    async with asyncio.timeout(TIMEOUT):
        assert await process.wait() == 0, line


@pytest.mark.root
async def test_a_container_of_the_real_agent_runs_in_the_pods_network_namespace(top: Path, rootfs: Path) -> None:
    async with (
        machine(top) as (vm, share),
        forwarding(vm.agent) as port,
        dialled(port, adaptor_context(CLIENT, top)) as client,
    ):
        answer = await HealthClient(client).Check(CheckRequest(), timeout=TIMEOUT)
        assert answer.status == HealthCheckResponse.SERVING
        calls = AgentClient(client)
        pod = Pod(vm, client, calls, share, rootfs)
        script = "ip netns add podns && ip -n podns link add pod0 type veth peer name pod1"
        await run("nsenter", "-m", "-p", "-n", f"-t{pod.agent_pid}", "sh", "-c", script)
        await calls.CreateSandbox(sandbox_request(dns=["nameserver 10.0.0.10"]), timeout=TIMEOUT)
        await pod.run("ctr", "sh", "-c", "ls /sys/class/net /proc/1/net; cat /proc/net/dev")
        outcome = await pod.outcome("ctr")
        assert b"pod0" in outcome.stdout
        await pod.remove("ctr")


@pytest.mark.root
async def test_a_device_that_is_mounted_late_is_waited_for(top: Path) -> None:
    place = top / "a b"
    place.mkdir()
    request = agent.CreateContainerRequest(
        container_id="ctr",
        OCI=oci.Spec(
            Mounts=[oci.Mount(type="bind", source=str(place))], Annotations={TARGET_PATH: str(place)}
        ),
    )  # fmt: skip
    interceptor = Interceptor("/run/netns/podns", mount_timeout=TIMEOUT)
    waiting = asyncio.create_task(interceptor(HOOKED[0][0], "CreateContainer", request.SerializeToString()))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    await run("mount", "-t", "tmpfs", "none", str(place))
    try:
        async with asyncio.timeout(TIMEOUT):
            assert await waiting is not None
        await mounts.wait_mounted(str(place), 0)
    finally:
        await run("umount", str(place))


@pytest.mark.root
def test_an_address_comes_by_dhcp(top: Path) -> None:
    assert socket.if_nameindex()
    (top / "udhcpd.conf").write_text(
        f"start 10.99.0.10\nend 10.99.0.10\ninterface srv\nlease_file {top}/leases\npidfile {top}/udhcpd.pid\n"
        "option subnet 255.255.255.0\noption router 10.99.0.1\noption dns 10.99.0.53\noption mtu 1400\n"
    )
    with netns.pod() as server, netns.pod() as vm:
        server.ip("link add srv type veth peer name nic")
        server.ip(f"link set nic netns {vm.pid}")
        server.ip("addr add 10.99.0.1/24 dev srv")
        server.ip("link set srv up")
        line = ["nsenter", f"--net={server.path}", "busybox", "udhcpd", "-f", str(top / "udhcpd.conf")]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as served:
            try:
                told = vm.run(sys.executable, "-c", CLIENT_PROGRAM, str(top))
                assert told.splitlines() == ["meanwhile", "nic", "nic"]
                assert "10.99.0.10/24" in vm.ip("-4 addr show dev nic")
                assert "mtu 1400" in vm.ip("link show dev nic")
                assert "default via 10.99.0.1" in vm.ip("route show")
                assert (top / "resolv.conf").read_text() == "nameserver 10.99.0.53\n"
            finally:
                served.kill()
                os.kill(int((top / "script.pid").read_text()), signal.SIGTERM)


BOOT_PROGRAM = """
import sys
from kata_caa.forwarder import boot, dhcp
dhcp.first_interface = lambda: "nic"
sys.exit(boot.main())
"""


@pytest.mark.root
def test_a_vm_starts_in_one_process_and_again_after_its_end(top: Path) -> None:
    config = ForwarderConfig(
        tls_server_key=SERVER.key, tls_server_cert=SERVER.certificate, tls_client_ca=CLIENT.certificate
    )
    (top / "user-data").write_text(userdata.render([userdata.File(userdata.APF, apf.dump(config))]))
    again = f"{sys.executable} -c '{BOOT_PROGRAM}'"
    script = f"""
        mount -t tmpfs none /run && mount -t tmpfs none /media && mkdir /media/cidata &&
        cp {top}/user-data /media/cidata/ && {again}
        stat -c '%a' /run/peerpod/apf.json >&2
        rm -r /media/cidata
        {again}
    """
    with netns.pod() as vm:
        vm.ip("link add nic type veth peer name other")
        vm.ip("addr add 10.99.0.2/24 dev nic")
        vm.ip("link set nic up")
        vm.ip("link set other up")
        vm.ip("route add default via 10.99.0.1")
        line = ["nsenter", f"--net={vm.path}", "unshare", "--mount", "sh", "-c", script]
        told = []
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as shell:
            assert shell.stderr is not None
            for text in shell.stderr:
                told.append(re.sub(r" [0-9.]+ s$", "", text.strip()))
                if "ready on" in text:
                    child = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()[0]
                    os.kill(int(child), signal.SIGTERM)
            assert shell.wait(TIMEOUT) == 0
    start = ["forwarder: network", "forwarder: user data"]
    wrote = [
        f"forwarder: wrote {path}" for path in (userdata.APF, userdata.AA, f"{userdata.DIRECTORY}/initdata.digest")
    ]
    none = "forwarder: apf.json tells of no pod network: none is set up"
    ready = [none, "forwarder: pod network", "forwarder: ready on 0.0.0.0:15150"]
    assert told == [start[0], *wrote, start[1], *ready, "600", *start, *ready]


# A veth has no device behind it, so the program is told which one is taken for physical.
CLIENT_PROGRAM = """
import sys
from pathlib import Path
from kata_caa.forwarder import dhcp
top = Path(sys.argv[1])
dhcp.first_interface = lambda: "nic"
dhcp.client_runs = lambda: False
for meanwhile in (lambda: print("meanwhile"), lambda: None):
    print(dhcp.bring_up(20, script=top / "script", resolv_conf=str(top / "resolv.conf"), meanwhile=meanwhile))
"""
