"""Keys of encrypted tunnels."""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from kata_caa.errors import TunnelError
from kata_caa.tunnel import encryption
from kata_caa.tunnel.keys import NodeKey

MACHINE = ipaddress.ip_address("192.0.2.2")
WORKER = ipaddress.ip_address("192.0.2.1")


def test_both_ends_know_each_other_and_nobody_else(tmp_path: Path) -> None:
    key = NodeKey(tmp_path / "wireguard.key")
    one, other = key.issue(51820, 51821), key.issue(51820, 51822)

    node, machine = key.end(one, MACHINE), encryption.machine_end(one, WORKER)

    assert machine.device.peer.public_key == one.node_key == other.node_key
    assert node.device.peer.public_key != key.end(other, MACHINE).device.peer.public_key
    assert node.device.peer.preshared_key == machine.device.peer.preshared_key != other.preshared_key
    assert (node.device.peer.allowed, machine.device.peer.allowed) == (machine.address, node.address)
    assert (node.device.port, machine.device.port) == (51821, 51820)
    assert machine.device.peer.endpoint is not None
    assert (machine.device.peer.endpoint.address, machine.device.peer.endpoint.port) == (WORKER, 51821)


def test_a_node_whose_port_is_not_known_is_waited_for(tmp_path: Path) -> None:
    issued = NodeKey(tmp_path / "wireguard.key").issue(51820, 0)
    assert encryption.machine_end(issued, WORKER).device.peer.endpoint is None


def test_the_node_has_one_key_that_its_user_alone_can_read(tmp_path: Path) -> None:
    path = tmp_path / "peerpod" / "wireguard.key"
    issued = NodeKey(path).issue(51820, 51821)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert NodeKey(path).issue(51820, 51821).node_key == issued.node_key
    assert NodeKey(path).end(issued, MACHINE).any_port


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("nonsense"), lambda path: path.chmod(0o644)])
def test_a_key_that_cannot_be_used_is_an_error_that_names_its_file(tmp_path: Path, spoil) -> None:
    path = tmp_path / "wireguard.key"
    NodeKey(path).issue(51820, 51821)
    spoil(path)
    with pytest.raises(TunnelError, match=f"{path} cannot be used: .*; put the right file back"):
        NodeKey(path).issue(51820, 51821)


def test_another_key_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    key = NodeKey(tmp_path / "wireguard.key")
    with pytest.raises(TunnelError, match="is not the key that the pod VM was given"):
        key.end(replace(key.issue(51820, 51821), node_key=bytes(32)), MACHINE)
