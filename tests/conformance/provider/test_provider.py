"""What every provider must do. Each test runs for each."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import (
    NAMESPACE_TAG,
    OWNER_TAG,
    POD_TAG,
    SANDBOX_TAG,
    InstanceRequest,
    InstanceSpec,
    Owned,
    Target,
)
from tests.conformance.provider.cases import CASES, Cloud
from tests.drivers.cloud import Calls

OWNER, OTHER = "node-1", "node-2"
SECRET = "the private key"


@pytest.fixture(scope="module", params=[pytest.param(name, marks=case.marks) for name, case in CASES.items()])
def world(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as top, CASES[request.param].cloud(Path(top)) as cloud:
        yield cloud


@pytest.fixture
def cloud(world: Cloud) -> Iterator[Cloud]:
    before = world.objects()
    yield world
    world.calls = Calls()
    assert world.objects() == before


def request(sandbox: str = "0a1b2c3d4e5f", *, owner: str = OWNER, token: str = "", pod: str = "web") -> InstanceRequest:
    tags = ((OWNER_TAG, owner), (SANDBOX_TAG, sandbox), (POD_TAG, pod), (NAMESPACE_TAG, "default"))
    target = Target(sandbox, f"podvm-{pod}-{sandbox[:8]}")
    return InstanceRequest(target, token or f"{owner}/{sandbox}", f"#cloud-config\n# {SECRET}\n", tags=tags)


async def test_a_machine_has_an_address_and_is_its_owners_until_it_is_deleted(cloud: Cloud) -> None:
    wanted = request()
    before = cloud.objects()
    async with cloud.open() as provider:
        made = await provider.create(wanted)
        assert made.id
        assert made.addresses
        owned = await provider.owned(OWNER)
        assert made.id in [each.id for each in owned]
        assert {each.sandbox_id for each in owned} == {wanted.target.sandbox_id}
        assert all(isinstance(each, Owned) and each.kind for each in owned)
        assert len({each.id for each in owned}) == len(owned) == len(cloud.objects()) - len(before)  # none is missed
        await provider.delete(replace(wanted.target, instance_id=made.id))
        assert cloud.objects() == before
        assert await provider.owned(OWNER) == []


async def test_creating_again_with_the_same_token_gives_the_same_machine(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        first = await provider.create(request())
        objects = cloud.objects()
        async with cloud.open() as restarted:
            assert await restarted.create(request()) == first
        assert cloud.objects() == objects
        await provider.delete(request().target)


async def test_creating_twice_at_once_with_the_same_token_makes_one_machine(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        first, second = await asyncio.gather(provider.create(request()), provider.create(request()))
        assert first == second
        assert len({each.id for each in await provider.owned(OWNER) if each.id == first.id}) == 1
        await provider.delete(request().target)


async def test_machines_of_several_sandboxes_are_made_at_once_and_live_apart(cloud: Cloud) -> None:
    wanted = [request(f"{number}a1b2c3d4e5f") for number in range(3)]
    async with cloud.open() as provider:
        made = await asyncio.gather(*(provider.create(each) for each in wanted))
        assert len({each.id for each in made}) == len({each.addresses for each in made}) == len(made)
        await provider.delete(wanted[0].target)
        left = {each.sandbox_id for each in await provider.owned(OWNER)}
        assert left == {each.target.sandbox_id for each in wanted[1:]}
        await asyncio.gather(*(provider.delete(each.target) for each in wanted[1:]))


async def test_deleting_what_is_not_there_is_no_error(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        await provider.delete(request().target)
        made = await provider.create(request())
        await provider.delete(replace(request().target, instance_id=made.id))
        await provider.delete(replace(request().target, instance_id=made.id))


async def test_a_later_adaptor_deletes_a_machine_of_which_it_knows_no_id(cloud: Cloud) -> None:
    before = cloud.objects()
    async with cloud.open() as provider:
        await provider.create(request())
    async with cloud.open() as provider:
        await provider.delete(request().target)
    assert cloud.objects() == before


async def test_a_machine_is_made_anew_after_its_deletion(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        await provider.create(request())
        await provider.delete(request().target)
        await provider.create(request(token="another"))
        await provider.delete(request().target)


async def test_the_machine_of_another_sandbox_is_left_alone_though_it_has_the_name(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        made = await provider.create(request())
        await provider.delete(Target("0a1b2c3d-another", request().target.name))
        assert made.id in [each.id for each in await provider.owned(OWNER)]
        await provider.delete(request().target)


async def test_what_others_made_is_never_touched_though_it_has_the_name(cloud: Cloud) -> None:
    with cloud.stranger(request().target.name) as things:
        async with cloud.open() as provider:
            assert await provider.owned(OWNER) == []
            await provider.delete(request().target)
            refusals = []
            try:
                await provider.create(request())
            except ProviderError as error:  # where a name can be had once only
                refusals.append(error.fault)
            assert refusals in ([], [Fault.FATAL])
            await provider.delete(request().target)
            assert [each for each in things if each not in cloud.objects()] == []


async def test_only_the_owners_own_objects_are_listed(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        await provider.create(request())
        assert await provider.owned(OTHER) == []
        assert await provider.owned(OWNER[:-1]) == []
        await provider.create(request("ff1b2c3d4e5f", owner=OTHER))
        assert {each.sandbox_id for each in await provider.owned(OTHER)} == {"ff1b2c3d4e5f"}
        await provider.delete(request().target)
        await provider.delete(request("ff1b2c3d4e5f", owner=OTHER).target)


async def test_an_image_that_is_not_there_needs_a_person_and_makes_nothing(cloud: Cloud) -> None:
    before = cloud.objects()
    async with cloud.open() as provider:
        with pytest.raises(ProviderError, match=cloud.missing_image) as error:
            await provider.create(replace(request(), spec=InstanceSpec(image=cloud.missing_image)))
        assert error.value.fault is Fault.FATAL
        await provider.delete(request().target)
    assert cloud.objects() == before


async def test_a_check_passes_where_a_machine_can_be_made_and_names_what_is_missing(cloud: Cloud) -> None:
    async with cloud.open() as provider:
        findings = await provider.check()
        assert findings
        assert [each for each in findings if not each.passed] == []
    async with cloud.open(image=cloud.missing_image) as provider:
        failed = [each for each in await provider.check() if not each.passed]
        assert [each for each in failed if cloud.missing_image in each.subject and each.detail] == failed != []


async def test_user_data_is_never_logged(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with cloud.open() as provider:
        await provider.create(request())
        await provider.delete(request().target)
    assert SECRET not in caplog.text
    assert SECRET not in repr(request())


async def _with_trouble(cloud: Cloud, number: int, trouble: Callable[[], None], *, late: bool) -> bool:
    """Create, with trouble at the nth call to the cloud, and delete as a later adaptor; whether there were as many."""
    calls = 0

    def count(call: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            trouble()

    async with cloud.open() as provider:
        cloud.calls = Calls(after=count) if late else Calls(before=count)
        try:
            await provider.create(request())
        except (ProviderError, asyncio.CancelledError):
            pass
        reached, cloud.calls = calls >= number, Calls()
        async with cloud.open() as later:
            await later.delete(request().target)
    return reached


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_whichever_call_fails_nothing_is_left_after_the_deletion(cloud: Cloud, late: bool) -> None:
    before = cloud.objects()

    def trouble() -> None:
        raise cloud.broken()

    number = 1
    while await _with_trouble(cloud, number, trouble, late=late):
        assert cloud.objects() == before, f"call {number}"
        number += 1
    assert number > 2


async def _cancelled(cloud: Cloud, number: int) -> bool:
    """Cancel a creation at the nth call to the cloud, and delete at once; whether there were as many calls."""
    loop, calls = asyncio.get_running_loop(), 0

    def count(call: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            loop.call_soon_threadsafe(creating.cancel)

    async with cloud.open() as provider:
        cloud.calls = Calls(before=count)
        creating = asyncio.create_task(provider.create(request()), name="create")
        await asyncio.wait([creating])
        if not creating.cancelled():
            creating.result()
        cloud.calls = Calls()
        await provider.delete(request().target)
    return calls >= number


async def test_whenever_a_creation_is_cancelled_nothing_is_left_after_the_deletion(cloud: Cloud) -> None:
    before = cloud.objects()
    number = 1
    while await _cancelled(cloud, number):
        assert cloud.objects() == before, f"call {number}"
        number += 1
    assert number > 2


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_deletion_that_fails_at_one_call_after_another_is_completed_in_the_end(
    cloud: Cloud, late: bool
) -> None:
    before = cloud.objects()
    calls, number, deleted = 0, 0, True

    def count(call: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise cloud.broken()

    async with cloud.open() as provider:
        while calls >= number:  # each try comes one call further than the last one
            if deleted:  # a provider may go over a single failure
                await provider.create(request())
            calls, number = 0, number + 1
            cloud.calls = Calls(after=count) if late else Calls(before=count)
            try:
                await provider.delete(request().target)
                deleted = True
                assert cloud.objects() == before, f"call {number}"
            except ProviderError:
                deleted = False
                cloud.calls = Calls()
                assert await provider.owned(OWNER) or cloud.objects() == before, (
                    f"call {number}"
                )  # nothing is forgotten
            cloud.calls = Calls()
    assert deleted
    assert number > 2


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_list_of_what_is_owned_is_whole_or_an_error_whichever_call_fails(cloud: Cloud, late: bool) -> None:
    calls, number = 0, 0

    def count(call: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise cloud.broken()

    async with cloud.open() as provider:
        await provider.create(request())
        whole = await provider.owned(OWNER)
        while calls >= number:
            calls, number = 0, number + 1
            cloud.calls = Calls(after=count) if late else Calls(before=count)
            with suppress(ProviderError):
                assert await provider.owned(OWNER) == whole, f"call {number}"
            cloud.calls = Calls()
        await provider.delete(request().target)
    assert number > 1
