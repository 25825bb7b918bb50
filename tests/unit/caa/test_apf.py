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
    tls_min_version="VersionTLS12",
    tls_cipher_suites="TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
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
        "tls-min-version",
        "tls-cipher-suites",
    ]
    assert tree["tls-cipher-suites"] == [
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
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


def test_addresses_of_ipv4_that_upstream_writes_as_ones_of_ipv6_are_of_ipv4():
    network = {
        "podip": "::ffff:10.128.0.5/23",
        "routes": [
            {"dst": "::ffff:0.0.0.0/0", "gw": "::ffff:10.128.0.1"},
            {"dst": "fd00::ffff:0/112"},
            {"dst": "::/0"},
        ],
        "neighbors": [{"ip": "::ffff:10.128.0.1"}],
    }
    read = load(json.dumps({"pod-network": network})).network
    assert read.pod_ip == "10.128.0.5/23"
    assert read.routes == (Route("0.0.0.0/0", "10.128.0.1"), Route("fd00::ffff:0/112"), Route("::/0"))
    assert read.neighbors == (Neighbor("10.128.0.1", "", "", ""),)


def test_of_several_routes_to_one_destination_upstream_gets_the_first_that_it_would_add():
    routes = (
        Route("0.0.0.0/0", "10.128.0.1", "eth0", "static"),
        Route("0.0.0.0/0", "10.128.0.2", "eth0", "static"),
        Route("10.128.0.0/23", "10.128.0.1", "eth0"),
        Route("10.128.0.0/23", "", "eth0", "kernel", "link"),
    )
    net = json.loads(dump(ForwarderConfig(PodNetwork(interface="eth0", routes=routes))))["pod-network"]
    assert [(route["dst"], route["gw"]) for route in net["routes"]] == [
        ("0.0.0.0/0", "10.128.0.1"),
        ("10.128.0.0/23", ""),
    ]
    assert [(route["dst"], route["gw"]) for route in net["kata-py-routes"]] == [
        ("0.0.0.0/0", "10.128.0.2"),
        ("10.128.0.0/23", "10.128.0.1"),
    ]


def test_a_machine_is_not_told_of_a_dedicated_interface_but_the_record_is():
    config = ForwarderConfig(PodNetwork(dedicated=True))
    assert json.loads(dump(config))["pod-network"]["dedicated"] is False
    assert load(dump(config)) == config
    assert load('{"pod-network": {"dedicated": true}}').network.dedicated


@pytest.mark.parametrize(
    ("text", "suites"), [('["A", "B"]', "A,B"), ('"A, B"', "A,B"), ("null", ""), ('""', "")], ids=lambda value: value
)
def test_cipher_suites_are_a_list_or_a_text_of_earlier_adaptors(text, suites):
    assert load(f'{{"tls-cipher-suites": {text}}}').tls_cipher_suites == suites


@pytest.mark.parametrize("text", ["3", "[3]"])
def test_cipher_suites_of_another_form_are_refused(text):
    with pytest.raises(MalformedConfig, match="tls-cipher-suites"):
        load(f'{{"tls-cipher-suites": {text}}}')


def test_what_is_zero_and_ours_is_left_out():
    net = json.loads(dump(ForwarderConfig()))["pod-network"]
    assert not {"vxlan-port", "vxlan-id", "kata-py-dedicated", "kata-py-pod-ips", "kata-py-interfaces"} & net.keys()


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
        ({"podip": "::ffff:10.0.0.1/120"}, "podip"),
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
