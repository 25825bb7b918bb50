"""What goes wrong: nothing is left behind, waiters are answered, and the message says what happened."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kata_protos import task_types_pb2 as types
from kata_protos import task_v2_pb2 as task
from kata_protos.mount_pb2 import Mount
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.hypervisor.api import HypervisorError
from kata_py.resource import file, mount, process
from kata_py.resource.undo import KillProcess
from kata_py.sandbox import agent as agents
from kata_py.sandbox import failure
from kata_py.sandbox.events import Topic
from kata_py.sandbox.record import Record
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code
from tests import bundle
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, make_configuration, serving, until

pytestmark = pytest.mark.root


async def refused(tasks: Tasks, **fields: Any) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await tasks.create(**fields)
    assert tasks.leftovers() == []
    assert tasks.topics == []
    assert tasks.service.vacant.is_set()
    return caught.value


async def test_a_machine_that_cannot_start_tells_stage_cause_and_hint(tasks: Tasks, hypervisor: FakeHypervisor) -> None:
    hypervisor.error = HypervisorError(
        "qemu", "/usr/bin/qemu not found", hint="install qemu-system-x86", evidence=("a", "b")
    )  # fmt: skip
    error = await refused(tasks)
    (kept,) = failure.load(tasks.paths.failures)
    assert [span.name for span in kept.timeline if span.failed] == ["request", "machine"]
    assert error.message.startswith("qemu failed after 0.")
    assert error.message.endswith("/usr/bin/qemu not found (install qemu-system-x86); last lines: a | b")


async def test_a_guest_that_never_answers_tells_stage_budget_and_the_consoles_last_lines(
    top: Path, hypervisor: FakeHypervisor, agent: FakeAgent, opener: MemoryOpener
) -> None:
    agent.hangs.add("Check")
    configuration = make_configuration(dial_timeout=1)
    async with serving(top, lambda _: hypervisor, opener, configuration=configuration) as tasks:
        error = await refused(tasks)
    assert error.code is Code.DEADLINE_EXCEEDED
    assert "agent failed after 1." in error.message
    assert " of 1 s: no answer from unix://" in error.message
    assert "last lines: sleeping" in error.message


async def test_a_machine_that_dies_before_its_agent_answers_tells_how(
    tasks: Tasks, hypervisor: FakeHypervisor, agent: FakeAgent
) -> None:
    agent.hangs.add("Check")
    creating = asyncio.create_task(refused(tasks))
    await until(lambda: hypervisor.machines)
    hypervisor.vm.end("qemu was killed by signal 9")
    error = await creating
    assert "agent failed after" in error.message
    assert "qemu was killed by signal 9; last lines: sleeping" in error.message


@pytest.mark.parametrize("method", ["CreateSandbox", "CreateContainer"])
async def test_a_machine_that_dies_while_the_agent_works_tells_how(
    tasks: Tasks, hypervisor: FakeHypervisor, agent: FakeAgent, method: str
) -> None:
    agent.hangs.add(method)
    creating = asyncio.create_task(refused(tasks))
    await until(lambda: method in agent.calls)
    hypervisor.vm.end("virtiofsd exited with status 1")
    assert "virtiofsd exited with status 1" in (await creating).message


async def test_what_the_agent_refuses_is_told(tasks: Tasks, agent: FakeAgent) -> None:
    agent.fails["CreateContainer"] = StatusError(Code.INTERNAL, "crun: executable file `nope` not found in $PATH")
    error = await refused(tasks)
    assert error.message.startswith("create failed after")
    assert error.message.endswith("executable file `nope` not found in $PATH")


async def test_an_agent_without_clock_and_seed_calls_is_good_enough(tasks: Tasks, agent: FakeAgent) -> None:
    for name in ("SetGuestDateTime", "ReseedRandomDev"):
        agent.fails[name] = StatusError(Code.UNIMPLEMENTED, "not here")
    await tasks.create()


@pytest.mark.parametrize("method", ["SetGuestDateTime", "ReseedRandomDev"])
async def test_an_agent_that_does_not_answer_the_first_calls_is_not_asked_any_more(
    tasks: Tasks, agent: FakeAgent, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "CALL_TIMEOUT", 0.1)
    agent.hangs.add(method)
    error = await refused(tasks)
    assert error.code is Code.DEADLINE_EXCEEDED
    assert error.message.startswith("sandbox failed after")
    assert agent.calls[-1] == method


async def test_a_creation_whose_callers_time_is_up_is_undone_to_its_end(tasks: Tasks, agent: FakeAgent) -> None:
    agent.hangs.add("CreateContainer")
    with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
        await tasks.create(timeout=0.5)
    await until(tasks.service.vacant.is_set)
    assert tasks.leftovers() == []
    agent.release()
    await tasks.client.Create(tasks.request("c2"))


async def test_a_deletion_undoes_a_creation_that_is_under_way(tasks: Tasks, agent: FakeAgent) -> None:
    agent.hangs.add("CreateContainer")
    creating = asyncio.create_task(tasks.create())
    await until(lambda: "CreateContainer" in agent.calls)
    await tasks.delete()
    with pytest.raises(StatusError, match="given up"):
        await creating
    assert tasks.leftovers() == []


async def test_a_lost_connection_does_not_undo_a_creation(top: Path, agent: FakeAgent, tasks: Tasks) -> None:
    agent.hangs.add("CreateContainer")
    async with connect(UnixAddress(str(top / "task.sock")), timeout=5.0) as other:
        creating = asyncio.create_task(TaskClient(other).Create(tasks.request()))
        await until(lambda: "CreateContainer" in agent.calls)
    with pytest.raises(ConnectionClosed):
        await creating
    agent.release()
    await tasks.event(Topic.CREATE)
    assert (await tasks.state()).status == types.CREATED


async def test_a_second_creation_of_the_same_id_already_exists(tasks: Tasks, agent: FakeAgent) -> None:
    agent.hangs.add("CreateContainer")
    request = tasks.request()
    creating = asyncio.create_task(tasks.client.Create(request))
    await until(lambda: "CreateContainer" in agent.calls)
    with pytest.raises(StatusError, match="ALREADY_EXISTS: task c1 exists already"):
        await tasks.client.Create(request)
    creating.cancel()


async def test_a_shim_serves_one_sandbox(tasks: Tasks) -> None:
    await tasks.create()
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: this shim serves sandbox c1"):
        await tasks.create("c2")


async def test_the_death_of_the_machine_ends_everything_with_255_and_the_shim_stays(
    tasks: Tasks, hypervisor: FakeHypervisor, caplog: pytest.LogCaptureFixture
) -> None:
    await tasks.run()
    await tasks.exec("running")
    await tasks.start(exec_id="running")
    await tasks.exec("created")
    waiters = [asyncio.create_task(tasks.wait(exec_id=exec_id)) for exec_id in ("", "running", "created")]
    await tasks.state()
    hypervisor.vm.end("qemu was killed by signal 9")
    assert [answer.exit_status for answer in await asyncio.gather(*waiters)] == [255, 255, 255]
    assert (await tasks.state()).status == types.STOPPED
    assert (await tasks.state(exec_id="running")).status == types.STOPPED
    await until(lambda: tasks.topics.count(Topic.EXIT) == 2)
    exits = [event.message.id for event in tasks.events if event.topic is Topic.EXIT]  # type: ignore[attr-defined]
    assert exits == ["running", "c1"]
    await tasks.kill(signal.SIGKILL)  # as managers do
    assert (await tasks.delete()).exit_status == 255
    assert tasks.leftovers() == []
    assert tasks.shut_downs == []
    assert "qemu was killed by signal 9; last lines: sleeping" in caplog.text


async def test_the_death_of_the_machine_before_the_start_answers_the_waiter(
    tasks: Tasks, hypervisor: FakeHypervisor
) -> None:
    await tasks.create()
    waiter = asyncio.create_task(tasks.wait())
    await tasks.state()
    hypervisor.vm.end("qemu exited with status 1")
    assert (await waiter).exit_status == 255
    with pytest.raises(StatusError, match="FAILED_PRECONDITION"):
        await tasks.start()
    await tasks.delete()
    assert Topic.EXIT not in tasks.topics


async def test_the_death_of_the_machine_during_the_start_fails_it(
    tasks: Tasks, hypervisor: FakeHypervisor, agent: FakeAgent
) -> None:
    agent.hangs.add("StartContainer")
    await tasks.create()
    starting = asyncio.create_task(tasks.start())
    await until(lambda: "StartContainer" in agent.calls)
    hypervisor.vm.end("qemu was killed by signal 9")
    with pytest.raises(StatusError, match="UNAVAILABLE: the agent is gone"):
        await starting
    assert (await tasks.wait()).exit_status == 255
    await tasks.delete()
    assert tasks.leftovers() == []


async def test_a_lost_agent_counts_as_a_lost_machine(tasks: Tasks) -> None:
    await tasks.run()
    assert tasks.service._sandbox is not None
    await tasks.service._sandbox._agent.close()
    assert (await tasks.wait()).exit_status == 255
    await until(lambda: tasks.leftovers() == [])


@pytest.mark.parametrize("method", ["StartContainer", "SignalProcess", "ReadStdout", "StatsContainer"])
async def test_while_the_agent_hangs_memory_answers(tasks: Tasks, agent: FakeAgent, method: str) -> None:
    agent.hangs.add(method)
    await tasks.create()
    calls: dict[str, Callable[[], Any]] = {
        "StartContainer": tasks.start,
        "SignalProcess": lambda: tasks.kill(signal.SIGTERM),
        "ReadStdout": tasks.start,
        "StatsContainer": lambda: tasks.client.Stats(task.StatsRequest(id="c1")),
    }
    hung = asyncio.create_task(calls[method]())
    await until(lambda: method in agent.calls)
    for request in (
        tasks.state,
        lambda: tasks.client.Pids(task.PidsRequest(id="c1")),
        lambda: tasks.client.Connect(task.ConnectRequest(id="c1")),
    ):
        async with asyncio.timeout(5):
            await request()
    hung.cancel()
    agent.release()


async def test_kill_passes_a_start_that_hangs(tasks: Tasks, agent: FakeAgent) -> None:
    agent.hangs.add("StartContainer")
    await tasks.create()
    starting = asyncio.create_task(tasks.start())
    await until(lambda: "StartContainer" in agent.calls)
    await tasks.kill(signal.SIGKILL)
    assert agent.process("c1").signals == [signal.SIGKILL]
    starting.cancel()
    agent.release()


async def test_a_sigkill_that_the_agent_does_not_answer_ends_the_machine(
    tasks: Tasks, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "SIGNAL_TIMEOUT", 0.1)
    await tasks.run()
    agent.hangs |= {"SignalProcess", "DestroySandbox"}
    with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
        await tasks.kill(signal.SIGTERM)
    assert (await tasks.state()).status == types.RUNNING
    await tasks.kill(signal.SIGKILL)
    assert (await tasks.wait()).exit_status == 255
    await tasks.delete()
    assert tasks.leftovers() == []


async def test_the_remains_of_a_dead_shims_sandbox_are_removed_before_a_new_one(tasks: Tasks) -> None:
    stale = Record.create("c1", namespace="default", bundle="/", root=tasks.paths.records)
    with subprocess.Popen(["sleep", "60"]) as child:  # noqa: ASYNC220  it only has to be there
        born = process.start_time(child.pid)
        assert born is not None
        content = (stale.directory / "record.json").read_text().replace(f'"pid": {os.getpid()}', '"pid": 1')
        (stale.directory / "record.json").write_text(content)
        Record.load("c1", root=tasks.paths.records).intend(KillProcess(child.pid, born, "qemu"))
        await tasks.create()
        assert child.wait(timeout=5) == -signal.SIGKILL


async def test_a_sandbox_that_another_live_shim_serves_is_left_alone(tasks: Tasks) -> None:
    other = Record.create("c1", namespace="default", bundle="/", root=tasks.paths.records)
    with subprocess.Popen(["sleep", "60"]) as shim:  # noqa: ASYNC220  it only has to be there
        born = process.start_time(shim.pid)
        text = (other.directory / "record.json").read_text()
        text = text.replace(f'"pid": {os.getpid()}', f'"pid": {shim.pid}')
        text = text.replace(f'"start_time": {other.shim.start_time}', f'"start_time": {born}')
        (other.directory / "record.json").write_text(text)
        with pytest.raises(StatusError, match="sandbox c1 is already on record"):
            await tasks.create()
        shim.kill()
    assert tasks.records() == ["c1"]


async def test_a_sandbox_that_ends_badly_is_finished_from_its_record(
    tasks: Tasks, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await tasks.run()
    real = mount.detach
    failures = iter([OSError(errno.EBUSY, "busy")])

    def flaky(target: str) -> None:
        for error in failures:
            raise error
        real(target)

    monkeypatch.setattr(mount, "detach", flaky)
    agent.process("c1").exit(0)
    await tasks.wait()
    await tasks.delete()
    assert "its end failed in part" in caplog.text
    assert tasks.leftovers() == []


async def test_no_space_on_the_host_is_told_as_such(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(file, "replace", full)
    error = await refused(tasks)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert re.search(r"No space left on device: '.*/record\.json'", error.message)


@pytest.mark.parametrize("id", ["", "a/b", "../etc", "-x", "x" * 77, "a b", "ä"])
async def test_an_id_that_is_no_identifier_is_refused(tasks: Tasks, id: str) -> None:
    with pytest.raises(StatusError) as caught:
        await tasks.client.Create(task.CreateTaskRequest(id=id, bundle="/nowhere"))
    assert caught.value.code is Code.INVALID_ARGUMENT
    await tasks.run()
    with pytest.raises(StatusError) as caught:
        await tasks.exec(id)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_unknown_tasks_and_execs_are_not_found(tasks: Tasks) -> None:
    await tasks.create()
    client = tasks.client
    for exec_id, id in (("", "nobody"), ("nothing", "c1")):
        calls = [
            client.State(task.StateRequest(id=id, exec_id=exec_id)),
            client.Start(task.StartRequest(id=id, exec_id=exec_id)),
            client.Delete(task.DeleteRequest(id=id, exec_id=exec_id)),
            client.Kill(task.KillRequest(id=id, exec_id=exec_id, signal=9)),
            client.Wait(task.WaitRequest(id=id, exec_id=exec_id)),
            client.CloseIO(task.CloseIORequest(id=id, exec_id=exec_id, stdin=True)),
            client.ResizePty(task.ResizePtyRequest(id=id, exec_id=exec_id)),
        ]
        for call in calls:
            with pytest.raises(StatusError) as caught:
                await call
            assert caught.value.code is Code.NOT_FOUND
    for call in (
        client.Pids(task.PidsRequest(id="nobody")),
        client.Pause(task.PauseRequest(id="nobody")),
        client.Stats(task.StatsRequest(id="nobody")),
    ):
        with pytest.raises(StatusError, match="NOT_FOUND: no task 'nobody'"):
            await call


async def test_what_is_not_done_is_unimplemented(tasks: Tasks, agent: FakeAgent) -> None:
    agent.fails["UpdateContainer"] = StatusError(Code.UNIMPLEMENTED, "UpdateContainer is not supported")
    await tasks.create()
    with pytest.raises(StatusError, match="UNIMPLEMENTED: checkpoints"):
        await tasks.client.Checkpoint(task.CheckpointTaskRequest(id="c1"))
    with pytest.raises(StatusError, match="UNIMPLEMENTED: restoring"):
        await tasks.client.Create(task.CreateTaskRequest(id="c2", bundle="/", checkpoint="/x"))
    resources = AnyMessage(type_url="types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", value=b"{}")
    with pytest.raises(StatusError, match="UNIMPLEMENTED: agent: UpdateContainer is not supported"):
        await tasks.client.Update(task.UpdateTaskRequest(id="c1", resources=resources))


@pytest.mark.parametrize(
    ("url", "value"),
    [("", b"{}"), ("types.containerd.io/opencontainers/runtime-spec/1/Spec", b"{}"), (None, b"{"), (None, b"{}")],
)
async def test_an_exec_without_a_process_to_run_is_an_invalid_argument(
    tasks: Tasks, url: str | None, value: bytes
) -> None:
    await tasks.run()
    process = "types.containerd.io/opencontainers/runtime-spec/1/Process"
    with pytest.raises(StatusError) as caught:
        await tasks.exec("e1", spec=AnyMessage(type_url=process if url is None else url, value=value))
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_garbled_spec_is_an_invalid_argument_that_names_file_and_place(tasks: Tasks) -> None:
    request = tasks.request()
    config = Path(request.bundle, "config.json")
    config.write_text('{"ociVersion": ')
    with pytest.raises(StatusError, match=r"INVALID_ARGUMENT: .*config\.json"):
        await tasks.client.Create(request)
    config.unlink()
    with pytest.raises(StatusError, match=r"INVALID_ARGUMENT: .*config\.json is missing"):
        await tasks.client.Create(request)


async def test_a_missing_volume_is_named(tasks: Tasks) -> None:
    volume = {"destination": "/data", "source": "/nowhere", "type": "bind", "options": ["rbind"]}
    spec = bundle.spec("c1", "rootfs", bundle.process(["true"]), mounts=[volume])
    error = await refused(tasks, spec=spec)
    assert error.code is Code.FAILED_PRECONDITION
    assert "cannot share /nowhere with the guest: No such file or directory" in error.message


async def test_an_image_that_is_pulled_in_the_guest_is_unimplemented(tasks: Tasks) -> None:
    error = await refused(tasks, rootfs=[Mount(type="fuse.nydus-overlayfs", source="overlay")])
    assert error.code is Code.UNIMPLEMENTED
