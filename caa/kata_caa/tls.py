"""Certificates: an authority of this node, which vouches for pod VMs, and what the adaptor proves itself with.

They are made once and kept, so that VMs which were started by an earlier adaptor are reached by the next one.
Source: cloud-api-adaptor `pkg/util/tlsutil/certgen.go`, `tls.go`, `pkg/adaptor/proxy/factory.go`; Go's `crypto/x509`
wants names in the alternative names, and usages.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kata_caa.errors import AdaptorError

VALIDITY = timedelta(days=2 * 365)
BACKDATED = timedelta(minutes=5)  # clocks differ
RENEWED_BEFORE = timedelta(days=180)  # a VM lives as long as its pod

_ADAPTOR, _FORWARDER = "cloud-api-adaptor", "agent-protocol-forwarder"
_FILES = ("ca.crt", "ca.key", "client.crt", "client.key")


class TlsError(AdaptorError):
    """Certificates or keys cannot be used, or kept; names the file."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who vouches for pod VMs, and what the adaptor proves itself with.

    Attributes:
        ca: Signs the VMs' certificates.
        client: The adaptor's own, self-signed: forwarders are told to trust this one certificate.
    """

    ca: Pair
    client: Pair

    def issue(self, name: str, now: datetime | None = None) -> Pair:
        """What a pod VM of that name proves itself with. Blocks for some milliseconds."""
        issuer = x509.load_pem_x509_certificate(self.ca.certificate.encode())
        signer = _load_key(self.ca.key)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([*_organisation(_FORWARDER), x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(
            subject, issuer.subject, key, now, ExtendedKeyUsageOID.SERVER_AUTH, ends=issuer.not_valid_after_utc
        )
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        return _signed(builder, key, signer)


def kept(directory: Path, now: datetime | None = None) -> Authority:
    """The authority kept in a directory, made if there is none yet. Blocks.

    Near its end it is made anew: a VM of the old one is not reached any more then, which is why that is half a year
    before the end. What is damaged is never replaced, as pods may run on it.

    Raises:
        TlsError: Something in it cannot be read or written; names the file, and what to do.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        present = [name for name in _FILES if (directory / name).exists()]
    except OSError as error:
        raise TlsError(f"{directory} cannot be used for certificates: {error.strerror}") from error
    if present and len(present) < len(_FILES) and "client.key" in present:
        missing = ", ".join(name for name in _FILES if name not in present)
        raise TlsError(
            f"{directory}: {missing} is missing; pods that run need it: restore it, or stop them and remove all"
        )
    if len(present) == len(_FILES):
        authority = _read(directory)
        if _ends(authority, directory) - (now or datetime.now(UTC)) > RENEWED_BEFORE:
            return authority
    authority = Authority(_self_signed(_FORWARDER, now, ca=True), _self_signed(_ADAPTOR, now, ca=False))
    texts = (authority.ca.certificate, authority.ca.key, authority.client.certificate, authority.client.key)
    for name, text in zip(_FILES, texts, strict=True):  # the last one says that all are there
        _write(directory / name, text)
    return authority


@dataclass(frozen=True, slots=True)
class Trust:
    """What a connection to a pod VM is made with.

    Attributes:
        ca: PEM of whom the VM's certificate must come from; empty takes any, for debugging.
        client: What the adaptor proves itself with.
        minimum: The lowest version of TLS.
        ciphers: OpenSSL's names, for TLS 1.2; empty is its choice.
    """

    ca: str
    client: Pair | None
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ciphers: str = ""

    def context(self) -> ssl.SSLContext:
        """A client's context.

        Raises:
            TlsError: A part cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = self.minimum
        try:
            if self.ciphers:
                context.set_ciphers(self.ciphers)
            if self.ca:
                context.load_verify_locations(cadata=self.ca)
            else:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.client is not None:
                _load_pair(context, self.client)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"certificates cannot be used: {error}") from error
        return context


def read_pair(certificate: Path, key: Path) -> Pair:
    """A certificate and its key from files of a person's own.

    Raises:
        TlsError: One cannot be read.
    """
    return Pair(read(certificate), read(key))


def read(path: Path) -> str:
    """The text of a PEM file.

    Raises:
        TlsError: It cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TlsError(f"{path} cannot be read: {error}") from error


def _load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Python's context takes files alone: one in memory, so that the key is on no disk for this."""
    with os.fdopen(os.memfd_create("pair", os.MFD_CLOEXEC), "w") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def _read(directory: Path) -> Authority:
    ca_certificate, ca_key, certificate, key = (read(directory / name) for name in _FILES)
    for name, text in (("ca.key", ca_key), ("client.key", key)):
        try:
            _load_key(text)
        except ValueError as error:
            raise _damaged(directory / name) from error
    return Authority(Pair(ca_certificate, ca_key), Pair(certificate, key))


def _ends(authority: Authority, directory: Path) -> datetime:
    ends = []
    for name, pair in (("ca.crt", authority.ca), ("client.crt", authority.client)):
        try:
            ends.append(x509.load_pem_x509_certificate(pair.certificate.encode()).not_valid_after_utc)
        except ValueError as error:
            raise _damaged(directory / name) from error
    return min(ends)


def _damaged(path: Path) -> TlsError:
    return TlsError(f"{path} is damaged; pods that run need it: restore it, or stop them and remove {path.parent}")


def _load_key(text: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(text.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("no key on an elliptic curve")
    return key


def _self_signed(organisation: str, now: datetime | None, *, ca: bool) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(_organisation(organisation))
    usage = ExtendedKeyUsageOID.SERVER_AUTH if ca else ExtendedKeyUsageOID.CLIENT_AUTH
    return _signed(_builder(name, name, key, now, usage, ca=ca), key, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime | None,
    usage: x509.ObjectIdentifier,
    *,
    ca: bool = False,
    ends: datetime | None = None,
) -> x509.CertificateBuilder:
    begins = (now or datetime.now(UTC)) - BACKDATED
    until = begins + BACKDATED + VALIDITY
    key_usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() >> 32)  # below 2^128, as upstream's
        .not_valid_before(begins)
        .not_valid_after(min(until, ends) if ends else until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> Pair:
    certificate = builder.sign(by, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def _organisation(name: str) -> list[x509.NameAttribute[str]]:
    return [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        beside.rename(path)
    except OSError as error:
        raise TlsError(f"{path} cannot be written: {error.strerror}") from error
