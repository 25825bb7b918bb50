"""Deleting all that was made for a sandbox, whatever became of it, and nothing else.

What is a sandbox's is known by its tag; a machine that upstream's adaptor made has none, and is known by its id. What
bears none of our tags (Azure copies a machine's to its disk, but promises it nowhere) is known by its name, which no
other sandbox has, as long as nobody else uses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import SANDBOX_TAG, Target
from kata_caa.providers.azure.client import Arm, name_of
from kata_caa.providers.azure.machine import Names
from kata_caa.providers.azure.resource import Kind, Resource
from kata_caa.providers.azure.together import together

log = logging.getLogger(__name__)

_AGAIN = frozenset({Fault.TRANSIENT, Fault.THROTTLE})
_STEPS = ((Kind.MACHINE,), (Kind.INTERFACE,), (Kind.DISK, Kind.PUBLIC_IP))  # each lets go of the next


async def remove(arm: Arm, target: Target, *, timeout: float, pause: float) -> None:
    """Delete, in the order in which one lets go of the other, until nothing is left to be found.

    Args:
        arm: The resource group.
        target: The sandbox.
        timeout: Seconds for all of it.
        pause: Seconds until the next try at what could not be deleted yet.

    Raises:
        ProviderError: Something is still there; names it.
    """
    if not target.sandbox_id and not name_of(target.instance_id):
        return  # nothing names it
    left: Sequence[Resource] = ()
    trouble: ProviderError | None = None
    try:
        async with asyncio.timeout(timeout):
            deleted: frozenset[str] = frozenset()
            while True:
                try:
                    left = await find(arm, target)
                    if not left:
                        return
                    ids = frozenset(each.id for each in left)
                    if ids <= deleted:  # ARM's lists are late
                        await asyncio.sleep(pause)
                    await _delete(arm, left)
                    deleted, trouble = ids, None
                except ProviderError as error:
                    if error.fault not in _AGAIN:
                        raise
                    trouble = error
                    log.info("%s: deleting goes on in %.0f s: %s", target.name, pause, error)
                    await asyncio.sleep(pause)
    except TimeoutError:
        there = ", ".join(f"{each.kind.value} {each.name}" for each in left) or "something"
        cause = f": {trouble.cause}" if trouble is not None else ""
        raise ProviderError(
            Fault.TRANSIENT,
            f"deleting {target.name}: {there} still there after {timeout:.0f} s{cause}",
            code=trouble.code if trouble is not None else "",
            hint="it is tried again later; delete it by hand if it stays",
        ) from trouble


async def find(arm: Arm, target: Target) -> Sequence[Resource]:
    """All that there is of a sandbox.

    Raises:
        ProviderError: It cannot be looked for.
    """
    names = Names(name_of(target.instance_id) or target.name)
    machine = await arm.find(Kind.MACHINE, names.machine)
    foreign = machine is not None and machine.tags.get(SANDBOX_TAG, "") != target.sandbox_id
    if foreign:
        log.warning("%s: a machine of that name is not of sandbox %s, and stays", names.machine, target.sandbox_id)
    by_name = await together(
        *(arm.find(Kind.INTERFACE, name) for name in names.interfaces),
        arm.find(Kind.DISK, names.disk),
        arm.find(Kind.PUBLIC_IP, names.public_ip),
    )
    listed = await together(*(arm.list(kind) for kind in (Kind.INTERFACE, Kind.DISK, Kind.PUBLIC_IP)))
    known = {each.id.lower(): each for each in by_name if each is not None}
    known |= {each.id.lower(): each for kind in listed for each in kind}
    mine = {each.id.lower(): each for each in known.values() if each.tags.get(SANDBOX_TAG) == target.sandbox_id}
    if foreign:
        return tuple(mine.values())
    if machine is not None:
        mine[machine.id.lower()] = machine
    named = {names.disk.lower(), names.public_ip.lower(), *(name.lower() for name in names.interfaces)}
    parts = {part.lower() for part in machine.parts} if machine is not None else set()
    for each in sorted(known.values(), key=lambda each: list(Kind).index(each.kind)):  # a public IP's user comes first
        untagged = SANDBOX_TAG not in each.tags and (each.name.lower() in named or each.id.lower() in parts)
        if untagged and _free(each, mine):
            mine[each.id.lower()] = each
    return tuple(mine.values())


def _free(resource: Resource, mine: Collection[str]) -> bool:
    """Whether nobody but what is deleted uses it."""
    return not resource.user or any(resource.user.lower().startswith(user) for user in mine)


async def _delete(arm: Arm, found: Sequence[Resource]) -> None:
    """Delete what was found, in order; what fails holds up nothing else.

    Raises:
        ProviderError: The first failure that is more than a matter of time, else the first one.
    """
    failures: list[ProviderError] = []
    for kinds in _STEPS:
        step = [_quietly(arm, each, failures) for each in found if each.kind in kinds]
        await together(*step)
    failures.sort(key=lambda failure: failure.fault in _AGAIN)
    if failures:
        raise failures[0]


async def _quietly(arm: Arm, resource: Resource, failures: list[ProviderError]) -> None:
    try:
        await arm.delete(resource.kind, resource.name)
    except ProviderError as failure:
        failures.append(failure)
