"""How pods' agents are reached: certificates for their VMs, and a proxy for each.

Source: cloud-api-adaptor `pkg/adaptor/proxy/factory.go`, `docs/tls-proxy-forwarder.md`.
"""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kata_caa import apf, tls
from kata_caa.config import AdaptorConfig
from kata_caa.errors import MalformedConfig, SettingError
from kata_caa.forwarder.tls import VERSIONS, openssl_ciphers
from kata_caa.proxy import AgentProxy, Endpoint
from kata_caa.record import PodRecord, PodRecords

CUSTOM_NAME = "podvm-server"  # what the certificates in images of one's own are made for


class Gateway:
    """Satisfies `kata_caa.pods.Credentials`, and makes proxies. Making one reads or writes certificates, and blocks.

    Args:
        config: The adaptor's settings.
        records: Where pods' sockets are.

    Raises:
        SettingError: Settings of TLS contradict each other.
        TlsError: Certificates cannot be used.
    """

    def __init__(self, config: AdaptorConfig, records: PodRecords) -> None:
        self._config = config
        self._records = records
        self._authority: tls.Authority | None = None
        self._context: ssl.SSLContext | None = None
        if not config.disable_tls:
            self._context = self._trust().context()

    def issue(self, name: str) -> apf.ForwarderConfig:
        """What a machine's forwarder proves itself with, and whom it trusts."""
        if self._authority is None:  # the image has its own
            return apf.ForwarderConfig()
        pair = self._authority.issue(name)
        return apf.ForwarderConfig(
            tls_server_key=pair.key,
            tls_server_cert=pair.certificate,
            tls_client_ca=self._authority.client.certificate,
            tls_min_version=self._config.tls_min_version,
            tls_cipher_suites=self._config.tls_cipher_suites,
        )

    def proxy(self, record: PodRecord) -> AbstractAsyncContextManager[AgentProxy]:
        """The proxy of a pod whose machine has an address."""
        name = record.instance_name if self._authority is not None else CUSTOM_NAME
        endpoint = Endpoint(record.addresses[0], self._config.forwarder_port, name, self._context)
        config, socket = self._config, self._records.socket(record.sandbox_id)
        return AgentProxy(socket, endpoint, timeout=config.proxy_timeout, redial=config.redial_timeout)

    def _trust(self) -> tls.Trust:
        config = self._config
        if config.tls_min_version and config.tls_min_version not in VERSIONS:
            raise SettingError(f"-tls-min-version: {config.tls_min_version!r} is none of {', '.join(VERSIONS)}")
        minimum = VERSIONS.get(config.tls_min_version, ssl.TLSVersion.TLSv1_2)
        if config.tls_cipher_suites and minimum is ssl.TLSVersion.TLSv1_3:
            raise SettingError("-tls-cipher-suites: the suites of TLS 1.3 cannot be chosen")
        try:
            ciphers = openssl_ciphers(config.tls_cipher_suites)
        except MalformedConfig as error:
            raise SettingError(f"-{error}") from error
        if config.ca_cert_file:
            client = None
            if config.cert_file or config.cert_key:
                client = tls.read_pair(Path(config.cert_file), Path(config.cert_key))
            ca = tls.read(Path(config.ca_cert_file))
        else:
            self._authority = tls.kept(Path(config.socket).parent / "tls")
            client, ca = self._authority.client, self._authority.ca.certificate
        return tls.Trust("" if config.tls_skip_verify else ca, client, minimum, ciphers)
