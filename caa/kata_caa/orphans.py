"""What the cloud has of a node's that no sandbox there owns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kata_caa.providers.api import Owned, Provider, Target
from kata_caa.record import PodRecords
from kata_py.resource.blocking import off_loop

_MACHINES = frozenset({"instance", "domain", "virtual-machine"})


async def orphans(provider: Provider, owner: str, records: PodRecords) -> dict[str, list[Owned]]:
    """What bears the owner's tag and belongs to no sandbox on record, by sandbox.

    The cloud is asked before the records are read: what is made meanwhile is on record.

    Raises:
        ProviderError: The cloud does not tell.
    """
    owned = await provider.owned(owner)
    known = set(await off_loop(lambda: list(records.ids())))
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
