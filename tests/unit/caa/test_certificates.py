"""Certificates of pod VMs, of who signs them, and of the adaptor."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kata_caa.certificates import CLOCK_SKEW, VALIDITY, Authority, Pair, dump, load, make_authority

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
NAME = "podvm-web-12345678"
AUTHORITY = make_authority(NOW)
SERVER = AUTHORITY.issue(NAME, NOW)


def parse(pair):
    return x509.load_pem_x509_certificate(pair.certificate.encode())


def extension(pair, kind):
    return parse(pair).extensions.get_extension_for_class(kind).value


def names(pair):
    return {attribute.oid: attribute.value for attribute in parse(pair).subject}


PAIRS = {"ca": AUTHORITY.ca, "client": AUTHORITY.client, "server": SERVER}


@pytest.mark.parametrize("role", PAIRS)
def test_every_key_is_p_256_in_pkcs_8_and_its_certificate_s(role):
    pair = PAIRS[role]
    assert pair.key.startswith("-----BEGIN PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(pair.key.encode(), None)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == parse(pair).public_key()


@pytest.mark.parametrize("role", PAIRS)
def test_every_certificate_is_valid_for_two_years_and_from_a_little_before(role):
    made = parse(PAIRS[role])
    assert made.not_valid_before_utc == NOW - CLOCK_SKEW
    assert made.not_valid_after_utc == NOW + VALIDITY
    assert 0 < made.serial_number < 1 << 128


@pytest.mark.parametrize("role", PAIRS)
def test_every_certificate_may_sign_and_only_the_ca_is_one(role):
    usage = extension(PAIRS[role], x509.KeyUsage)
    assert usage.key_cert_sign
    assert usage.digital_signature
    assert not usage.key_encipherment
    assert extension(PAIRS[role], x509.BasicConstraints).ca is (role == "ca")


def test_the_client_is_one_and_the_others_are_servers():
    uses = {role: list(extension(pair, x509.ExtendedKeyUsage)) for role, pair in PAIRS.items()}
    server = [ExtendedKeyUsageOID.SERVER_AUTH]
    assert uses == {"ca": server, "server": server, "client": [ExtendedKeyUsageOID.CLIENT_AUTH]}


def test_subjects_are_upstream_s():
    organization, common = NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME
    assert names(AUTHORITY.ca) == {organization: "agent-protocol-forwarder"}
    assert names(AUTHORITY.client) == {organization: "cloud-api-adaptor"}
    assert names(SERVER) == {organization: "agent-protocol-forwarder", common: NAME}


def test_a_server_has_the_machine_s_name_alone_and_is_signed_by_the_ca():
    alternative = extension(SERVER, x509.SubjectAlternativeName)
    assert [(type(name), name.value) for name in alternative] == [(x509.DNSName, NAME)]
    parse(SERVER).verify_directly_issued_by(parse(AUTHORITY.ca))
    assert extension(SERVER, x509.AuthorityKeyIdentifier).key_identifier == (
        extension(AUTHORITY.ca, x509.SubjectKeyIdentifier).digest
    )


def test_a_server_s_certificate_ends_with_its_issuer_s():
    late = NOW + datetime.timedelta(days=700)
    assert parse(AUTHORITY.issue(NAME, late)).not_valid_after_utc == NOW + VALIDITY
    early = NOW - datetime.timedelta(days=1)
    assert parse(AUTHORITY.issue(NAME, early)).not_valid_before_utc == NOW - CLOCK_SKEW


def test_no_two_serial_numbers_are_the_same():
    assert len({parse(AUTHORITY.issue(NAME, NOW)).serial_number for _ in range(20)}) == 20


def test_an_authority_is_read_as_it_was_written():
    assert load(dump(AUTHORITY)) == AUTHORITY


def test_keys_are_not_shown():
    assert "PRIVATE" not in repr(AUTHORITY) + repr(SERVER)


OTHER = make_authority(NOW)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "PEM"),
        ("nothing\n", "PEM"),
        (dump(AUTHORITY)[:-300], "1 keys"),
        (AUTHORITY.ca.certificate + AUTHORITY.ca.key, "1 certificates"),
        (dump(Authority(AUTHORITY.ca, Pair(AUTHORITY.client.certificate, OTHER.client.key), NOW, "")), "not its"),
        (dump(Authority(AUTHORITY.client, AUTHORITY.ca, NOW, "")), "signer's and a client's"),
        (dump(Authority(AUTHORITY.ca, SERVER, NOW, "")), "not signed"),
        (dump(AUTHORITY).replace("-----BEGIN CERTIFICATE-----\nMI", "-----BEGIN CERTIFICATE-----\nXX", 1), "parsing"),
    ],
)
def test_what_is_no_authority_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        load(text)
