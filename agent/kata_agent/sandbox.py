"""The sandbox: what its containers share, and the containers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import dns, namespaces
from kata_agent.cgroup import hierarchy
from kata_agent.container import bundle
from kata_agent.container.container import Container
from kata_agent.container.hooks import GuestHooks
from kata_agent.errors import AgentError, AlreadyExists, FailedPrecondition, InvalidArgument
from kata_agent.oom import OomEvents
from kata_agent.storage.table import StorageTable
from kata_agent.trace import span

if TYPE_CHECKING:
    from kata_agent.container.crun import Crun
    from kata_agent.container.process import Process
    from kata_agent.device.table import DeviceTable
    from kata_agent.storage.context import Workshop
    from kata_protos.agent_pb2 import Device, SharedMount, Storage
    from kata_py.oci import spec as oci
    from kata_py.oci.spec import Spec

_LOG = logging.getLogger(__name__)

RUN = Path("/run/kata-containers")  # hosts name paths below it in their requests
NAMESPACES = Path("/run/sandbox-ns")

_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Sandbox:
    """The one sandbox of this guest. It orders the parts; the parts own their work.

    Attributes:
        ended: Set once the sandbox was destroyed.
        finder: Finds devices of the guest.
        oom_events: The containers in which a process was killed for want of memory.
    """

    def __init__(self, crun: Crun, ended: asyncio.Event, workshop: Workshop, devices: DeviceTable) -> None:
        self.ended = ended
        self.finder = workshop.finder
        self.oom_events = OomEvents()
        self._crun = crun
        self._workshop = workshop
        self._storages = StorageTable(workshop)
        self._devices = devices
        self._containers: dict[str, Container] = {}
        self._used: dict[str, list[str]] = {}  # mount points by container; present from the beginning of its creation
        self._namespaces: dict[str, str] | None = None
        self._hooks = GuestHooks()
        self._pid_owner: Process | None = None
        self._pid_namespace: int | None = None  # descriptor, so that it can be joined after its first process

    async def create(
        self, hostname: str, dns_lines: Sequence[str], storages: Iterable[Storage], *, hook_path: str = ""
    ) -> None:
        """Make what the containers share.

        Args:
            hostname: The pod's; empty leaves the guest's.
            dns_lines: Lines of resolv.conf.
            storages: What to mount.
            hook_path: Where the guest's hooks lie; empty is nowhere.

        Raises:
            FailedPrecondition: There is a sandbox already.
            AgentError: A part could not be made.
        """
        if self._namespaces is not None:
            raise FailedPrecondition("the sandbox already exists")
        self._namespaces = {}
        try:
            with span("namespaces"):
                self._namespaces = await asyncio.to_thread(namespaces.persist, NAMESPACES, hostname)
            await self._storages.add(storages)
            if hook_path:
                self._hooks = GuestHooks.found(Path(hook_path))
            dns.cover_resolv_conf(dns_lines, RUN / "sandbox" / "resolv.conf")
        except OSError as error:
            raise AgentError(f"cannot make the sandbox: {error}") from error

    async def create_container(
        self,
        container_id: str,
        spec: Spec,
        storages: Sequence[Storage],
        *,
        share_pids: bool,
        devices: Sequence[Device] = (),
        shared_mounts: Sequence[SharedMount] = (),
        deadline: float | None = None,
    ) -> None:
        """Create a container up to the point where its program would begin.

        Args:
            container_id: Its id.
            spec: What the host wants.
            storages: What to mount for it.
            share_pids: Whether it joins the sandbox's pid namespace, which the first container makes.
            devices: What the host has plugged in for it.
            shared_mounts: Mounts of other containers, by their names, that it shall have as well.
            deadline: When the host stops waiting, in the event loop's time; None is never.

        Raises:
            InvalidArgument: An id with other than letters, digits, `.`, `_`, `-`; a spec without a process.
            AlreadyExists: The id is taken.
            AgentError: A part could not be made; nothing is left.
        """
        if not _CONTAINER_ID.fullmatch(container_id):
            raise InvalidArgument(f"invalid container id {container_id!r}")
        if container_id in self._used:
            raise AlreadyExists(f"container {container_id} already exists")
        self._used[container_id] = []
        try:
            with span("devices"):
                prepared = await self._devices.prepare(container_id, spec, devices)
            if any(storage.driver == "image_guest_pull" for storage in storages):
                from kata_agent.storage import guest_pull

                spec = await asyncio.to_thread(guest_pull.with_process, spec, storages, self._workshop)
            self._used[container_id] = await self._storages.add(storages, container_id, deadline)
            adapted = bundle.adapted(
                spec,
                container_id,
                shared=self._namespaces or {},
                pid_namespace=self._shared_pid_namespace() if share_pids else None,
                unified=hierarchy.unified(),
            )
            container = await Container.create(
                container_id,
                prepared.made(adapted),
                bundle.Bundle(RUN / container_id),
                self._crun,
                no_pivot=_root_is_rootfs(),
                hooks=self._hooks,
            )
            await self._share_mounts(container, shared_mounts)
        except BaseException:
            self._devices.forget(container_id)
            await self._storages.release(self._used.pop(container_id))
            raise
        self._containers[container_id] = container
        if self._pid_namespace is None:
            with contextlib.suppress(FileNotFoundError):  # killed already: the next one's will do
                self._pid_namespace = os.open(f"/proc/{container.init.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
                self._pid_owner = container.init

    def container(self, container_id: str) -> Container | None:
        """The container of that id, if there is one."""
        return self._containers.get(container_id)

    def translated(self, container_id: str, process: oci.Process) -> oci.Process:
        """A process of a container with what the guest calls its devices. Raises AgentError as the table does."""
        return self._devices.translated(container_id, process)

    async def start_container(self, container: Container) -> None:
        """Let a container's program begin; from then on its kills for want of memory are events.

        Raises:
            AgentError: It cannot begin.
        """
        await container.start(lambda: self.oom_events.put(container.id))

    async def processors_came(self) -> None:
        """Processors have come online: containers that were given some by number may have those now."""
        for container in list(self._containers.values()):
            try:
                await container.renew_cpus()
            except (AgentError, OSError) as error:
                _LOG.warning("container %s keeps the processors that it has: %s", container.id, error)

    async def remove_container(self, container: Container) -> None:
        """Remove a container, whatever runs in it, and what was mounted for it."""
        await container.remove()
        if self._containers.pop(container.id, None) is not None:
            self._devices.forget(container.id)
            await self._storages.release(self._used.pop(container.id))

    async def destroy(self) -> None:
        """Remove all containers and declare the sandbox ended."""
        self.oom_events.close()
        for container in list(self._containers.values()):
            await self.remove_container(container)
        self.ended.set()

    async def _share_mounts(self, container: Container, wanted: Sequence[SharedMount]) -> None:
        if not wanted:
            return
        from kata_agent.container import shared_mount

        try:
            for mount in wanted:
                source = next((each for each in self._containers.values() if each.name == mount.src_ctr), None)
                if source is None:
                    _LOG.warning("container %s: none is called %s to share a mount with", container.id, mount.src_ctr)
                    continue
                await shared_mount.share(source.init.pid, mount.src_path, container.init.pid, mount.dst_path)
        except BaseException:
            await container.remove()
            raise

    def _shared_pid_namespace(self) -> str | None:
        if self._pid_namespace is not None:
            if self._pid_owner is not None and self._pid_owner.ended:  # the kernel lets nobody begin in it
                raise FailedPrecondition("the first container, whose processes were to be shared, has ended")
            return f"/proc/{os.getpid()}/fd/{self._pid_namespace}"
        if self._containers:
            raise AgentError("Sandbox does not have sandbox_pidns")
        return None


def _root_is_rootfs() -> bool:
    """Whether `/` is the kernel's initial file system, which cannot be pivoted away from."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [fields[2] for fields in mounts if fields[1] == "/"]
    return not roots or roots[-1] == "rootfs"
