"""What the cloud has of a node's that no sandbox there owns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from kata_caa.instance import machine_name
from kata_caa.pool.machine import MachineRecords
from kata_caa.providers.api import Owned, Provider, Target
from kata_caa.record import PodRecord, PodRecords
from kata_py.resource.blocking import off_loop

_MACHINES = frozenset({"instance", "domain", "virtual-machine"})
_WAITED = machine_name("")  # what names of machines that have waited, and of their parts, begin with


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What is this node's.

    Attributes:
        ids: By which the cloud knows it: of sandboxes, and of machines that wait for a pod or have.
        is_whole: Whether these are all. A pod's damaged record does not tell which machine, of those that have waited,
            is the pod's.
    """

    ids: frozenset[str]
    is_whole: bool = True

    def owns(self, sandbox_id: str, objects: Collection[Owned]) -> bool:
        """Whether these are of a sandbox, or can be."""
        if sandbox_id in self.ids or self.is_whole:
            return sandbox_id in self.ids
        return all(each.name.startswith(_WAITED) for each in objects if each.name)


def on_record(pods: PodRecords, machines: MachineRecords) -> OnRecord:
    """What is this node's. Blocks."""
    waiting = list(machines.ids())  # first: meanwhile a machine may become a pod's
    sandboxes = list(pods.ids())
    records, damaged = pods.known()
    return OnRecord(frozenset([*waiting, *sandboxes, *claimed(records)]), is_whole=not damaged)


def claimed(records: Iterable[PodRecord]) -> frozenset[str]:
    """The machines that have waited, and are a pod's now."""
    return frozenset(record.machine for record in records if record.machine)


async def orphans(provider: Provider, owner: str, on_record: Callable[[], OnRecord]) -> dict[str, list[Owned]]:
    """What bears the owner's tag and is not on record, by sandbox.

    The cloud is asked before the records are read: what is made meanwhile is on record. While a pod's record is damaged
    whatever may be a machine that has waited is left alone too.

    Args:
        provider: The cloud.
        owner: Whose.
        on_record: Gives what is on record; blocks.

    Raises:
        ProviderError: The cloud does not tell.
    """
    owned = await provider.owned(owner)
    known = await off_loop(on_record)
    found: dict[str, list[Owned]] = defaultdict(list)
    for each in owned:
        found[each.sandbox_id].append(each)
    return {id: objects for id, objects in found.items() if not known.owns(id, objects)}


def target_of(sandbox_id: str, objects: Sequence[Owned]) -> Target:
    """Whose machine a sandbox's objects are, as far as these tell."""
    machine = next((each for each in objects if each.kind in _MACHINES), None)
    named = machine or next((each for each in objects if each.name), None)
    return Target(sandbox_id, named.name if named else "", machine.id if machine else "")
