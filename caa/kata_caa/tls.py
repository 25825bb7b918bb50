"""The adaptor's TLS: what a new pod VM is given, and how a pod VM is dialled, also after a restart.

There are three ways, and a pod VM stays with the one that it was started with, whatever is configured later:

    1-0123456789abcdef  an authority of our own signs a certificate for each pod VM (`kata_caa.authorities`)
    files               the operator's: pod VMs' images have a pair of his, all for one name; nothing is issued
    none                without TLS

Source: cloud-api-adaptor `pkg/util/tlsutil/tls.go`, `pkg/adaptor/proxy/factory.go`, `docs/tls-proxy-forwarder.md`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kata_caa.authorities import Authorities, Clock, utc_now
from kata_caa.certificates import Pair
from kata_caa.config import AdaptorConfig
from kata_caa.errors import MalformedConfig, SettingError, TlsError
from kata_caa.forwarder.tls import VERSIONS, openssl_ciphers, pem_file

CUSTOM_SERVER_NAME: Final = "podvm-server"
"""The name in the certificate of pod VMs whose image has the operator's pair."""

_FILES: Final = "files"
_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Profile:
    """How TLS is used.

    Attributes:
        ca_file: PEM of whom to trust; with it nothing is issued.
        cert_file: PEM of the adaptor's own certificate, or chain; with `key_file`, in the place of a made one.
        key_file: PEM of its key.
        skip_verify: Do not look at the pod VM's certificate; for tests.
        min_version: `VersionTLS12` or `VersionTLS13`; empty is 1.2.
        cipher_suites: IANA names, comma-separated; empty is OpenSSL's choice.
        disable: No TLS at all; for tests.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    skip_verify: bool = False
    min_version: str = ""
    cipher_suites: str = ""
    disable: bool = False

    def check(self) -> None:
        """See whether it can be.

        Raises:
            SettingError: A value cannot be used, or two do not go together; names them.
        """
        if self.min_version not in ("", *VERSIONS):
            raise SettingError(f"-tls-min-version: {self.min_version!r:.80} is neither of {', '.join(VERSIONS)}")
        if self.cipher_suites and self.min_version == "VersionTLS13":
            raise SettingError("-tls-cipher-suites does not go with VersionTLS13, whose suites are not for choice")
        try:
            openssl_ciphers(self.cipher_suites)
        except MalformedConfig as error:
            raise SettingError(f"-{error}") from None
        if self.skip_verify and self.ca_file:
            raise SettingError(
                "-tls-skip-verify does not go with -ca-cert-file: whom to trust, if nobody is looked at?"
            )
        if bool(self.cert_file) != bool(self.key_file):
            raise SettingError("-cert-file and -cert-key go together: one of them is missing")


def profile_of(config: AdaptorConfig) -> Profile:
    """How TLS is used by the adaptor's settings."""
    return Profile(
        ca_file=config.ca_cert_file,
        cert_file=config.cert_file,
        key_file=config.cert_key,
        skip_verify=config.tls_skip_verify,
        min_version=config.tls_min_version,
        cipher_suites=config.tls_cipher_suites,
        disable=config.disable_tls,
    )


@dataclass(frozen=True, slots=True)
class Issued:
    """What a new pod VM is given.

    Attributes:
        material: With what it is dialled from now on: for `Tls.dialer`, and to be kept with the pod.
        server: Its pair; None if its image has one, or needs none.
        client_ca: PEM of whom it trusts; empty if its image says so, or it needs nobody.
    """

    material: str
    server: Pair | None = None
    client_ca: str = ""


@dataclass(frozen=True, slots=True)
class Dialer:
    """How a pod VM is dialled.

    Attributes:
        server_name: The name that its certificate must have.
        context: None is without TLS.
    """

    server_name: str
    context: ssl.SSLContext | None = field(repr=False)


class Tls:
    """TLS by a profile. Its methods read and write small files: call them off the event loop.

    Args:
        profile: How.
        directory: Where authorities are kept.
        clock: Gives the time.

    Raises:
        SettingError: The profile cannot be.
    """

    def __init__(self, profile: Profile, directory: Path, clock: Clock = utc_now) -> None:
        profile.check()
        self._profile = profile
        self._clock = clock
        self._authorities = Authorities(directory, clock)
        self._contexts: dict[str, ssl.SSLContext] = {}

    def check(self) -> None:
        """Read, or make, all that new pod VMs need, so that what is wrong is known at the start.

        Raises:
            TlsError: A file cannot be used.
        """
        self._context(self._material())

    def issue(self, name: str) -> Issued:
        """What a new pod VM is given.

        Args:
            name: The machine's.

        Raises:
            TlsError: A file cannot be used.
        """
        material = self._material()
        if material in (_NONE, _FILES):
            return Issued(material)
        authority = self._authorities.find(material)
        client = self._own_pair() or authority.client
        return Issued(material, authority.issue(name, self._clock()), client.certificate)

    def dialer(self, material: str, name: str) -> Dialer:
        """How a pod VM is dialled.

        Args:
            material: As it was issued.
            name: The machine's.

        Raises:
            TlsError: A file is gone, or cannot be used.
        """
        if material == _NONE:
            return Dialer(name, None)
        return Dialer(CUSTOM_SERVER_NAME if material == _FILES else name, self._context(material))

    def _material(self) -> str:
        if self._profile.disable:
            return _NONE
        return _FILES if self._profile.ca_file else self._authorities.current()[0]

    def _own_pair(self) -> Pair | None:
        profile = self._profile
        if not profile.cert_file:
            return None
        return Pair(_read(profile.cert_file, "-cert-file"), _read(profile.key_file, "-cert-key"))

    def _context(self, material: str) -> ssl.SSLContext | None:
        if material == _NONE:
            return None
        if (context := self._contexts.get(material)) is None:
            context = self._contexts[material] = self._make_context(material)
        return context

    def _make_context(self, material: str) -> ssl.SSLContext:
        profile = self._profile
        if material == _FILES:
            if not profile.ca_file:
                raise TlsError(
                    "the pod VM was started with -ca-cert-file, which is not set now: set it, or delete the pod"
                )
            trusted, source = _read(profile.ca_file, "-ca-cert-file"), f"-ca-cert-file {profile.ca_file}"
            client = self._own_pair() or self._authorities.current()[1].client
        else:
            authority = self._authorities.find(material)
            trusted, source = authority.ca.certificate, f"authority {material}"
            # A file's pair beside a file's CA is of other pod VMs.
            client = (None if profile.ca_file else self._own_pair()) or authority.client
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS.get(profile.min_version, ssl.TLSVersion.TLSv1_2)
        if suites := openssl_ciphers(profile.cipher_suites):
            context.set_ciphers(suites)
        elif profile.cipher_suites:
            context.minimum_version = ssl.TLSVersion.TLSv1_3  # it has TLS 1.3's suites alone
        try:
            context.load_verify_locations(cadata=trusted)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"{source} has no certificates in PEM: {_reason(error)}") from None
        # As in Go, what is trusted is trusted by itself, whoever signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if profile.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            with pem_file(client.certificate) as certificate, pem_file(client.key) as key:
                context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(
                f"-cert-file {profile.cert_file} and -cert-key {profile.key_file} cannot be used: {_reason(error)}"
            ) from None
        return context


def _read(path: str, flag: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no PEM"
        raise TlsError(f"{flag} {path} cannot be read: {reason}") from error


def _no_password() -> str:
    raise ValueError("the key is locked by a password")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__
