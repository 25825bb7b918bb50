"""The forwarder's TLS: its own certificate, and whose it trusts.

Source: cloud-api-adaptor `pkg/util/tlsutil/tls.go`, `pkg/forwarder/forwarder.go`; Go `crypto/tls/cipher_suites.go`;
IANA's registry of TLS cipher suites; OpenSSL's manual, ciphers(1).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from kata_caa.errors import MalformedConfig

VERSIONS: Final = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}

CIPHER_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    # Their names in Go before they had those.
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
"""OpenSSL's names of TLS 1.2's suites that Go has, by IANA's; those of TLS 1.3 are not for choice."""

_OF_TLS13: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


@dataclass(frozen=True, slots=True)
class Material:
    """What a TLS listener is made of.

    Attributes:
        certificate: PEM, the chain; the server's.
        key: PEM; secret.
        client_ca: PEM of whom is trusted; empty trusts everybody, where that was asked for.
        min_version: One of `VERSIONS`; empty is 1.2.
        cipher_suites: IANA names, comma-separated; empty is OpenSSL's choice.
    """

    certificate: str
    key: str = field(repr=False)
    client_ca: str = ""
    min_version: str = ""
    cipher_suites: str = ""


def server_context(material: Material) -> ssl.SSLContext:
    """A listener's context: it wants the client's certificate, if there is somebody to trust.

    Raises:
        MalformedConfig: A part cannot be used; names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if material.min_version not in ("", *VERSIONS):
        raise MalformedConfig(f"tls-min-version cannot be {material.min_version!r}, but {' or '.join(VERSIONS)}")
    context.minimum_version = VERSIONS.get(material.min_version, ssl.TLSVersion.TLSv1_2)
    if suites := openssl_ciphers(material.cipher_suites):
        context.set_ciphers(suites)
    if not material.certificate or not material.key:
        raise MalformedConfig("there is no tls-server-cert or no tls-server-key, and no file was named for them")
    try:
        with pem_file(material.certificate) as certificate, pem_file(material.key) as key:
            context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise MalformedConfig(f"tls-server-cert and tls-server-key cannot be used: {_reason(error)}") from None
    if material.client_ca:
        try:
            context.load_verify_locations(cadata=material.client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise MalformedConfig(f"tls-client-ca cannot be used: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
        # As in Go, what is trusted is trusted by itself: the adaptor's own certificate, mostly.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def openssl_ciphers(suites: str) -> str:
    """OpenSSL's list of the suites before TLS 1.3; empty if there are none to choose.

    Args:
        suites: IANA names, comma-separated.

    Raises:
        MalformedConfig: A name is not known.
    """
    names = [name for name in (part.strip() for part in suites.split(",")) if name and name not in _OF_TLS13]
    unknown = [name for name in names if name not in CIPHER_SUITES]
    if unknown:
        raise MalformedConfig(f"tls-cipher-suites: {', '.join(unknown)} cannot be used")
    return ":".join(CIPHER_SUITES[name] for name in names)


@contextmanager
def pem_file(text: str) -> Iterator[str]:
    """A file in memory for what takes files only: no key is written to a disk."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _no_password() -> str:
    raise ValueError("the key is locked by a password")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__
