"""The Azure provider: a pod VM is one request for a machine of a name that follows from its sandbox.

The name makes it one machine at most: it is asked for only if there is none of that name, which ARM decides. Source:
cloud-api-adaptor `src/cloud-providers/azure/provider.go`; what upstream leaves behind when a machine fails while it is
made is deleted here by whoever asked for it, by `delete`, which needs nothing but the sandbox's names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from azure.mgmt.compute.models import VirtualMachine

from kata_caa.errors import Fault, ProviderError
from kata_caa.faults import CHOICES, RetryPolicy, retrying
from kata_caa.providers.api import (
    OWNER_TAG,
    SANDBOX_TAG,
    Finding,
    Instance,
    InstanceRequest,
    InstanceSpec,
    Owned,
    Target,
)
from kata_caa.providers.azure import check, machine, removal, sshkey
from kata_caa.providers.azure.client import Arm, Connection, MachineExists, connect, name_of, of_machine
from kata_caa.providers.azure.config import AzureConfig, verify
from kata_caa.providers.azure.resource import Kind
from kata_caa.providers.azure.sizes import Size
from kata_caa.providers.azure.together import together
from kata_caa.selection import Candidate, candidates, choose, exhausted, fallbacks

log = logging.getLogger(__name__)

_MADE = "succeeded"
_LOST = frozenset({"failed", "canceled", "deleting"})


@asynccontextmanager
async def open_provider(
    config: AzureConfig, connection: Connection | None = None, rounds: RetryPolicy = CHOICES
) -> AsyncIterator[AzureProvider]:
    """Open Azure: the sizes are looked up.

    Args:
        config: The settings.
        connection: How ARM is reached, where not as in production.
        rounds: When a round over all sizes and zones is tried again.

    Raises:
        SettingError: A setting is missing or cannot be used.
        ProviderError: Azure cannot be reached, or does not have the default size.
    """
    verify(config)
    if config.ssh_key_path:
        ssh_key = await asyncio.to_thread(sshkey.read, Path(config.ssh_key_path))
    else:
        ssh_key = await asyncio.to_thread(sshkey.discarded)
    async with connect(config, connection) as arm:
        sizes = await arm.sizes(config.all_sizes())
        for name in config.all_sizes():
            if name not in sizes:
                log.warning("%s has no size %s", config.region, name)
        if config.size not in sizes:
            raise ProviderError(
                Fault.FATAL,
                f"region {config.region} has no size {config.size}",
                hint="set AZURE_INSTANCE_SIZE to one that it has",
            )
        yield AzureProvider(config, arm, sizes, ssh_key, rounds)


class AzureProvider:
    """Pod VMs in one resource group. Made by `open_provider`.

    Args:
        config: The settings.
        arm: The resource group.
        sizes: What is known of the sizes, by name.
        ssh_key: The public key of all machines.
        rounds: When a round over all sizes and zones is tried again.
    """

    def __init__(
        self,
        config: AzureConfig,
        arm: Arm,
        sizes: Mapping[str, Size],
        ssh_key: str,
        rounds: RetryPolicy = CHOICES,
    ) -> None:
        self._config = config
        self._arm = arm
        self._sizes = sizes
        self._ssh_key = ssh_key
        self._rounds = rounds

    async def create(self, request: InstanceRequest) -> Instance:
        """Make a machine; see `kata_caa.providers.api.Provider`.

        Raises:
            ProviderError: It cannot be made, or not in time.
        """
        ways = self._ways(request.spec)
        limit = self._config.create_timeout
        try:
            async with asyncio.timeout(limit):
                return await retrying(
                    lambda: self._round(request, ways), self._rounds, stage=f"creating {request.target.name}"
                )
        except TimeoutError:
            raise ProviderError(
                Fault.TRANSIENT,
                f"creating {request.target.name}: the machine was not ready after {limit:.0f} s",
                hint="the image may not report to Azure that it is ready; AZURE_CREATE_TIMEOUT bounds the wait",
            ) from None

    async def delete(self, target: Target) -> None:
        """Delete a sandbox's machine and all that belongs to it; see `kata_caa.providers.api.Provider`.

        Raises:
            ProviderError: Something is still there.
        """
        await removal.remove(self._arm, target, timeout=self._config.delete_timeout, pause=self._config.poll_interval)

    async def owned(self, owner: str) -> Sequence[Owned]:
        """All that bears the owner's tag, and what belongs to its machines and bears none of ours.

        Raises:
            ProviderError: It cannot be listed.
        """
        kinds = tuple(Kind)
        everything = [each for kind in await together(*map(self._arm.list, kinds)) for each in kind]
        mine = {each.id.lower(): each for each in everything if each.tags.get(OWNER_TAG) == owner}
        found = [Owned(each.kind.value, each.id, each.tags.get(SANDBOX_TAG, ""), each.name) for each in mine.values()]
        for each in everything:
            user = mine.get(each.user.lower())
            if user is not None and OWNER_TAG not in each.tags:
                found.append(Owned(each.kind.value, each.id, user.tags.get(SANDBOX_TAG, ""), each.name))
        return found

    async def check(self) -> Sequence[Finding]:
        """Look whether machines can be made, without making one."""
        return await check.look(self._config, self._arm, self._sizes)

    async def resolve(self, spec: InstanceSpec) -> InstanceSpec:
        """The size that is tried first, and the image."""
        first, *_ = self._ways(spec)
        return InstanceSpec(
            instance_type=first.instance_type, image=spec.image or self._config.image, multi_nic=spec.multi_nic
        )  # fmt: skip

    def _ways(self, spec: InstanceSpec) -> Sequence[Candidate]:
        config = self._config
        types = [size.type for size in self._sizes.values()]
        chosen = choose(spec, types, config.size, config.sizes)
        others = fallbacks(chosen, spec, types, config.fallback_sizes)
        names = (chosen.name, *(other.name for other in others))
        ways = [way for way in candidates(names, config.places(), config.spot()) if self._is_offered(way)]
        if not ways:
            raise ProviderError(
                Fault.FATAL,
                f"the subscription may not have size {chosen.name} in {', '.join(config.places()) or config.region}",
                code=self._sizes[chosen.name].refused,
                hint="ask Azure for access to it, or name other sizes and zones",
            )
        return ways

    def _is_offered(self, way: Candidate) -> bool:
        size = self._sizes[way.instance_type]
        return not size.refused and (not way.place or not size.zones or way.place in size.zones)

    async def _round(self, request: InstanceRequest, ways: Sequence[Candidate]) -> Instance:
        """Try one way after the other; only capacity and quotas make another one worth trying."""
        refused: list[tuple[Candidate, ProviderError]] = []
        for way in ways:
            if refused:
                await self.delete(request.target)  # what failed half-way holds the name
            try:
                return await self._make(request, way)
            except ProviderError as error:
                if error.fault not in (Fault.CAPACITY, Fault.QUOTA):
                    raise
                log.warning("%s: no machine by way of %s: %s", request.target.name, way, error)
                refused.append((way, error))
        raise exhausted(refused)

    async def _make(self, request: InstanceRequest, way: Candidate) -> Instance:
        body = machine.body(self._config, request, way, self._ssh_key)
        while True:
            try:
                made = await self._arm.make_machine(request.target.name, body)
            except MachineExists:
                there = await self._take_over(request)
                if there is None:
                    continue
                made = there
            return await self._instance(request, made)

    async def _take_over(self, request: InstanceRequest) -> VirtualMachine | None:
        """The machine that an earlier try of the same request made, once it is made; None if it had to go."""
        while True:
            there = await self._arm.machine(request.target.name)
            if there is None:
                return None
            seen = of_machine(there)
            if seen.tags.get(SANDBOX_TAG) != request.target.sandbox_id:
                raise ProviderError(
                    Fault.FATAL,
                    f"a machine named {request.target.name} is there already, and is not of this pod",
                    code="MachineExists",
                    hint=f"it is left alone; look at {seen.id}",
                )
            if seen.tags.get(machine.TOKEN_TAG) != request.token or seen.state.lower() in _LOST:
                await self.delete(request.target)
                return None
            if seen.state.lower() == _MADE:
                return there
            await asyncio.sleep(self._config.poll_interval)

    async def _instance(self, request: InstanceRequest, made: VirtualMachine) -> Instance:
        names = machine.Names(request.target.name)
        parts = of_machine(made).parts
        interfaces = [name_of(part) for part in parts if "/networkinterfaces/" in part.lower()]
        if not interfaces:
            raise ProviderError(Fault.TRANSIENT, f"creating {names.machine}: the machine has no network interface")
        tagging = asyncio.create_task(self._tag_disk(request, names.disk), name=f"tag {names.disk}")
        try:
            by_interface = await together(*map(self._addresses, interfaces))
            await tagging
        finally:
            tagging.cancel()
            await asyncio.gather(tagging, return_exceptions=True)
        # With two interfaces one address each; with one, all of it, the public one first, as upstream has it.
        addresses = by_interface[0] if len(by_interface) == 1 else [each[0] for each in by_interface]
        size = made.properties.hardware_profile if made.properties is not None else None
        return Instance(made.id or "", tuple(addresses), str(size.vm_size or "") if size is not None else "")

    async def _addresses(self, interface: str) -> Sequence[str]:
        found = await self._arm.interface(interface)
        private: list[str] = []
        public: list[str] = []
        for each in (found.properties.ip_configurations or ()) if found.properties is not None else ():
            if each.properties is None:
                continue
            if each.properties.private_ip_address:
                private.append(each.properties.private_ip_address)
            if self._config.use_public_ip and each.properties.public_ip_address is not None:
                address = await self._arm.public_ip(name_of(each.properties.public_ip_address.id))
                if address.properties is not None and address.properties.ip_address:
                    public.append(address.properties.ip_address)
        if not private:
            raise ProviderError(Fault.TRANSIENT, f"network interface {interface} has no address yet")
        return [*public, *private]

    async def _tag_disk(self, request: InstanceRequest, name: str) -> None:
        """See to it that the disk bears the tags; it has no place in the machine's request where they could stand."""
        wanted = machine.tags(self._config, request)
        disk = await self._arm.find(Kind.DISK, name)
        if disk is not None and not wanted.items() <= disk.tags.items():
            await self._arm.tag_disk(name, {**disk.tags, **wanted})
