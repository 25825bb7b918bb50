"""Real network namespaces: what is found in them, how a guest is connected, and that nothing stays of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kata_py.network.endpoint import Address, Kind, Route
from kata_py.network.errors import HostNetwork, NetworkError, UnsupportedLink
from kata_py.network.model import Model, RateLimits
from kata_py.network.network import open_network, pod_namespace
from kata_py.resource.undo import Undo
from kata_py.sandbox.record import Record
from tests.conftest import REPOSITORY
from tests.drivers.journal import ListJournal
from tests.functional.network.conftest import MAC
from tests.functional.network.guest import ARP, IPV4, Guest
from tests.netns import Pod, join
from tests.tasks import until

pytestmark = pytest.mark.root

MODELS = pytest.mark.parametrize("model", [Model.TCFILTER, Model.MACVTAP])


async def test_a_link_is_found_with_all_that_the_guest_needs_of_it(inside: Pod) -> None:
    inside.ip("route add 192.0.2.0/24 dev eth0 src 10.0.0.2 scope link mtu 1300")
    inside.ip("route add 198.51.100.7 via 172.31.0.1 dev eth0 onlink")
    inside.ip("-6 route add default via fd00::1 dev eth0")
    inside.ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent")
    inside.ip("neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud reachable")
    inside.ip("neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev eth0 nud reachable")
    inside.ip("link add bare type veth peer name bare0")
    async with open_network(inside.path, Model.TCFILTER, ListJournal()) as network:
        (connection,) = network.connections
    endpoint = connection.endpoint
    assert (endpoint.kind, endpoint.name, endpoint.mac, endpoint.mtu) == (Kind.DEVICE, "eth0", MAC, 1400)
    assert {Address("10.0.0.2", 24), Address("fd00::2", 64)} < set(endpoint.addresses)  # and a link-local one
    assert set(endpoint.routes) == {
        Route("", "10.0.0.1"),
        Route("192.0.2.0/24", source="10.0.0.2", scope=253, mtu=1300),
        Route("198.51.100.7/32", "172.31.0.1", onlink=True),
        Route("", "fd00::1", is_v6=True),
    }
    assert {neighbour.ip: neighbour.mac for neighbour in endpoint.neighbours} == {
        "10.0.0.9": "02:00:00:00:00:09",
        "10.0.0.1": "02:00:00:00:00:01",
    }


async def test_each_kind_of_link_is_found_as_what_it_is(inside: Pod) -> None:
    inside.ip("link add link eth0 name m0 type macvlan mode bridge")
    inside.ip("tuntap add t0 mode tap")
    inside.ip("link add d0 type bridge")
    for number, name in enumerate(("m0", "t0", "d0")):
        inside.ip(f"addr add 10.1.{number}.1/24 dev {name}")
    async with open_network(inside.path, Model.TCFILTER, ListJournal()) as network:
        assert [(each.endpoint.name, each.endpoint.kind, each.nic.id, each.nic.name) for each in network.connections][
            1:
        ] == [
            ("m0", Kind.MACVLAN, "network-1", "tap1_kata"),
            ("t0", Kind.TAP, "network-2", "tap2_kata"),
            ("d0", Kind.DEVICE, "network-3", "tap3_kata"),
        ]


async def test_what_is_no_ethernet_link_is_refused_and_nothing_stays(inside: Pod) -> None:
    inside.ip("tuntap add t0 mode tun")
    inside.ip("addr add 10.1.0.1/24 dev t0")
    before = inside.state()
    journal = ListJournal()
    with pytest.raises(UnsupportedLink, match=r"t0 \(tun\) is not an Ethernet link"):
        async with open_network(inside.path, Model.TCFILTER, journal):
            pass
    assert journal.entries == []
    assert inside.state() == before


@MODELS
@pytest.mark.parametrize("queues", [1, 2])
async def test_all_that_was_made_is_gone_when_the_network_is_left(inside: Pod, model: Model, queues: int) -> None:
    before, journal, open_before = inside.state(), ListJournal(), _descriptors()
    async with open_network(inside.path, model, journal, queues=queues) as network:
        (nic,) = network.nics
        assert (nic.id, nic.mac, nic.mtu, nic.name) == ("network-0", MAC, 1400, "tap0_kata")
        assert len(set(nic.tap_fds)) == queues
        assert "mtu 1400" in inside.ip("link show tap0_kata")
        assert "inet6" not in inside.ip("addr show tap0_kata")
        assert inside.state() != before
        assert journal.entries
    assert journal.entries == []
    assert inside.state() == before
    assert _descriptors() == open_before


async def test_macvtap_takes_the_links_addresses_and_gives_them_back(inside: Pod) -> None:
    async with open_network(inside.path, Model.MACVTAP, ListJournal()) as network:
        assert network.interfaces()[0].hwAddr == MAC
        assert MAC in inside.ip("link show tap0_kata")
        assert MAC not in inside.ip("link show eth0")
        assert "inet" not in inside.ip("addr show eth0")
    assert MAC in inside.ip("link show eth0")
    assert "10.0.0.2/24" in inside.ip("addr show eth0")


async def test_without_a_model_nothing_is_touched(inside: Pod) -> None:
    before = inside.state()
    async with open_network(inside.path, Model.NONE, ListJournal()) as network:
        assert (network.nics, await network.rescan()) == ((), ())
        assert inside.state() == before


@MODELS
async def test_a_rescan_connects_what_is_new_and_that_alone(inside: Pod, world: Pod, model: Model) -> None:
    async with open_network(inside.path, model, ListJournal()) as network:
        assert await network.rescan() == ()
        join(inside, "eth1", world, "veth1")
        inside.ip("addr add 10.0.1.2/24 dev eth1")
        (new,) = await network.rescan()
        assert (new.endpoint.name, new.nic.id) == ("eth1", "network-1")
        assert [message.name for message in network.interfaces({"network-1": "05/00"})] == ["eth0", "eth1"]
        assert [message.devicePath for message in network.interfaces({"network-1": "05/00"})] == ["", "05/00"]
        assert await network.rescan() == ()
    assert inside.links() == {"lo", "eth0", "eth1"}


async def test_a_link_that_somebody_else_filters_is_refused_and_keeps_its_filter(inside: Pod) -> None:
    inside.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    before = inside.state()
    with pytest.raises(NetworkError, match="eth0 has an ingress queueing discipline already"):
        async with open_network(inside.path, Model.TCFILTER, ListJournal()):
            pass
    assert inside.state() == before


async def test_a_namespace_that_is_gone_is_told_and_undone_without_a_word(inside: Pod) -> None:
    journal = ListJournal()
    async with open_network(inside.path, Model.TCFILTER, journal) as network:
        inside.end()
        with pytest.raises(NetworkError, match="gone"):
            await network.rescan()
    assert journal.entries == []
    with pytest.raises(NetworkError, match="there is no network namespace at /no/such"):
        async with open_network(Path("/no/such"), Model.TCFILTER, journal):
            pass


@pytest.mark.parametrize("path", ["/proc/self/ns/net", f"/proc/{os.getppid()}/ns/net"])
async def test_the_hosts_own_network_is_refused(path: str) -> None:
    with pytest.raises(HostNetwork, match="hostNetwork: true needs another runtime class"):
        async with open_network(Path(path), Model.TCFILTER, ListJournal()):
            pass


async def test_the_network_of_the_hosts_first_process_is_refused_from_any_other(
    inside: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which the first process is has to be said here: a container's root may not look into the real one's.
    monkeypatch.setattr("kata_py.resource.netns._FIRST", str(inside.path))
    with pytest.raises(HostNetwork, match="hostNetwork: true needs another runtime class"):
        async with open_network(inside.path, Model.TCFILTER, ListJournal()):
            pass


def test_a_pod_without_a_network_namespace_is_one_on_the_hosts_network(inside: Pod) -> None:
    with pytest.raises(HostNetwork, match="no network namespace of its own"):
        pod_namespace(None)
    assert pod_namespace(inside.path).inode == inside.path.stat().st_ino


class Refusing(ListJournal):
    """A record on a full disk, from the nth entry on."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def intend(self, undo: Undo) -> None:
        if not self._room:
            raise OSError(28, "No space left on device")
        self._room -= 1
        super().intend(undo)


