"""The forwarder's TLS: what goes into it, and what it refuses."""

from __future__ import annotations

import ssl

import pytest

from kata_caa.apf import ForwarderConfig
from kata_caa.errors import MalformedConfig, SettingError
from kata_caa.forwarder import daemon
from kata_caa.forwarder.command import Options
from kata_caa.forwarder.tls import CIPHER_SUITES, Material, openssl_ciphers, server_context
from tests.pki import pair

SERVER = pair("podvm-web-12345678")
CLIENT = pair("adaptor", client=True)


def material(**changed):
    return Material(
        **({"certificate": SERVER.certificate, "key": SERVER.key, "client_ca": CLIENT.certificate} | changed)
    )


def test_a_client_must_show_its_certificate():
    context = server_context(material())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509"] == 1


def test_versions_and_suites_are_as_apf_json_says():
    assert server_context(material(min_version="VersionTLS13")).minimum_version is ssl.TLSVersion.TLSv1_3
    names = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256"
    ciphers = server_context(material(cipher_suites=names)).get_ciphers()
    assert {each["name"] for each in ciphers if each["protocol"] == "TLSv1.2"} == {"ECDHE-ECDSA-AES128-GCM-SHA256"}


def test_every_suite_that_has_a_name_is_one_of_openssl():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, openssl in CIPHER_SUITES.items():
        context.set_ciphers(f"{openssl}:@SECLEVEL=0")
        assert openssl in {each["name"] for each in context.get_ciphers()}, name
        assert openssl_ciphers(name) == openssl


def test_suites_of_tls_1_3_are_not_for_choice():
    assert openssl_ciphers("") == openssl_ciphers("TLS_AES_256_GCM_SHA384") == ""


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"certificate": ""}, "no tls-server-cert"),
        ({"key": CLIENT.key}, "tls-server-key cannot be used"),
        ({"certificate": "x"}, "tls-server-cert"),
        ({"client_ca": "x"}, "tls-client-ca cannot be used"),
        ({"min_version": "TLS1"}, "tls-min-version cannot be 'TLS1'"),
        ({"cipher_suites": "TLS_RSA_WITH_RC4_128_SHA,x"}, "TLS_RSA_WITH_RC4_128_SHA, x"),
    ],
)
def test_what_cannot_be_used_is_named_and_no_secret_told(changed, says):
    with pytest.raises(MalformedConfig, match=says) as caught:
        server_context(material(**changed))
    assert "PRIVATE" not in str(caught.value)
    assert "PRIVATE" not in repr(material())


def test_files_that_are_named_go_before_apf_json(tmp_path):
    for name, text in (("crt", SERVER.certificate), ("key", SERVER.key), ("ca", CLIENT.certificate)):
        (tmp_path / name).write_text(text)
    options = Options(cert_file=str(tmp_path / "crt"), key_file=str(tmp_path / "key"), ca_file=str(tmp_path / "ca"))
    context = daemon.context(options, ForwarderConfig(tls_server_key="x", tls_server_cert="x", tls_client_ca="x"))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(SettingError, match="gone cannot be read"):
        daemon.context(Options(ca_file=str(tmp_path / "gone")), ForwarderConfig())


def test_nobody_is_trusted_unless_that_is_asked_for():
    config = ForwarderConfig(tls_server_key=SERVER.key, tls_server_cert=SERVER.certificate)
    with pytest.raises(SettingError, match="whom to trust is not said"):
        daemon.context(Options(), config)
    context = daemon.context(Options(skip_verify=True), config)
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    with pytest.raises(SettingError, match="tls-skip-verify goes with no"):
        daemon.context(Options(skip_verify=True), ForwarderConfig(tls_client_ca=CLIENT.certificate))
    assert daemon.context(Options(disable_tls=True), ForwarderConfig()) is None
