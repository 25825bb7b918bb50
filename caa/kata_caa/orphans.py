"""What the cloud has of a node's that no sandbox there owns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from kata_caa.pool.machine import MachineRecords
from kata_caa.providers.api import Owned, Provider, Target
from kata_caa.record import PodRecords
from kata_py.resource.blocking import off_loop

_MACHINES = frozenset({"instance", "domain", "virtual-machine"})


def on_record(pods: PodRecords, machines: MachineRecords) -> frozenset[str]:
    """The ids by which the cloud knows what is this node's. Blocks.

    Raises:
        RecordError: A record cannot be read.
    """
    waiting = list(machines.ids())  # first: meanwhile a machine may become a pod's
    return frozenset([*waiting, *pods.ids(), *claimed(pods)])


def claimed(pods: PodRecords) -> frozenset[str]:
    """The machines that have waited, and are a pod's now. Blocks.

    Raises:
        RecordError: A record cannot be read.
    """
    records = (pods.load(id) for id in pods.ids())
    return frozenset(record.machine for record in records if record is not None and record.machine)


async def orphans(provider: Provider, owner: str, on_record: Callable[[], Collection[str]]) -> dict[str, list[Owned]]:
    """What bears the owner's tag and is not on record, by sandbox.

    The cloud is asked before the records are read: what is made meanwhile is on record.

    Args:
        provider: The cloud.
        owner: Whose.
        on_record: Gives the ids by which the cloud knows what is on record; blocks.

    Raises:
        ProviderError: The cloud does not tell.
    """
    owned = await provider.owned(owner)
    known = await off_loop(on_record)
    found: dict[str, list[Owned]] = defaultdict(list)
    for each in owned:
        if each.sandbox_id not in known:
            found[each.sandbox_id].append(each)
    return dict(found)


def target_of(sandbox_id: str, objects: Sequence[Owned]) -> Target:
    """Whose machine a sandbox's objects are, as far as these tell."""
    machine = next((each for each in objects if each.kind in _MACHINES), None)
    named = machine or next((each for each in objects if each.name), None)
    return Target(sandbox_id, named.name if named else "", machine.id if machine else "")
