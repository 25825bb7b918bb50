"""CRI-O's operations on pods in machines, by the sequences of calls that the real one sends."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kata_protos.task_types_pb2 import Status
from kata_py.resource import mount, process
from kata_py.ttrpc.errors import StatusError
from tests.crio import RECORDED, TIMED_OUT, Container, Crio, CrioError, ExecResult, Sent
from tests.integration.conftest import DRIVERS, ON_QEMU
from tools import configuration

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

ON_NAMESPACES = pytest.mark.parametrize("driver", DRIVERS[:1], indirect=True)
_serial = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def crio(
    launcher: Path, driver: str, rootfs: Path, short_tmp: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Crio]:
    """A CRI-O with directories of its own; afterwards all pods are removed that still are there."""
    directory = short_tmp / f"crio-{next(_serial)}"
    directory.mkdir()
    mount.mount("tmpfs", str(directory), "tmpfs")
    mount.mount("", str(directory), flags=mount.MS_SHARED)  # as systemd makes /, on a node
    config = configuration.write(
        directory / "configuration.toml", request.getfixturevalue("guest") if driver == "qemu" else None,
        program="the tests", hypervisor=driver, extra='enable_annotations = ["default_memory"]',
    )  # fmt: skip
    crio = Crio(launcher, config, directory, rootfs)
    yield crio
    for container in list(crio.containers.values()):
        if container.id == container.pod:
            await crio.remove_pod(container)
    mount.unmount(str(directory))
    directory.rmdir()


def recorded() -> list[Sent]:
    """What the real CRI-O sent, in the order in which it arrived."""
    sent = []
    for line in (RECORDED / "calls.jsonl").read_text().splitlines():
        content = json.loads(line)
        if "start" in content:
            request = {name: content[name] for name in ("argv", "env", "cwd", "bundle")}
            sent.append(Sent(0, "", request))
        else:
            sent.append(Sent(content["connection"], content["method"], content["request"]))
    return sent


def renamed(sent: list[Sent], crio: Crio, names: dict[str, str]) -> list[Sent]:
    """What was sent, with the recording's names for ids and directories, and without our handler's runtime_config_path."""
    execs: dict[str, str] = {}
    result = []
    for each in sent:
        if exec_id := each.request.get("exec_id"):
            execs.setdefault(exec_id, f"<exec-{len(execs) + 1}>")
        text = json.dumps({name: value for name, value in each.request.items() if name != "options"})
        text = re.sub(re.escape(str(crio.fifos)) + r"/io/[^/]+", "<fifos>", text)
        for real, name in {**names, **execs}.items():
            text = text.replace(real, name)
        result.append(Sent(each.connection, each.method, json.loads(text)))
    return result


def in_one_order(sent: list[Sent]) -> list[Sent]:
    """The same, with a Wait and a Kill that CRI-O sends at the same time in one order."""
    result = list(sent)
    for first in range(len(result) - 1):
        pair = result[first : first + 2]
        if [each.method for each in pair] == ["Wait", "Kill"]:
            result[first : first + 2] = reversed(pair)
    return result


async def test_a_pods_whole_life_goes_by_the_calls_of_a_real_crio(crio: Crio) -> None:
    pod, app = "p" * 64, "a" * 64
    sandbox = crio.prepare_sandbox(pod)
    await crio.create(sandbox)
    assert process.start_time(sandbox.state.pid) == sandbox.state.start_time
    await crio.start(sandbox)
    assert sandbox.state.status == Status.RUNNING

    container = crio.prepare_container(pod, app)
    await crio.create(container)
    assert (await crio.status(container)).status == Status.CREATED
    await crio.start(container)
    assert container.state.status == Status.RUNNING
    assert process.start_time(container.state.pid) == container.state.start_time
    await container.output.until(b"hi\n")

    ran = await crio.exec_sync(container, "/bin/date")
    assert (ran.exit_code, ran.stderr) == (0, b"")
    assert ran.stdout.endswith(b"\n")
    await crio.status(container)
    streamed = await crio.exec(container, "/bin/date")
    assert await streamed.wait() == 0
    streamed.io.remove()
    await streamed.delete()
    assert await crio.exec_sync(container, "/bin/sleep", "5", timeout=20) == ExecResult(0, b"")

    before = await crio.stats(container)
    after = await crio.stats(container)
    assert 0 < before[0] <= after[0]
    assert min(after) > 0
    with suppress(StatusError):  # FIXME until the agent updates
        await crio.update(container, {"memory": {"limit": 268435456, "swap": 268435456}, "cpu": {}})

    # The sandbox's process is PID 1 of both: without a handler SIGTERM would do nothing, so the agent makes it SIGKILL.
    for each, looks, code in ((container, 2, 143), (sandbox, 1, 137)):
        await crio.stop(each)
        assert (each.state.status, each.state.exit_code) == (Status.STOPPED, code)
        ended = each.state.finished
        for _ in range(looks):
            assert (await crio.status(each)).finished == ended
        assert (crio.exits / each.id).exists()
        deleted = await crio.delete(each)
        assert deleted is not None
        assert (deleted.exit_status, deleted.exited_at.ToNanoseconds()) == (code, ended)
        assert not each.bundle.exists()

    places = {str(place): name for name, place in crio.places.items()}
    assert in_one_order(renamed(crio.sent, crio, {**places, pod: "<pod>", app: "<app>"})) == in_one_order(recorded())
