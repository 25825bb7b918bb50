"""A pod's network as a network plug-in leaves it, and what is outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import Pod, pod

MAC = "02:00:00:00:00:0a"


@pytest.fixture
def world() -> Iterator[Pod]:
    """What is outside of the pod."""
    with pod() as made:
        yield made


@pytest.fixture
def inside(world: Pod) -> Iterator[Pod]:
    """A pod with eth0, which has `MAC`, 10.0.0.2 and fd00::2; the other end has 10.0.0.1."""
    with pod() as made:
        made.ip(f"link add eth0 address {MAC} mtu 1400 type veth peer name veth0 netns {world.pid}")
        made.ip("addr add 10.0.0.2/24 dev eth0")
        made.ip("addr add fd00::2/64 dev eth0 nodad")
        made.ip("link set eth0 up")
        world.ip("addr add 10.0.0.1/24 dev veth0")
        world.ip("link set veth0 mtu 1400 up")
        made.ip("route add default via 10.0.0.1")
        yield made
