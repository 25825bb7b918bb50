"""A machine that waits to be told of its pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kata_caa import apf
from kata_caa.apf import ForwarderConfig
from kata_caa.forwarder import binding, provision
from kata_caa.forwarder.service import listening
from kata_caa.userdata import AA, APF, AUTH, INITDATA, File, render
from kata_protos.binding_pb2 import BindRequest, StateRequest
from kata_protos.binding_ttrpc import BindingClient
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

BOUND = 10.0  # seconds
OF_POD = ForwarderConfig(pod_name="web", pod_namespace="shop", tls_server_key="KEY")


@dataclass
class Waiting:
    """A machine that waits.

    Attributes:
        root: Its files.
        port: Where it is told.
        stop: Tells it to stop.
        result: Ends when it waits no more.
    """

    root: Path
    port: int
    stop: asyncio.Event
    result: asyncio.Task[ForwarderConfig | None]

    def file(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @asynccontextmanager
    async def dialled(self) -> AsyncIterator[BindingClient]:
        async with Client("machine") as client:
            await asyncio.get_running_loop().create_connection(lambda: client.link, "127.0.0.1", self.port)
            yield BindingClient(client)

    async def bind(self, *files: File) -> None:
        async with self.dialled() as client:
            await client.Bind(BindRequest(user_data=render(files)), timeout=BOUND)

    async def refused(self, user_data: str) -> StatusError:
        async with self.dialled() as client:
            with pytest.raises(StatusError) as caught:
                await client.Bind(BindRequest(user_data=user_data), timeout=BOUND)
            return caught.value


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Waiting]:
    provision.write([File(APF, apf.dump(ForwarderConfig(unbound=True)))], root=tmp_path)
    provision.write_initdata(root=tmp_path)
    stop = asyncio.Event()
    with listening("127.0.0.1", 0) as listener:
        task = asyncio.create_task(binding.wait(listener, None, stop, root=tmp_path))
        yield Waiting(tmp_path, listener.getsockname()[1], stop, task)
        stop.set()
        async with asyncio.timeout(BOUND):
            await task


async def test_it_says_that_it_waits_as_often_as_it_is_asked(waiting: Waiting):
    for _ in range(2):
        async with waiting.dialled() as client:
            await client.State(StateRequest(), timeout=BOUND)


async def test_it_becomes_the_machine_that_it_would_have_booted_as(waiting: Waiting):
    await waiting.bind(File(APF, apf.dump(OF_POD)), File(AUTH, "{}"))
    async with asyncio.timeout(BOUND):
        assert await waiting.result == OF_POD
    assert apf.load(waiting.file(APF).read_text()) == OF_POD
    assert waiting.file(AUTH).read_text() == "{}"
    assert waiting.file(AUTH).stat().st_mode & 0o777 == 0o600
    assert waiting.file(AA).read_text() == ""  # of the initdata that stands in for none


async def test_of_the_initdata_that_it_booted_with_nothing_stays(waiting: Waiting):
    waiting.file(provision.POLICY).write_text("package old")
    text = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"cdh.toml" = "new"\n'
    import base64
    import gzip

    initdata = base64.b64encode(gzip.compress(text.encode())).decode()
    await waiting.bind(File(APF, apf.dump(OF_POD)), File(INITDATA, initdata))
    await waiting.result
    found = {path.name for path in waiting.file(APF).parent.iterdir()}
    assert found == {"apf.json", "initdata", "cdh.toml", "initdata.digest"}


async def test_who_connects_after_the_answer_waits_for_the_forwarder(waiting: Waiting):
    await waiting.bind(File(APF, apf.dump(OF_POD)))
    await waiting.result
    _, writer = await asyncio.open_connection("127.0.0.1", waiting.port)  # the listener was never closed
    writer.close()


@pytest.mark.parametrize(
    ("user_data", "why"),
    [
        ("nothing", "the first line is not #cloud-config"),
        (render([File(AUTH, "{}")]), "there is no /run/peerpod/apf.json in it"),
        (render([File(APF, "no")]), "apf.json is no JSON"),
        (render([File(APF, apf.dump(ForwarderConfig(unbound=True)))]), "that of a machine without a pod"),
    ],
)
async def test_what_is_no_pods_user_data_is_refused_and_it_waits_on(waiting: Waiting, user_data: str, why: str):
    error = await waiting.refused(user_data)
    assert error.code == Code.INVALID_ARGUMENT
    assert why in error.message
    await waiting.bind(File(APF, apf.dump(OF_POD)))
    assert await waiting.result == OF_POD


async def test_a_machine_that_has_begun_to_be_a_pods_is_no_others(waiting: Waiting):
    error = await waiting.refused(render([File(APF, apf.dump(OF_POD)), File(INITDATA, "***")]))
    assert (error.code, "initdata is no base64" in error.message) == (Code.INVALID_ARGUMENT, True)
    error = await waiting.refused(render([File(APF, apf.dump(OF_POD))]))
    assert (error.code, error.message) == (Code.FAILED_PRECONDITION, "this machine is a pod's already")
    assert not waiting.result.done()


async def test_files_that_cannot_be_written_are_told(waiting: Waiting):
    waiting.file(AUTH).mkdir()
    error = await waiting.refused(render([File(APF, apf.dump(OF_POD)), File(AUTH, "{}")]))
    assert error.code == Code.INTERNAL
    assert "/run/peerpod/auth.json cannot be written" in error.message


async def test_told_to_stop_it_waits_no_more(waiting: Waiting):
    waiting.stop.set()
    async with asyncio.timeout(BOUND):
        assert await waiting.result is None
