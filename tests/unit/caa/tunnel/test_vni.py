from __future__ import annotations

import pytest

from kata_caa.apf import Interface, PodNetwork
from kata_caa.errors import TunnelError
from kata_caa.tunnel.vni import free_vni, numbered


def test_the_lowest_free_number_is_given() -> None:
    assert free_vni(555000, ()) == 555000
    assert free_vni(555000, {555000, 555001, 555003, 1}) == 555002


def test_numbers_end_with_24_bits() -> None:
    assert free_vni(0xFFFFFF, ()) == 0xFFFFFF
    with pytest.raises(TunnelError, match="all numbers of VXLANs from 16777214 on are taken"):
        free_vni(0xFFFFFE, {0xFFFFFE, 0xFFFFFF})
    for minimum in (1 << 24, -1):
        with pytest.raises(TunnelError, match="24 bits"):
            free_vni(minimum, ())


def test_each_interface_has_a_number_of_its_own() -> None:
    network = PodNetwork(interfaces=(Interface("net1", "", ()), Interface("net2", "", ())))
    made = numbered(network, 4, 10, {10, 12})
    assert (made.index, made.vxlan_id, [each.vxlan_id for each in made.interfaces]) == (4, 11, [13, 14])