@MODELS
@pytest.mark.parametrize("room", [0, 1])
async def test_a_change_that_cannot_be_written_down_is_not_made(inside: Pod, model: Model, room: int) -> None:
    before, journal = inside.state(), Refusing(room)
    with pytest.raises(NetworkError, match="No space left on device"):
        async with open_network(inside.path, model, journal):
            pass
    assert journal.entries == []
    assert inside.state() == before


class Cancelling(ListJournal):
    """Cancels whoever opens the network at the nth entry."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._loop = asyncio.get_running_loop()
        self.opening: asyncio.Task[None] | None = None

    def intend(self, undo: Undo) -> None:
        super().intend(undo)
        self._room -= 1
        if not self._room and self.opening:
            self._loop.call_soon_threadsafe(self.opening.cancel)


@MODELS
@pytest.mark.parametrize("entry", [1, 2])
async def test_opening_that_is_cancelled_leaves_nothing(inside: Pod, model: Model, entry: int) -> None:
    before, journal = inside.state(), Cancelling(entry)

    async def opened() -> None:
        async with open_network(inside.path, model, journal):
            await asyncio.Event().wait()

    journal.opening = asyncio.create_task(opened())
    async with asyncio.timeout(20):
        await asyncio.wait([journal.opening])
    assert journal.opening.cancelled()
    assert journal.entries == []
    assert inside.state() == before


@MODELS
@pytest.mark.parametrize("entry", [1, 2, 3, 0])
async def test_what_a_killed_shim_leaves_is_all_undone_from_its_record(
    inside: Pod, world: Pod, tmp_path: Path, model: Model, entry: int
) -> None:
    join(inside, "eth1", world, "veth1")
    inside.ip("addr add 10.0.1.2/24 dev eth1")
    before = inside.state()
    shim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.functional.network.doomed", str(inside.path), model.value, str(tmp_path),
        str(entry), cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert shim.stdout is not None
    async with asyncio.timeout(30):
        if await shim.stdout.readline() == b"opened\n":
            shim.kill()
        assert await shim.wait() == -signal.SIGKILL
    record = Record.load("doomed", root=tmp_path)
    assert record.undo
    assert record.unwind(timeout=1.0) == []
    assert inside.state() == before


@MODELS
@pytest.mark.parametrize("queues", [1, 2])
async def test_frames_flow_both_ways(inside: Pod, world: Pod, model: Model, queues: int) -> None:
    async with open_network(inside.path, model, ListJournal(), queues=queues) as network:
        guest = Guest(network.nics[0], "10.0.0.2")
        await guest.send(guest.arp_request("10.0.0.1"))
        answer = await guest.received(lambda frame: frame[12:14] == ARP and frame[20:22] == b"\0\2")
        assert answer[28:32] == bytes([10, 0, 0, 1])
        world.run("bash", "-c", "echo hello >/dev/udp/10.0.0.2/9")
        datagram = await guest.received(lambda frame: frame[12:14] == IPV4 and b"hello" in frame)
        assert datagram[0:6] == bytes.fromhex(MAC.replace(":", ""))


async def test_rates_are_kept_on_both_sides_and_gone_afterwards(inside: Pod) -> None:
    before = inside.state()
    limits = RateLimits(rx=8_000_000, tx=16_000_000)
    async with open_network(inside.path, Model.TCFILTER, ListJournal(), limits=limits):
        for link, rate in (("tap0_kata", "8Mbit"), ("eth0", "16Mbit")):
            assert re.search(r"htb 1: root .*default 0x2", inside.run("tc", "qdisc", "show", "dev", link))
            classes = inside.run("tc", "class", "show", "dev", link)
            assert f"class htb 1:1 root rate {rate} ceil {rate}" in classes
            assert f"class htb 1:2 parent 1:1 prio 0 rate {rate} ceil {rate}" in classes
    assert inside.state() == before


async def test_frames_go_no_faster_than_the_rate(inside: Pod, world: Pod) -> None:
    async with open_network(inside.path, Model.TCFILTER, ListJournal(), limits=RateLimits(tx=400_000)) as network:
        guest = Guest(network.nics[0], "10.0.0.2")
        for _ in range(60):  # 60 times 1,400 bytes take 1.7 s, but for the burst
            await guest.send(guest.arp_request("10.0.0.3").ljust(1400, b"\0"))
        assert re.search(r"backlog [1-9]\d*b", inside.run("tc", "-s", "class", "show", "dev", "eth0"))


async def test_a_rate_is_refused_where_it_could_not_be_kept(inside: Pod) -> None:
    limits = RateLimits(tx=1_000_000)
    with pytest.raises(NetworkError, match=r"tx_rate_limiter_max_rate are not supported with .* macvtap"):
        async with open_network(inside.path, Model.MACVTAP, ListJournal(), limits=limits):
            pass
    inside.run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb")
    before = inside.state()
    with pytest.raises(NetworkError, match="eth0 has a queueing discipline already"):
        async with open_network(inside.path, Model.TCFILTER, ListJournal(), limits=limits):
            pass
    assert inside.state() == before


async def test_the_event_loops_thread_stays_where_it_was(inside: Pod) -> None:
    before = Path("/proc/thread-self/ns/net").stat().st_ino
    async with open_network(inside.path, Model.TCFILTER, ListJournal()):
        assert Path("/proc/thread-self/ns/net").stat().st_ino == before
        await until(lambda: _namespaces() == {before})  # a thread that was joined is listed for a moment yet


def _namespaces() -> set[int]:
    """The network namespaces of this process's threads."""
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add((thread / "ns/net").stat().st_ino)
    return found


def _descriptors() -> set[str]:
    kept = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            kept.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue  # the one that lists them
    return kept
