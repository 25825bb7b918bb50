"""Azure Resource Manager, as far as pod VMs go: typed calls, neutral values, errors of our own.

The library's asynchronous clients are used. Beside its blocking ones in threads they take 22 MiB and 0.2 s more once;
but a machine takes a minute to make, so each pod that starts would hold a thread, and a thread cannot be cancelled.
Single calls are tried again by the library, which heeds Retry-After.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ClientSecretCredential, WorkloadIdentityCredential
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.compute.models import Disk, DiskUpdate, VirtualMachine
from azure.mgmt.network.aio import NetworkManagementClient
from azure.mgmt.network.models import NetworkInterface, PublicIPAddress

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.azure import sizes
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.azure.errors import code_of, translated
from kata_caa.providers.azure.ids import MalformedId, ResourceId
from kata_caa.providers.azure.resource import Kind, Resource

_CONNECT_TIMEOUT = 15  # seconds
_READ_TIMEOUT = 60  # seconds without a byte of an answer
_CONNECTIONS = 16
_RETRIES = 5
_GONE = frozenset({"ResourceNotFound", "NotFound", ""})


@dataclass(frozen=True, slots=True)
class Connection:
    """How ARM is reached, where not as in production.

    Attributes:
        credential: Whose tokens are used; those of the configuration if None.
        context: Who is trusted; the system's authorities if None.
        backoff: What the waits between tries of a call grow from, in seconds.
    """

    credential: AsyncTokenCredential | None = None
    context: ssl.SSLContext | None = None
    backoff: float = 0.8


class MachineExists(Exception):
    """There is a machine of that name."""


@asynccontextmanager
async def connect(config: AzureConfig, connection: Connection | None = None) -> AsyncIterator[Arm]:
    """Open the clients; nothing is asked yet.

    Raises:
        ProviderError: The credentials do not have their form.
    """
    how = connection or Connection()
    async with AsyncExitStack() as stack:
        if (credential := how.credential) is None:
            own: AsyncTokenCredential = await stack.enter_async_context(_credential(config))
            credential = own
        # One pool of connections for both clients.
        session = await stack.enter_async_context(
            ClientSession(
                connector=TCPConnector(limit=_CONNECTIONS, ssl=how.context or True),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,  # the library does it
                trust_env=True,  # the cluster's proxy
            )
        )
        endpoint = config.endpoint.rstrip("/")
        options: dict[str, Any] = {  # the library's own, for both clients
            "credential_scopes": [f"{endpoint}/.default"],
            "polling_interval": config.poll_interval,
            "retry_total": _RETRIES,
            "retry_backoff_factor": how.backoff,
            "connection_timeout": _CONNECT_TIMEOUT,
            "read_timeout": _READ_TIMEOUT,
            "transport": AioHttpTransport(session=session, session_owner=False),
        }
        compute = ComputeManagementClient(credential, config.subscription_id, endpoint, **options)
        network = NetworkManagementClient(credential, config.subscription_id, endpoint, **options)
        await stack.enter_async_context(compute)
        await stack.enter_async_context(network)
        yield Arm(config, compute, network)


def _credential(config: AzureConfig) -> ClientSecretCredential | WorkloadIdentityCredential:
    try:
        if config.secret:
            return ClientSecretCredential(config.tenant_id, config.client_id, config.secret)
        return WorkloadIdentityCredential(
            **{
                key: value
                for key, value in (("tenant_id", config.tenant_id), ("client_id", config.client_id))
                if value  # the library takes its own variables where it is told nothing
            }
        )
    except ValueError as error:
        raise ProviderError(
            Fault.FATAL,
            f"there are no credentials for Azure: {error}",
            hint="set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or have AZURE_FEDERATED_TOKEN_FILE"
            " of a workload identity",
        ) from error


class Arm:
    """A resource group, and what the provider must know of its surroundings.

    Attributes:
        compute: The library's client; for what has no method here.
        network: The library's client.
    """

    def __init__(self, config: AzureConfig, compute: ComputeManagementClient, network: NetworkManagementClient) -> None:
        self.compute = compute
        self.network = network
        self._group = config.resource_group
        self._region = config.region

    async def make_machine(self, name: str, body: VirtualMachine) -> VirtualMachine:
        """Make a machine and wait until it is made; the caller bounds it.

        Raises:
            MachineExists: There is one of that name, which stays as it is.
            ProviderError: It cannot be made; it may be there, half made.
        """
        with translated("making the machine"):
            try:
                poller = await self.compute.virtual_machines.begin_create_or_update(
                    self._group, name, body, match_condition=MatchConditions.IfMissing
                )
            except ResourceExistsError as error:
                if error.status_code == 412:
                    raise MachineExists from error
                raise
            return await poller.result()

    async def machine(self, name: str) -> VirtualMachine | None:
        """The machine of a name, if there is one.

        Raises:
            ProviderError: It cannot be asked for.
        """
        with translated("looking for the machine"):
            try:
                return await self.compute.virtual_machines.get(self._group, name)
            except ResourceNotFoundError as error:
                if code_of(error) not in _GONE:
                    raise
                return None

    async def interface(self, name: str) -> NetworkInterface:
        """A network interface.

        Raises:
            ProviderError: It cannot be asked for, or is not there.
        """
        with translated("asking for the machine's addresses"):
            return await self.network.network_interfaces.get(self._group, name)

    async def public_ip(self, name: str) -> PublicIPAddress:
        """A public address.

        Raises:
            ProviderError: It cannot be asked for, or is not there.
        """
        with translated("asking for the machine's public address"):
            return await self.network.public_ip_addresses.get(self._group, name)

    async def tag_disk(self, name: str, tags: dict[str, str]) -> None:
        """Attach tags to a disk, in the place of those it has.

        Raises:
            ProviderError: It cannot be done.
        """
        with translated("tagging the machine's disk"):
            poller = await self.compute.disks.begin_update(self._group, name, DiskUpdate(tags=tags))
            await poller.result()

    async def find(self, kind: Kind, name: str) -> Resource | None:
        """The resource of a name, if there is one.

        Raises:
            ProviderError: It cannot be asked for.
        """
        with translated(f"looking for the {kind.value} {name}"):
            try:
                match kind:
                    case Kind.MACHINE:
                        return of_machine(await self.compute.virtual_machines.get(self._group, name))
                    case Kind.INTERFACE:
                        return _of_interface(await self.network.network_interfaces.get(self._group, name))
                    case Kind.DISK:
                        return _of_disk(await self.compute.disks.get(self._group, name))
                    case Kind.PUBLIC_IP:
                        return _of_public_ip(await self.network.public_ip_addresses.get(self._group, name))
            except ResourceNotFoundError as error:
                if code_of(error) not in _GONE:
                    raise
                return None

    async def list(self, kind: Kind) -> Sequence[Resource]:
        """All resources of a kind in the resource group.

        Raises:
            ProviderError: They cannot be listed.
        """
        with translated(f"listing each {kind.value}"):
            match kind:
                case Kind.MACHINE:
                    return [of_machine(each) async for each in self.compute.virtual_machines.list(self._group)]
                case Kind.INTERFACE:
                    return [_of_interface(each) async for each in self.network.network_interfaces.list(self._group)]
                case Kind.DISK:
                    return [_of_disk(each) async for each in self.compute.disks.list_by_resource_group(self._group)]
                case Kind.PUBLIC_IP:
                    return [_of_public_ip(each) async for each in self.network.public_ip_addresses.list(self._group)]

    async def delete(self, kind: Kind, name: str) -> None:
        """Delete a resource and wait until ARM says that it is gone; what is not there is no error.

        Raises:
            ProviderError: It cannot be deleted, or not now.
        """
        with translated(f"deleting the {kind.value} {name}"):
            try:
                match kind:
                    case Kind.MACHINE:
                        poller = await self.compute.virtual_machines.begin_delete(
                            self._group, name, force_deletion=True
                        )
                    case Kind.INTERFACE:
                        poller = await self.network.network_interfaces.begin_delete(self._group, name)
                    case Kind.DISK:
                        poller = await self.compute.disks.begin_delete(self._group, name)
                    case Kind.PUBLIC_IP:
                        poller = await self.network.public_ip_addresses.begin_delete(self._group, name)
                await poller.result()
            except ResourceNotFoundError as error:
                if code_of(error) not in _GONE:
                    raise

    async def sizes(self, names: Sequence[str]) -> dict[str, sizes.Size]:
        """What is known of sizes in the region; those it does not have are left out.

        Raises:
            ProviderError: They cannot be listed.
        """
        wanted = {name.lower(): name for name in names}
        try:
            with translated("listing the region's sizes"):
                found = [
                    sizes.of_sku(sku, self._region)
                    async for sku in self.compute.resource_skus.list(filter=f"location eq '{self._region}'")
                    if (sku.name or "").lower() in wanted
                ]
        except ProviderError as error:
            if error.code != "AuthorizationFailed":
                raise
            with translated("listing the region's sizes"):
                found = [
                    sizes.of_listed(size)
                    async for size in self.compute.virtual_machine_sizes.list(self._region)
                    if (size.name or "").lower() in wanted
                ]
        return {wanted[size.type.name.lower()]: size for size in found if size is not None}


def name_of(resource_id: str | None) -> str:
    """The name at the end of an id; empty if it is none."""
    try:
        return ResourceId.parse(resource_id or "").name
    except MalformedId:
        return ""


def of_machine(machine: VirtualMachine) -> Resource:
    """A machine as a resource."""
    parts: list[str | None] = []
    state = ""
    if (properties := machine.properties) is not None:
        state = properties.provisioning_state or ""
        if properties.network_profile is not None:
            parts += [each.id for each in properties.network_profile.network_interfaces or ()]
        storage = properties.storage_profile
        if storage is not None and storage.os_disk is not None and storage.os_disk.managed_disk is not None:
            parts.append(storage.os_disk.managed_disk.id)
    return Resource(
        Kind.MACHINE,
        machine.name or "",
        machine.id or "",
        machine.tags or {},
        parts=tuple(part for part in parts if part),
        state=state,
    )


def _of_interface(interface: NetworkInterface) -> Resource:
    properties = interface.properties
    machine = properties.virtual_machine if properties is not None else None
    return Resource(
        Kind.INTERFACE,
        interface.name or "",
        interface.id or "",
        interface.tags or {},
        user=(machine.id or "") if machine is not None else "",
        state=str(properties.provisioning_state or "") if properties is not None else "",
    )


def _of_disk(disk: Disk) -> Resource:
    state = disk.properties.provisioning_state if disk.properties is not None else ""
    return Resource(
        Kind.DISK, disk.name or "", disk.id or "", disk.tags or {}, user=disk.managed_by or "", state=state or ""
    )


def _of_public_ip(address: PublicIPAddress) -> Resource:
    properties = address.properties
    used_by = properties.ip_configuration if properties is not None else None
    return Resource(
        Kind.PUBLIC_IP,
        address.name or "",
        address.id or "",
        address.tags or {},
        user=(used_by.id or "") if used_by is not None else "",
        state=str(properties.provisioning_state or "") if properties is not None else "",
    )
