"""What is made for a sandbox on a host, found by its mark, and deleted.

Volumes have no tags, so a machine stands for them: it is *defined first*, with the owner's and the sandbox's tags and
the paths of its volumes in its metadata, and undefined last. At any moment in between, whatever was made is named by
a defined machine; and a volume that no marked machine names is somebody else's, whatever it is called. Paths that are
taken before the machine is defined are refused. What undoes this is a person who undefines a machine by hand: then
its volumes are that person's to delete. A machine's leases are ended once it is stopped, while it is still defined
(`lease`): a deletion that was cut short does so when it is tried again.

Every function blocks and raises `Refused`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import Owned, Target
from kata_caa.providers.libvirt import binding, lease, volume
from kata_caa.providers.libvirt.binding import Connect, Domain
from kata_caa.providers.libvirt.cidata import disc
from kata_caa.providers.libvirt.domain import NAMESPACE, Machine, Mark, describe, read_mark
from kata_caa.providers.libvirt.volume import VolumeFacts

ROOT, CIDATA, CONSOLE_LOG = "-root.qcow2", "-cloudinit.iso", "-console.log"  # what volumes' names end in
_ROTATED = 3  # virtlogd's max_backups, unless it is configured


@dataclass(frozen=True, slots=True)
class Found:
    """A machine that bears a mark."""

    domain: Domain
    mark: Mark


def mark_of(domain: Domain) -> Mark | None:
    """A machine's mark; others' machines have none."""
    try:
        return read_mark(domain.metadata(binding.METADATA_ELEMENT, NAMESPACE, 0))
    except binding.Refused as error:
        if binding.code(error) in ("VIR_ERR_NO_DOMAIN_METADATA", "VIR_ERR_NO_DOMAIN"):
            return None
        raise


def of_sandbox(connect: Connect, target: Target) -> list[Found]:
    """The sandbox's machines: of one or more tries, whatever they are called."""
    return [found for found in _marked(connect) if found.mark.sandbox_id == target.sandbox_id]


def refuse_unmarked(connect: Connect, instance_id: str) -> None:
    """Look whether a machine, of which its id is all that is known, has gone.

    Raises:
        ProviderError: It is there. Which volumes are its alone, nothing says; and a number may have become another's.
    """
    for domain in connect.listAllDomains(0):
        if instance_id in (domain.UUIDString(), domain.name(), str(domain.ID())):
            raise ProviderError(
                Fault.FATAL,
                f"machine {domain.name()} ({instance_id}) is not of this adaptor's making, and is not deleted",
                hint=f"if nobody needs it: virsh destroy {domain.name()};"
                f" virsh undefine --nvram --remove-all-storage {domain.name()}",
            )


def owned(connect: Connect, owner: str) -> list[Owned]:
    """The owner's machines and the volumes that are there of theirs."""
    objects = []
    for found in _marked(connect):
        if found.mark.owner != owner:
            continue
        name, sandbox = found.domain.name(), found.mark.sandbox_id
        objects.append(Owned("domain", found.domain.UUIDString(), sandbox, name))
        objects += [
            Owned("volume", path, sandbox, path.rpartition("/")[2])
            for path in found.mark.volumes
            if volume.exists(connect, path)
        ]
    return objects


def _marked(connect: Connect) -> Iterator[Found]:
    for domain in connect.listAllDomains(0):
        if mark := mark_of(domain):
            yield Found(domain, mark)


def refuse_taken(connect: Connect, pool: str, machine: Machine) -> None:
    """Look whether names are free, which are not yet the sandbox's.

    Raises:
        ProviderError: There is a machine or a volume of that name.
    """
    try:
        connect.lookupByName(machine.name)
    except binding.Refused as error:
        if binding.code(error) != "VIR_ERR_NO_DOMAIN":
            raise
    else:
        raise _taken(f"machine {machine.name}")
    volume.refresh(connect.storagePoolLookupByName(pool))  # for what was put there behind libvirt's back
    for path in machine.volumes:
        if volume.exists(connect, path):
            raise _taken(f"volume {path}")


def _taken(what: str) -> ProviderError:
    hint = "delete it if nobody uses it"
    return ProviderError(Fault.FATAL, f"there is a {what} already, and it is not this sandbox's", hint=hint)


def define(connect: Connect, machine: Machine) -> None:
    """Define a machine, or define it anew; from here on it is found."""
    connect.defineXML(describe(machine))


def make_volumes(
    connect: Connect, pool: str, machine: Machine, base: VolumeFacts, capacity: int, user_data: str
) -> None:
    """Make a defined machine's volumes; those of an earlier try are replaced, since nobody knows how far it came.

    Args:
        connect: The host.
        pool: Where.
        machine: Whose.
        base: What the disk is based on.
        capacity: The disk's, in bytes; it gets no less than its base.
        user_data: What the machine reads when it boots.
    """
    for path in machine.volumes:
        volume.remove(connect, path)
    volumes = connect.storagePoolLookupByName(pool)
    volumes.createXML(volume.disk_xml(machine.root.rpartition("/")[2], max(capacity, base.capacity), base), 0)
    if machine.console_log:  # made here, so that libvirt knows it as a volume, which can be read from afar
        volumes.createXML(volume.blob_xml(machine.console_log.rpartition("/")[2], 0), 0)
    image = disc(user_data, machine.name)
    made = volumes.createXML(volume.blob_xml(machine.cidata.rpartition("/")[2], len(image)), 0)
    volume.fill(connect, made, [image], len(image))


def start(connect: Connect, machine: Machine) -> None:
    """Start a machine whose volumes are there."""
    connect.lookupByUUIDString(machine.uuid).create()


def is_running(found: Found) -> bool:
    """Whether a machine runs."""
    return found.domain.state(0)[0] in binding.RUNNING


def end_leases(connect: Connect, found: Found) -> None:
    """End the leases of a machine that does not run, as far as that can be done from here."""
    lease.release(connect, found.domain, found.mark.macs)


def remove(connect: Connect, found: Sequence[Found]) -> None:
    """Stop machines, delete their volumes, and undefine them last."""
    for each in found:
        try:
            each.domain.destroy()
        except binding.Refused as error:
            if binding.code(error) not in ("VIR_ERR_OPERATION_INVALID", "VIR_ERR_NO_DOMAIN"):  # it does not run
                raise
        end_leases(connect, each)
        for path in each.mark.volumes:
            volume.remove(connect, path)
            _remove_rotated(connect, path)
        try:
            each.domain.undefineFlags(binding.UNDEFINE_ALL)
        except binding.Refused as error:
            if binding.code(error) != "VIR_ERR_NO_DOMAIN":
                raise


def _remove_rotated(connect: Connect, path: str) -> None:
    """Delete what virtlogd set aside of a long console log: `.0` and up, which no listing shows unless it is read."""
    if not path.endswith(CONSOLE_LOG):
        return
    try:
        volume.refresh(connect.storagePoolLookupByTargetPath(path.rpartition("/")[0]))
    except binding.Refused as error:
        if binding.code(error) != "VIR_ERR_NO_STORAGE_POOL":
            raise
    for number in range(_ROTATED):
        volume.remove(connect, f"{path}.{number}")
