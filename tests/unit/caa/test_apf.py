"""`apf.json`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kata_caa.apf import Encryption, ForwarderConfig, Interface, Neighbor, PodNetwork, Route, dump, load
from kata_caa.errors import MalformedConfig

FULL = ForwarderConfig(
    network=PodNetwork(
        pod_ip="10.128.0.5/23",
        hardware_address="0a:58:0a:80:00:05",
        interface="eth0",
        worker_ip="192.168.122.1/24",
        routes=(
            Route("0.0.0.0/0", "10.128.0.1", "eth0", "static"),
            Route("10.128.0.0/23", "", "eth0", "kernel", "link"),
            Route("::/0", "fd00::1", "eth0", "static"),
            Route("10.9.0.0/24", "", "net1", "kernel", "link"),
        ),
        neighbors=(
            Neighbor("10.128.0.1", "0a:58:0a:80:00:01", "eth0"),
            Neighbor("fd00::1", "0a:58:0a:80:00:01", "eth0"),
        ),
        mtu=1450,
        index=3,
        vxlan_port=9000,
        vxlan_id=555003,
        pod_ips=("fd00::5/64",),
        interfaces=(Interface("net1", "0a:58:0a:80:00:06", ("10.9.0.2/24",), 1400, 555004),),
        encryption=Encryption(b"p" * 32, b"n" * 32, b"s" * 32, 51820, 51824),
    ),
    pod_name="web",
    pod_namespace="default",
    tls_server_key="KEY",
    tls_server_cert="CERT",
    tls_client_ca="CA",
)


def test_what_is_written_is_read_back():
    assert load(dump(FULL)) == FULL
    assert load(dump(ForwarderConfig())) == ForwarderConfig()


def test_the_keys_are_upstream_s():
    tree = json.loads(dump(FULL))
    assert list(tree) == [
        "pod-network",
        "pod-namespace",
        "pod-name",
        "tls-server-key",
        "tls-server-cert",
        "tls-client-ca",
    ]
    net = tree["pod-network"]
    assert net["podip"] == "10.128.0.5/23"
    assert net["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.128.0.1", "dev": "eth0", "protocol": "static"},
        {"dst": "10.128.0.0/23", "gw": "", "dev": "eth0", "protocol": "kernel", "scope": "link"},
    ]
    assert net["neighbors"] == [
        {"ip": "10.128.0.1", "hw-addr": "0a:58:0a:80:00:01", "dev": "eth0", "state": "permanent"}
    ]


def test_what_upstream_cannot_have_is_in_keys_of_ours():
    net = json.loads(dump(FULL))["pod-network"]
    assert [route["dst"] for route in net["kata-py-routes"]] == ["::/0", "10.9.0.0/24"]
    assert [neighbor["ip"] for neighbor in net["kata-py-neighbors"]] == ["fd00::1"]


def test_what_is_zero_and_ours_is_left_out():
    net = json.loads(dump(ForwarderConfig()))["pod-network"]
    assert not {"vxlan-port", "vxlan-id", "kata-py-pod-ips", "kata-py-interfaces"} & net.keys()


def test_without_encryption_there_is_no_word_of_it():
    assert "wireguard" not in dump(replace(FULL, network=replace(FULL.network, encryption=None)))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"private-key": "c2hvcnQ="}, "private-key is no key"),
        ({"node-public-key": None}, "node-public-key is no key"),
        ({"preshared-key": "not base64!"}, "preshared-key is no key"),
        ({"port": 0}, "port cannot be 0"),
        ({"node-port": 65536}, "node-port cannot be 65536"),
    ],
)
def test_an_encryption_that_lacks_something_is_an_error_that_shows_no_key(change, place):
    tree = json.loads(dump(FULL))
    tree["pod-network"]["kata-py-wireguard"] |= change
    with pytest.raises(MalformedConfig, match=rf"pod-network.kata-py-wireguard.{place}") as raised:
        load(json.dumps(tree))
    assert "c2hvcnQ" not in str(raised.value)


def test_unknown_keys_and_null_are_left_alone():
    assert load('{"sc-pp-prv": "x", "pod-network": {"routes": null, "new": 1}}') == ForwarderConfig(
        PodNetwork(tunnel_type="")
    )


@pytest.mark.parametrize(
    ("network", "place"),
    [
        ({"podip": "10.0.0.1"}, "podip"),
        ({"podip": "nowhere/24"}, "podip"),
        ({"mtu": "1500"}, "mtu"),
        ({"mtu": True}, "mtu"),
        ({"routes": [{"dst": "0.0.0.0/0", "protocol": "bgp"}]}, r"routes\[0\].protocol"),
        ({"routes": [3]}, r"routes\[0\]"),
        ({"neighbors": [{"state": "odd"}]}, r"neighbors\[0\].state"),
        ({"kata-py-pod-ips": [1]}, "kata-py-pod-ips"),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_place(network, place):
    with pytest.raises(MalformedConfig, match=place):
        load(json.dumps({"pod-network": network}))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(MalformedConfig):
        load(text)


def test_a_key_is_not_shown():
    assert "KEY" not in repr(FULL)
    assert "pppp" not in repr(FULL)
    assert "ssss" not in repr(FULL)
