"""The provider: the adaptor's verbs as calls to a libvirt host.

A machine is made in the order define, volumes, start, so that its definition names the rest whatever is interrupted:
see `kata_caa.providers.libvirt.machines`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import (
    SANDBOX_TAG,
    Finding,
    Instance,
    InstanceRequest,
    InstanceSpec,
    Owned,
    ProviderFactory,
    Target,
)
from kata_caa.providers.libvirt import address, binding, host, machines
from kata_caa.providers.libvirt.binding import Connect
from kata_caa.providers.libvirt.check import examine
from kata_caa.providers.libvirt.config import LibvirtConfig, refuse_nonsense
from kata_caa.providers.libvirt.connection import Connection, Opener
from kata_caa.providers.libvirt.domain import Machine, new_macs, uuid_of
from kata_caa.providers.libvirt.host import Host
from kata_caa.providers.libvirt.image import LibvirtImages
from kata_caa.userdata import LENGTH_MAX

_GIB = 1 << 30

_log = logging.getLogger(__name__)


class LibvirtProvider:
    """Machines on a libvirt host; an asynchronous context manager of itself. Satisfies `kata_caa.providers.api`.

    Entering it connects, and no more: what the host lacks is told by `check` and by `create`, and what it gets later
    is used without a restart.

    Args:
        config: The settings.
        opener: Opens a connection, blocking.
    """

    config: ClassVar[type] = LibvirtConfig

    def __init__(self, config: LibvirtConfig, opener: Opener = binding.open_host) -> None:
        refuse_nonsense(config)
        self._config = config
        self._opener = opener

    async def __aenter__(self) -> LibvirtProvider:
        self._connection = Connection(self._config.uri, self._opener)
        try:
            await self._connection.call("connect", lambda connect: connect.getLibVersion())
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    def images(self) -> LibvirtImages:
        """The pool as a place of images."""
        return LibvirtImages(self._config, self._opener)

    async def create(self, request: InstanceRequest) -> Instance:
        """As the interface has it."""
        if request.spec.gpus:
            raise ProviderError(Fault.FATAL, "libvirt machines have no GPUs", hint="take default_gpus from the pod")
        if (size := len(request.user_data.encode())) > LENGTH_MAX:  # the machine would tell its console alone
            raise ProviderError(
                Fault.FATAL,
                f"the pod VM's user data has {size} bytes, its forwarder takes {LENGTH_MAX}",
                hint="shorten the pod's initdata and registry credentials",
            )
        name, pool = request.target.name, self._config.pool
        async with self._connection.turn(request.target.sandbox_id) as turn:
            machine, facts, former = await turn.call(
                f"look up machine {name}", lambda connect: self._survey(connect, request)
            )
            same = [each for each in former if each.domain.UUIDString() == machine.uuid]
            others = [each for each in former if each not in same]
            if others:  # of an earlier token
                await turn.call(f"delete the former machine {name}", lambda connect: machines.remove(connect, others))
            running = False
            if same:
                running = await turn.call(f"ask for machine {name}", lambda _: machines.is_running(same[0]))
            if running:
                machine = replace(machine, macs=same[0].mark.macs)
            else:
                if same:  # it gets other hardware addresses, and nobody knows the former ones any more
                    await turn.call(
                        f"end the leases of machine {name}", lambda connect: machines.end_leases(connect, same[0])
                    )
                else:
                    await turn.call(f"look for {name}", lambda connect: machines.refuse_taken(connect, pool, machine))
                await turn.call(f"define machine {name}", lambda connect: machines.define(connect, machine))
                size = self._config.root_disk_size * _GIB
                await turn.call(
                    f"make the volumes of machine {name}",
                    lambda connect: machines.make_volumes(connect, pool, machine, facts.base, size, request.user_data),
                )
                await turn.call(f"start machine {name}", lambda connect: machines.start(connect, machine))
                _log.info("machine %s is started, %s", name, machine.uuid)
        addresses = await address.wait(self._connection, machine, self._config.address_timeout)
        return Instance(machine.uuid, addresses)

    async def delete(self, target: Target) -> None:
        """As the interface has it. A machine is told by its mark alone, never by its name."""

        def remove(connect: Connect) -> None:
            if target.sandbox_id:
                machines.remove(connect, machines.of_sandbox(connect, target))
            else:
                machines.refuse_unmarked(connect, target.instance_id)

        async with self._connection.turn(target.sandbox_id) as turn:
            await turn.call(f"delete machine {target.name}", remove)

    async def owned(self, owner: str) -> Sequence[Owned]:
        """As the interface has it."""
        return await self._connection.call("list machines", lambda connect: machines.owned(connect, owner))

    async def check(self) -> Sequence[Finding]:
        """As the interface has it."""
        try:
            return await self._connection.call("check", lambda connect: examine(connect, self._config))
        except ProviderError as error:
            return [Finding("connection", False, str(error))]

    async def resolve(self, spec: InstanceSpec) -> InstanceSpec:
        """As the interface has it."""
        return InstanceSpec(
            vcpus=spec.vcpus or self._config.vcpus,
            memory=spec.memory or self._config.memory,
            gpus=spec.gpus,
            image=spec.image or self._config.image,
            multi_nic=spec.multi_nic,
        )

    def _survey(self, connect: Connect, request: InstanceRequest) -> tuple[Machine, Host, Sequence[machines.Found]]:
        facts = host.survey(connect, self._config, request.spec.image)
        return self._plan(request, facts), facts, machines.of_sandbox(connect, request.target)

    def _plan(self, request: InstanceRequest, facts: Host) -> Machine:
        config, spec, name = self._config, request.spec, request.target.name
        tags = {**dict(request.tags), SANDBOX_TAG: request.target.sandbox_id}
        return Machine(
            uuid=uuid_of(request.token),
            name=name,
            tags=tuple(tags.items()),
            root=facts.pool.path(name + machines.ROOT),
            cidata=facts.pool.path(name + machines.CIDATA),
            network=config.network,
            architecture=facts.architecture,
            kind=config.domain_type,
            emulator=config.emulator,
            vcpus=spec.vcpus or config.vcpus,
            cpuset=config.cpuset,
            memory=spec.memory or config.memory,
            firmware=facts.firmware,
            kernel=facts.kernel,
            sata=config.disk_bus == "sata" and facts.architecture == "x86_64",
            console_log=facts.pool.path(name + machines.CONSOLE_LOG) if config.console_log else "",
            macs=new_macs(2 if spec.multi_nic else 1),
            agent=not facts.network.leases,
            protected=config.confidential,
        )


if TYPE_CHECKING:
    _factory: ProviderFactory[LibvirtConfig] = LibvirtProvider
