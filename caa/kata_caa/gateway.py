"""How pods' agents are reached: certificates for their VMs, and a proxy for each.

Source: cloud-api-adaptor `pkg/adaptor/proxy/factory.go`.
"""

from __future__ import annotations

from pathlib import Path

from kata_caa import apf
from kata_caa.config import AdaptorConfig
from kata_caa.pods import Issued
from kata_caa.proxy import AgentProxy, Endpoint
from kata_caa.record import PodRecord, PodRecords
from kata_caa.tls import Profile, Tls
from kata_py.resource.blocking import off_loop


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
        profile = Profile(
            ca_file=config.ca_cert_file,
            cert_file=config.cert_file,
            key_file=config.cert_key,
            skip_verify=config.tls_skip_verify,
            min_version=config.tls_min_version,
            cipher_suites=config.tls_cipher_suites,
            disable=config.disable_tls,
        )
        self._tls = Tls(profile, Path(config.socket).parent / "tls")
        self._tls.check()

    def issue(self, name: str) -> Issued:
        """What a machine's forwarder proves itself with, and whom it trusts."""
        issued = self._tls.issue(name)
        config = apf.ForwarderConfig(
            tls_server_key=issued.server.key if issued.server else "",
            tls_server_cert=issued.server.certificate if issued.server else "",
            tls_client_ca=issued.client_ca,
            tls_min_version=self._config.tls_min_version,
            tls_cipher_suites=self._config.tls_cipher_suites,
        )
        return Issued(issued.material, config)

    async def proxy(self, record: PodRecord) -> AgentProxy:
        """The proxy of a pod whose machine has an address.

        Raises:
            TlsError: What it was started with is gone.
        """
        dialer = await off_loop(self._tls.dialer, record.material, record.instance_name)
        config = self._config
        return AgentProxy(
            self._records.socket(record.sandbox_id),
            Endpoint(record.addresses[0], config.forwarder_port, dialer.server_name, dialer.context),
            timeout=config.proxy_timeout,
            loss_after=config.redial_timeout,
        )
