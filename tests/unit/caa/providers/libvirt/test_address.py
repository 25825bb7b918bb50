"""Where a machine's addresses are learnt from, in which order, and which of several counts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from kata_caa.errors import ProviderError
from kata_caa.providers.libvirt import address, binding
from kata_caa.providers.libvirt.connection import Connection
from tests.unit.caa.providers.libvirt.test_domain import PLAIN
from tests.unit.caa.providers.libvirt.test_fault import refusal

TWO = replace(PLAIN, macs=("52:54:00:00:00:01", "52:54:00:00:00:02"))
RUNNING, SHUT_OFF = 1, 5


@dataclass
class Domain:
    """A machine that is asked, and what it answers by source; an exception is raised."""

    answers: dict[int, object] = field(default_factory=dict)
    status: int = RUNNING
    asked: list[int] = field(default_factory=list)

    def state(self, flags: int) -> list[int]:
        return [self.status, 0]

    def interfaceAddresses(self, source: int, flags: int) -> object:
        self.asked.append(source)
        answer = self.answers.get(source, {})
        if isinstance(answer, Exception):
            raise answer
        return answer


def interface(mac: str, *addresses: str) -> dict[str, object]:
    return {"hwaddr": mac, "addrs": [{"addr": each, "prefix": 24, "type": 0} for each in addresses] or None}


@asynccontextmanager
async def asking(domain: Domain):
    class Host:
        def isAlive(self) -> int:
            return 1

        def close(self) -> int:
            return 0

        def lookupByUUIDString(self, uuid: str) -> Domain:
            return domain

    connection = Connection("test", lambda uri: Host())
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(address, "PAUSE", 0.001)


async def test_a_lease_counts_and_of_its_addresses_one_of_version_4():
    domain = Domain({binding.LEASE: {"vnet0": interface(PLAIN.macs[0].upper(), "fe80::1", "fd00::1", "192.0.2.7")}})
    async with asking(domain) as connection:
        assert await address.wait(connection, PLAIN, 5) == ("192.0.2.7",)
    assert domain.asked == [binding.LEASE]


async def test_neighbours_are_asked_where_there_is_no_lease():
    domain = Domain({binding.ARP: {"vnet0": interface(PLAIN.macs[0], "192.0.2.8")}})
    async with asking(domain) as connection:
        assert await address.wait(connection, PLAIN, 5) == ("192.0.2.8",)
    assert domain.asked == [binding.LEASE, binding.ARP]


async def test_a_network_without_leases_has_the_agent_asked_and_neighbours_though_it_does_not_run():
    away = refusal("VIR_ERR_AGENT_UNRESPONSIVE", "QEMU guest agent is not connected")
    domain = Domain({binding.AGENT: away, binding.ARP: {"vnet0": interface(PLAIN.macs[0], "192.0.2.8")}})
    async with asking(domain) as connection:
        assert await address.wait(connection, replace(PLAIN, agent=True), 5) == ("192.0.2.8",)
    assert domain.asked == [binding.AGENT, binding.ARP]


async def test_addresses_of_two_interfaces_come_in_their_order_and_from_different_sources():
    domain = Domain({
        binding.LEASE: {"a": interface(TWO.macs[1], "192.0.2.2"), "lo": interface("00:00:00:00:00:00", "127.0.0.1")},
        binding.ARP: {"a": interface(TWO.macs[0], "192.0.2.1"), "b": interface(TWO.macs[1], "192.0.2.3")},
    })  # fmt: skip
    async with asking(domain) as connection:
        assert await address.wait(connection, TWO, 5) == ("192.0.2.1", "192.0.2.2")


async def test_one_address_of_two_is_not_enough():
    domain = Domain({binding.LEASE: {"a": interface(TWO.macs[1], "192.0.2.2"), "b": interface(TWO.macs[0])}})
    async with asking(domain) as connection:
        with pytest.raises(ProviderError, match=r"got no address .* in 0\.02 s"):
            await address.wait(connection, TWO, 0.02)
    assert len(domain.asked) > 2


async def test_a_machine_that_has_ended_is_not_waited_for():
    async with asking(Domain(status=SHUT_OFF)) as connection:
        with pytest.raises(ProviderError, match="ended before it had an address"):
            await address.wait(connection, PLAIN, 60)


async def test_a_broken_connection_is_borne_while_there_is_time_and_told_afterwards():
    domain = Domain({binding.LEASE: refusal("VIR_ERR_INTERNAL_ERROR", "client socket is closed")})
    async with asking(domain) as connection:
        with pytest.raises(ProviderError, match="client socket is closed"):
            await address.wait(connection, PLAIN, 0.02)
    assert len(domain.asked) > 1


async def test_a_machine_that_is_gone_is_an_error_at_once():
    domain = Domain({binding.LEASE: refusal("VIR_ERR_NO_DOMAIN", "Domain not found")})
    async with asking(domain) as connection:
        with pytest.raises(ProviderError, match="Domain not found"):
            await address.wait(connection, PLAIN, 60)
    assert domain.asked == [binding.LEASE]
