import asyncio

from kata_py.ttrpc.context import Context, Peer


async def running(context):
    """A handler under way."""
    context.task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    return context.task


async def settled(task):
    await asyncio.wait([task], timeout=0.001)
    return task.cancelled()


def test_metadata_is_found_by_lower_case_and_keeps_all_values():
    context = Context("s", "m", (("Containerd-Namespace-TTRPC", "default"), ("k", "1"), ("K", "2")))
    assert context.metadata == {"containerd-namespace-ttrpc": ["default"], "k": ["1", "2"]}


async def test_remaining_time_never_gets_negative():
    now = asyncio.get_running_loop().time()
    assert Context("s", "m").remaining() is None
    assert Context("s", "m", deadline=now - 5).remaining() == 0
    assert 55 < Context("s", "m", deadline=now + 60).remaining() <= 60


async def test_an_abandoned_handler_runs_on():
    context = Context("s", "m", peer=Peer(1, 2, 3))
    task = await running(context)
    context.abandon()
    assert context.abandoned
    assert not await settled(task)
    context.cancel_if_abandoned()
    assert await settled(task)


async def test_a_handler_that_agreed_before_is_cancelled():
    context = Context("s", "m")
    task = await running(context)
    context.cancel_if_abandoned()
    assert not await settled(task)
    context.abandon()
    assert await settled(task)


async def test_a_context_names_its_call():
    assert str(Context("containerd.task.v2.Task", "State")) == "containerd.task.v2.Task/State"
