"""Hooks on the host: when they run, what they are told, and what their failure means."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_protos import agent_pb2
from kata_py.config.model import RuntimeConfig
from kata_py.resource.process import start_time
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.hooks import HookFailed, HostHooks, host_hooks
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle
from tests.drivers.journal import ListJournal
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, make_configuration, serving, until

WHENS = ("prestart", "createRuntime", "poststart", "poststop")


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **fields}


def noting(file: Path, *whens: str) -> dict[str, Any]:
    """Hooks that append what they are told to a file."""
    return {when: [shell(f"echo {when} $(cat) >>{file}")] for when in whens or WHENS}


def noted(file: Path) -> list[tuple[str, dict[str, Any]]]:
    pairs = (line.split(" ", 1) for line in file.read_text().splitlines())
    return [(when, json.loads(state)) for when, state in pairs]


def hooks(**each: Any) -> HostHooks:
    found = host_hooks({"ociVersion": "1.1.0", "hooks": each, "annotations": {"a": "b"}}, "c1", Path("/bundle"))  # type: ignore[typeddict-item]
    assert found
    return found


def with_hooks(id: str, each: dict[str, Any]) -> dict[str, Any]:
    return {**bundle.spec(id, "rootfs", bundle.process(["true"])), "hooks": each}


async def test_a_hook_is_told_the_state_and_gets_its_arguments_and_environment_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat; env; echo $1 >{out}.1", "x", "a b"], "env": ["ONE=1=1"]}
    hook["args"][2] = f"{{ cat; echo; env; echo $1; }} >{out}"  # type: ignore[index]
    async with hooks(createRuntime=[hook]).around(42, ListJournal()):
        state, *lines = out.read_text().splitlines()
    assert json.loads(state) == {
        "ociVersion": "1.1.0", "id": "c1", "status": "creating", "pid": 42, "bundle": "/bundle",
        "annotations": {"a": "b"},
    }  # fmt: skip
    assert {line for line in lines if not line.startswith(("PWD=", "_=", "SHLVL=", "OLDPWD="))} == {"ONE=1=1", "a b"}


async def test_hooks_of_a_kind_run_in_their_order_and_the_first_failure_stops_them(tmp_path: Path) -> None:
    order = tmp_path / "order"
    failing = hooks(
        createRuntime=[
            shell(f"echo 1 >>{order}"),
            shell("echo no such device >&2; exit 3"),
            shell(f"echo 3 >>{order}"),
        ],
        poststop=[shell(f"echo stop >>{order}")],
    )
    with pytest.raises(HookFailed, match=r"^hook createRuntime /bin/sh exited with status 3: no such device$"):
        async with failing.around(1, ListJournal()):
            raise AssertionError("entered")
    assert order.read_text() == "1\nstop\n"


async def test_a_hook_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    journal = ListJournal()
    slow = hooks(prestart=[shell(f"sleep 1000 & echo $! >{child}; wait", timeout=1)])
    with pytest.raises(HookFailed, match=r"^hook prestart /bin/sh did not end within 1 s$"):
        async with slow.around(1, journal):
            raise AssertionError("entered")
    await until(lambda: start_time(int(child.read_text())) is None)
    assert journal.entries == []


async def test_a_hook_that_cannot_be_run_says_why() -> None:
    with pytest.raises(HookFailed, match=r"hook prestart /no/such/hook exited with status 127: .*not found"):
        async with hooks(prestart=[{"path": "/no/such/hook"}]).around(1, ListJournal()):
            raise AssertionError("entered")


async def test_a_hook_need_not_read_and_may_leave_something_running(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    async with hooks(prestart=[shell(f"sleep 1000 & echo $! >{pid}")]).around(1, ListJournal()):
        left = int(pid.read_text())
        assert start_time(left) is not None
        os.kill(left, 9)


async def test_a_failure_after_the_start_or_the_end_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    failing = hooks(poststart=[shell("exit 4")], poststop=[shell("exit 5"), shell("kill -9 $$")])
    async with failing.around(1, ListJournal()):
        await failing.poststart(1, ListJournal())
    assert [record.message for record in caplog.records] == [
        "container c1: hook poststart /bin/sh exited with status 4",
        "container c1: hook poststop /bin/sh exited with status 5",
        "container c1: hook poststop /bin/sh was killed by signal 9",
    ]


def test_a_hook_without_an_absolute_path_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"hooks\.poststop\[0\]\.path is 'hook', which is not absolute"):
        hooks(poststop=[{"path": "hook"}])


@pytest.mark.root
async def test_hooks_run_around_a_sandboxs_life_and_are_told_the_machines_pid(tasks: Tasks, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    created = await tasks.create(spec=with_hooks("c1", noting(file)))
    assert [when for when, _ in noted(file)] == ["prestart", "createRuntime"]
    await tasks.start()
    await tasks.kill(9)
    await tasks.wait()
    await tasks.delete()
    assert [(when, state["status"], state.get("pid")) for when, state in noted(file)] == [
        ("prestart", "creating", created.pid),
        ("createRuntime", "creating", created.pid),
        ("poststart", "running", created.pid),
        ("poststop", "stopped", None),
    ]
    assert tasks.leftovers() == []


@pytest.mark.root
async def test_a_container_of_a_pod_has_hooks_of_its_own(tasks: Tasks, tmp_path: Path, agent: FakeAgent) -> None:
    file = tmp_path / "notes"
    await tasks.create_pod()
    spec = {**tasks.pod_spec("app", "container", "p1", ["true"]), "hooks": noting(file)}
    await tasks.create("app", spec=spec)
    await tasks.start("app")
    agent.process("app").exit(0)
    await tasks.wait("app")
    await tasks.delete("app")
    assert [when for when, _ in noted(file)] == list(WHENS)
    assert {state["id"] for _, state in noted(file)} == {"app"}


@pytest.mark.root
async def test_a_hook_that_fails_fails_the_creation_and_nothing_is_left(tasks: Tasks, tmp_path: Path) -> None:
    stopped = noting(tmp_path / "notes", "poststop")
    with pytest.raises(StatusError, match="hook createRuntime /bin/sh exited with status 7"):
        await tasks.create(spec=with_hooks("c1", {"createRuntime": [shell("exit 7")], **stopped}))
    assert [when for when, _ in noted(tmp_path / "notes")] == ["poststop"]
    assert tasks.leftovers() == []


@pytest.mark.root
async def test_seccomp_profiles_are_refused_where_the_agent_cannot_apply_them(
    top: Path, hypervisor: FakeHypervisor, opener: MemoryOpener, agent: FakeAgent
) -> None:
    async def details(request: object, context: object) -> agent_pb2.GuestDetailsResponse:
        return agent_pb2.GuestDetailsResponse()

    agent.GetGuestDetails = details  # type: ignore[method-assign]
    wanting = replace(make_configuration(), runtime=RuntimeConfig(disable_guest_seccomp=False))
    async with serving(top, lambda configuration: hypervisor, opener, configuration=wanting) as tasks:
        with pytest.raises(StatusError, match="disable_guest_seccomp is false, but the guest's agent cannot") as caught:
            await tasks.create()
        assert caught.value.code in (Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNKNOWN)
        assert tasks.leftovers() == []
