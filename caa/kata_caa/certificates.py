"""Certificates of the connection between adaptor and pod VM: who signs, who dials, who answers. No I/O.

An authority is made once and lives long: it signs a certificate for each pod VM, and holds the pair that the adaptor
shows. What is made here passes the rules of Go's crypto/x509 as well as OpenSSL's.
Source: cloud-api-adaptor `pkg/util/tlsutil/certgen.go`; RFC 5280.
"""

from __future__ import annotations

import datetime
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY: Final = datetime.timedelta(days=2 * 365)
"""How long a certificate lasts, if its issuer does."""

CLOCK_SKEW: Final = datetime.timedelta(minutes=5)
"""How far a pod VM's clock may be behind ours."""

SERVER_ORGANIZATION: Final = "agent-protocol-forwarder"
CLIENT_ORGANIZATION: Final = "cloud-api-adaptor"

_KEY: Final = re.compile(r"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key.

    Attributes:
        certificate: PEM, a `CERTIFICATE`; of a file it may be a chain.
        key: PEM, a `PRIVATE KEY` in PKCS#8; secret.
    """

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs pod VMs' certificates, and what the adaptor shows to those pod VMs.

    Attributes:
        ca: The signer's pair; its certificate is what the adaptor trusts.
        client: The adaptor's own pair, self-signed; its certificate is what pod VMs trust.
        expires: When the first of both ends.
        fingerprint: SHA-256 of the signer's certificate, in hexadecimal digits.
    """

    ca: Pair
    client: Pair
    expires: datetime.datetime
    fingerprint: str

    def issue(self, name: str, now: datetime.datetime) -> Pair:
        """Make a pod VM's pair, which ends with its issuer's at the latest.

        Args:
            name: The machine's name: the one DNS name in the certificate.
            now: The time, with its zone.
        """
        issuer = x509.load_pem_x509_certificate(self.ca.certificate.encode())
        signer = _load_key(self.ca.key)
        return _make(SERVER_ORGANIZATION, now, name=name, issuer=issuer, signer=signer)


def make_authority(now: datetime.datetime) -> Authority:
    """Make an authority with new keys.

    Args:
        now: The time, with its zone.
    """
    ca = _make(SERVER_ORGANIZATION, now, is_ca=True)
    client = _make(CLIENT_ORGANIZATION, now, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    return _authority(ca, client)


def dump(authority: Authority) -> str:
    """An authority as one text, in PEM: the signer's certificate and key, then the client's. Secret."""
    ca, client = authority.ca, authority.client
    return ca.certificate + ca.key + client.certificate + client.key


def load(text: str) -> Authority:
    """Read what `dump` wrote.

    Raises:
        ValueError: It is something else, or its parts do not belong together; the text says what.
    """
    certificates = x509.load_pem_x509_certificates(text.encode())
    keys = _KEY.findall(text)
    if (len(certificates), len(keys)) != (2, 2):
        raise ValueError(f"it has {len(certificates)} certificates and {len(keys)} keys instead of two of each")
    for certificate, key in zip(certificates, keys, strict=True):
        if _load_key(key).public_key() != certificate.public_key():
            raise ValueError("a key in it is not its certificate's")
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, ValueError):
            raise ValueError("a certificate in it is not signed by its own key") from None
    roles = [
        certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for certificate in certificates
    ]
    if roles != [True, False]:
        raise ValueError("its certificates are not a signer's and a client's")
    return _authority(*(Pair(_pem(made), key) for made, key in zip(certificates, keys, strict=True)))


def _authority(ca: Pair, client: Pair) -> Authority:
    signer, shown = (x509.load_pem_x509_certificate(pair.certificate.encode()) for pair in (ca, client))
    expires = min(signer.not_valid_after_utc, shown.not_valid_after_utc)
    return Authority(ca, client, expires, signer.fingerprint(hashes.SHA256()).hex())


def _make(
    organization: str,
    now: datetime.datetime,
    *,
    name: str = "",
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    is_ca: bool = False,
    issuer: x509.Certificate | None = None,
    signer: ec.EllipticCurvePrivateKey | None = None,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]
    if name:
        # The common name is for people, and has 64 characters at most; the name that counts is the other one.
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name[:64]))
    subject = x509.Name(attributes)
    begin, end = now - CLOCK_SKEW, now + VALIDITY
    if issuer is not None:
        begin, end = max(begin, issuer.not_valid_before_utc), min(end, issuer.not_valid_after_utc)
    issuer_key = issuer.public_key() if issuer is not None else key.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(secrets.randbelow((1 << 128) - 1) + 1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    if name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    made = builder.sign(signer if signer is not None else key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(_pem(made), secret.decode())


_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _load_key(text: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a key in it is not of an elliptic curve")
    return key
