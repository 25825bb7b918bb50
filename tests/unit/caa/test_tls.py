"""What pod VMs are given, and how they are dialled: profiles, and handshakes in memory."""

from __future__ import annotations

import datetime
import ssl

import pytest

from kata_caa.authorities import RENEW_BEFORE
from kata_caa.errors import SettingError, TlsError
from kata_caa.forwarder.tls import Material, server_context
from kata_caa.tls import CUSTOM_SERVER_NAME, Profile, Tls
from tests.pki import pair

NAME = "podvm-web-12345678"


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "tls"


@pytest.fixture
def files(tmp_path):
    """An operator's own certificates."""
    ca = pair("operator", ca=True)
    made = {"ca": ca, "server": pair(CUSTOM_SERVER_NAME, issuer=ca), "client": pair("adaptor", client=True)}
    for name, each in made.items():
        (tmp_path / f"{name}.crt").write_text(each.certificate)
        (tmp_path / f"{name}.key").write_text(each.key)
    return made


def custom(tmp_path, **more):
    paths = {"ca_file": "ca.crt", "cert_file": "client.crt", "key_file": "client.key"}
    return Profile(**({name: str(tmp_path / path) for name, path in paths.items()} | more))


def handshake(dialer, material):
    """Shake hands in memory, as the forwarder listens; gives the dialler's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = dialer.context.wrap_bio(to_client, to_server, server_hostname=dialer.server_name)
    server = server_context(material).wrap_bio(to_server, to_client, server_side=True)
    ends = [client, server]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not ends:
            return client
    raise AssertionError("the handshake did not end")


def listener(issued, **more):
    return Material(issued.server.certificate, issued.server.key, issued.client_ca, **more)


def test_a_new_pod_vm_is_dialled_with_what_it_was_given(directory):
    tls = Tls(Profile(), directory)
    issued = tls.issue(NAME)
    assert handshake(tls.dialer(issued.material, NAME), listener(issued)).version() == "TLSv1.3"


def test_a_pod_vm_is_dialled_also_after_a_restart(directory):
    issued = Tls(Profile(), directory).issue(NAME)
    handshake(Tls(Profile(), directory).dialer(issued.material, NAME), listener(issued))


def test_a_pod_vm_is_dialled_also_after_its_authority_was_followed_by_another(directory):
    tls = Tls(Profile(), directory)
    old = tls.issue(NAME)
    later = datetime.datetime.now(datetime.UTC) + RENEW_BEFORE + datetime.timedelta(days=1)
    restarted = Tls(Profile(), directory, lambda: later)
    new = restarted.issue(NAME)
    assert new.material != old.material
    handshake(restarted.dialer(old.material, NAME), listener(old))
    with pytest.raises(ssl.SSLError):
        handshake(restarted.dialer(new.material, NAME), listener(old))


def test_a_pod_vm_of_another_name_is_not_taken_for_this_one(directory):
    tls = Tls(Profile(), directory)
    issued = tls.issue("podvm-db-12345678")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tls.dialer(issued.material, NAME), listener(issued))


def test_a_pod_vm_of_another_node_is_not_taken_for_one_of_this(directory, tmp_path):
    tls = Tls(Profile(), directory)
    other = Tls(Profile(), tmp_path / "other").issue(NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.dialer(tls.issue(NAME).material, NAME), listener(other))


def test_an_adaptor_of_another_node_is_not_let_in(directory, tmp_path):
    tls = Tls(Profile(), directory)
    issued = tls.issue(NAME)
    other = Tls(Profile(skip_verify=True), tmp_path / "other")
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed"):
        handshake(other.dialer(other.issue(NAME).material, NAME), listener(issued))


def test_nobody_is_looked_at_if_that_is_asked_for(directory):
    tls = Tls(Profile(skip_verify=True), directory)
    issued = tls.issue("podvm-db-12345678")
    handshake(tls.dialer(issued.material, NAME), listener(issued))


def test_with_the_operator_s_certificates_nothing_is_issued(directory, tmp_path, files):
    tls = Tls(custom(tmp_path), directory)
    issued = tls.issue(NAME)
    assert (issued.server, issued.client_ca) == (None, "")
    dialer = tls.dialer(issued.material, NAME)
    assert dialer.server_name == "podvm-server"
    handshake(dialer, Material(files["server"].certificate, files["server"].key, files["client"].certificate))
    assert not directory.exists()


def test_with_the_operator_s_client_alone_pod_vms_trust_it(directory, tmp_path, files):
    tls = Tls(custom(tmp_path, ca_file=""), directory)
    issued = tls.issue(NAME)
    assert issued.client_ca == files["client"].certificate
    handshake(tls.dialer(issued.material, NAME), listener(issued))


def test_with_the_operator_s_ca_alone_the_adaptor_shows_its_own_certificate(directory, tmp_path, files):
    tls = Tls(custom(tmp_path, cert_file="", key_file=""), directory)
    dialer = tls.dialer(tls.issue(NAME).material, NAME)
    client_ca = Tls(Profile(), directory).issue(NAME).client_ca
    handshake(dialer, Material(files["server"].certificate, files["server"].key, client_ca))


def test_a_pod_vm_stays_with_what_it_was_started_with(directory, tmp_path, files):
    issued = Tls(Profile(), directory).issue(NAME)
    now_custom = Tls(custom(tmp_path), directory)
    handshake(now_custom.dialer(issued.material, NAME), listener(issued))
    now_without = Tls(Profile(disable=True), directory)
    handshake(now_without.dialer(issued.material, NAME), listener(issued))
    started_with_files = now_custom.issue(NAME).material
    with pytest.raises(TlsError, match="started with -ca-cert-file, which is not set now"):
        Tls(Profile(), directory).dialer(started_with_files, NAME)


def test_without_tls_nothing_is_made(directory):
    tls = Tls(Profile(disable=True), directory)
    tls.check()
    issued = tls.issue(NAME)
    assert (issued.server, issued.client_ca) == (None, "")
    assert tls.dialer(issued.material, NAME).context is None
    assert Tls(Profile(), directory).dialer(issued.material, NAME).context is None
    assert not directory.exists()


def test_versions_and_suites_are_the_profile_s(directory):
    tls = Tls(Profile(min_version="VersionTLS13"), directory)
    issued = tls.issue(NAME)
    dialer = tls.dialer(issued.material, NAME)
    assert dialer.context.minimum_version is ssl.TLSVersion.TLSv1_3
    tls = Tls(Profile(cipher_suites="TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), directory)
    dialer = tls.dialer(issued.material, NAME)
    assert dialer.context.minimum_version is ssl.TLSVersion.TLSv1_2
    dialer.context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(dialer, listener(issued)).cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_suites_of_tls_1_3_alone_make_it_the_floor(directory):
    tls = Tls(Profile(cipher_suites="TLS_AES_128_GCM_SHA256"), directory)
    dialer = tls.dialer(tls.issue(NAME).material, NAME)
    assert dialer.context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile(min_version="TLS1.2"), "-tls-min-version"),
        (Profile(min_version="VersionTLS11"), "VersionTLS11"),
        (Profile(cipher_suites="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", min_version="VersionTLS13"), "VersionTLS13"),
        (Profile(cipher_suites="ECDHE-RSA-AES128-GCM-SHA256"), "-tls-cipher-suites: ECDHE-RSA"),
        (Profile(skip_verify=True, ca_file="/ca"), "-tls-skip-verify"),
        (Profile(cert_file="/cert"), "-cert-key"),
        (Profile(key_file="/key"), "-cert-file"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(directory, profile, words):
    with pytest.raises(SettingError, match=words):
        Tls(profile, directory)


@pytest.mark.parametrize("name", ["ca.crt", "client.crt", "client.key"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it_from_the_start(directory, tmp_path, files, name, content):
    path = tmp_path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TlsError, match=str(path)):
        Tls(custom(tmp_path), directory).check()


def test_a_key_of_another_certificate_is_an_error(directory, tmp_path, files):
    (tmp_path / "client.key").write_text(files["ca"].key)
    with pytest.raises(TlsError, match=r"-cert-key .*client.key cannot be used: KEY_VALUES_MISMATCH"):
        Tls(custom(tmp_path), directory).check()


def test_keys_are_not_shown(directory):
    tls = Tls(Profile(), directory)
    assert "PRIVATE" not in repr(tls.issue(NAME))
