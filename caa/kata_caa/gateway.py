"""How pods' agents are reached: certificates for their VMs, and a proxy for each.

Source: cloud-api-adaptor `pkg/adaptor/proxy/factory.go`.
"""

from __future__ import annotations

from pathlib import Path

from kata_caa import apf
from kata_caa.config import AdaptorConfig
from kata_caa.credentials import Issued
from kata_caa.pool.machine import Machine
from kata_caa.proxy import AgentProxy, Endpoint
from kata_caa.record import PodRecord, PodRecords, State
from kata_caa.tls import Tls, profile_of
from kata_py.resource.blocking import off_loop


class Gateway:
    """Satisfies `kata_caa.credentials.Credentials`; makes proxies. Making one reads or writes certificates, and blocks.

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
        self._tls = Tls(profile_of(config), Path(config.socket).parent / "tls")
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
        return AgentProxy(
            self._records.socket(record.sandbox_id),
            await self._endpoint(record.material, record.instance_name, record.addresses[0]),
            timeout=self._config.proxy_timeout,
            loss_after=self._config.redial_timeout,
            reached=record.state is State.RUNNING,
        )

    async def endpoint(self, machine: Machine) -> Endpoint:
        """Where a machine that waits for a pod is told of it.

        Raises:
            TlsError: What it was started with is gone.
        """
        return await self._endpoint(machine.material, machine.name, machine.addresses[0])

    async def _endpoint(self, material: str, name: str, address: str) -> Endpoint:
        dialer = await off_loop(self._tls.dialer, material, name)
        return Endpoint(address, self._config.forwarder_port, dialer.server_name, dialer.context)
