"""Certificates: what is in them, that they are kept, and that they serve."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kata_caa.tls import RENEWED_BEFORE, VALIDITY, Pair, TlsError, Trust, kept


def certificate(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.encode())


def test_a_vm_s_certificate_is_what_upstream_s_sides_expect(tmp_path: Path):
    authority = kept(tmp_path)
    pair = authority.issue("podvm-web-01234567")
    issued, ca = certificate(pair), certificate(authority.ca)
    assert issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == ["podvm-web-01234567"]
    assert issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "podvm-web-01234567"
    assert issued.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "agent-protocol-forwarder"
    assert list(issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    issued.verify_directly_issued_by(ca)
    assert issued.serial_number < 1 << 128
    assert issued.not_valid_after_utc <= ca.not_valid_after_utc
    key = serialization.load_pem_private_key(pair.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert pair.key.startswith("-----BEGIN PRIVATE KEY-----")


def test_the_adaptor_s_own_is_for_clients(tmp_path: Path):
    own = certificate(kept(tmp_path).client)
    assert list(own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert own.subject == own.issuer
    assert own.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "cloud-api-adaptor"


def test_the_next_adaptor_finds_the_same(tmp_path: Path):
    first = kept(tmp_path / "tls")
    assert kept(tmp_path / "tls") == first
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    for name in ("ca.key", "client.key"):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o777 == 0o600


def test_they_are_made_anew_near_their_end(tmp_path: Path):
    then = datetime.now(UTC)
    first = kept(tmp_path, then)
    assert kept(tmp_path, then + VALIDITY - RENEWED_BEFORE - timedelta(hours=1)) == first
    assert kept(tmp_path, then + VALIDITY - RENEWED_BEFORE + timedelta(hours=1)) != first


def test_a_kill_while_they_are_made_leaves_what_is_made_anew(tmp_path: Path):
    kept(tmp_path)
    (tmp_path / "client.key").unlink()  # the last one to be written
    kept(tmp_path)
    assert kept(tmp_path) == kept(tmp_path)


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "client.crt"])
def test_what_is_missing_is_told_and_not_replaced(tmp_path: Path, name: str):
    kept(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(TlsError, match=f"{name} is missing; pods that run need it"):
        kept(tmp_path)


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "client.crt", "client.key"])
def test_what_is_damaged_is_told_and_not_replaced(tmp_path: Path, name: str):
    kept(tmp_path)
    (tmp_path / name).write_text("x")
    with pytest.raises(TlsError, match=f"{name} is damaged"):
        kept(tmp_path)
    assert (tmp_path / name).read_text() == "x"


def test_keys_are_not_shown(tmp_path: Path):
    assert "PRIVATE" not in repr(kept(tmp_path))


def test_a_connection_without_anybody_to_trust_takes_any_certificate(tmp_path: Path):
    authority = kept(tmp_path)
    assert Trust("", authority.client).context().verify_mode == ssl.CERT_NONE
    context = Trust(authority.ca.certificate, authority.client, ssl.TLSVersion.TLSv1_3).context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_what_is_no_certificate_cannot_be_trusted(tmp_path: Path):
    with pytest.raises(TlsError, match="cannot be used"):
        Trust("x", None).context()
