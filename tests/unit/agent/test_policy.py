from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_agent.errors import AgentError, InvalidArgument, PermissionDenied
from kata_agent.policy import document, patch
from kata_agent.policy.guard import Guard
from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci

ALLOW = "package agent_policy\ndefault SetPolicyRequest := true\ndefault ExecProcessRequest := true\n"
EXEC = agent.ExecProcessRequest(container_id="ctr", process=oci.Process(Args=["sh"]))


@pytest.fixture
def guard() -> Iterator[Guard]:
    """A guard without a policy."""
    guard = Guard()
    yield guard
    guard.close()


def _rules(*lines: str) -> str:
    return "\n".join(["package agent_policy", *lines])


async def test_without_a_policy_all_pass(guard: Guard) -> None:
    await guard.check(EXEC)


async def test_what_a_rule_denies_is_denied_with_its_prints(guard: Guard) -> None:
    rule = 'ExecProcessRequest { print("only", "ls"); input.process.Args[0] == "ls" }'
    await guard.replace(_rules("default ExecProcessRequest := false", rule))

    with pytest.raises(PermissionDenied, match=r"^ExecProcessRequest is blocked by policy: .*only ls$"):
        await guard.check(EXEC)
    await guard.check(agent.ExecProcessRequest(process=oci.Process(Args=["ls"])))


async def test_a_request_without_a_rule_or_with_a_strange_one_fails_without_being_allowed(guard: Guard) -> None:
    await guard.replace(_rules('SetPolicyRequest := "yes"', "X := 1", "CreateSandboxRequest := 1 / 0"))

    for request in (EXEC, agent.SetPolicyRequest(), agent.CreateSandboxRequest()):
        with pytest.raises(AgentError, match="internal error") as failure:
            await guard.check(request)
        assert type(failure.value) is AgentError


async def test_failing_requests_are_allowed_where_the_policy_says_so(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    await guard.replace(_rules("AllowRequestsFailingPolicy := true", "ExecProcessRequest := false"))

    await guard.check(EXEC)
    await guard.check(agent.CreateSandboxRequest())

    assert "ExecProcessRequest is denied, and allowed by AllowRequestsFailingPolicy" in caplog.text


async def test_rules_remember_by_patches_of_their_state(guard: Guard) -> None:
    first = 'ExecProcessRequest := {"allowed": true, "ops": ops} { not data.pstate.first; '
    first += 'ops := [{"op": "add", "path": "/pstate/first", "value": input.container_id}] }'
    later = "ExecProcessRequest := input.container_id == data.pstate.first { data.pstate.first }"
    await guard.replace(_rules(first, later))

    await guard.check(EXEC)
    await guard.check(EXEC)
    with pytest.raises(PermissionDenied):
        await guard.check(agent.ExecProcessRequest(container_id="another"))

    await guard.replace(_rules(first, later))  # begins with a state of its own
    await guard.check(agent.ExecProcessRequest(container_id="another"))


async def test_a_patch_that_does_not_fit_changes_nothing(guard: Guard) -> None:
    ops = '[{"op": "add", "path": "/pstate/x", "value": 1}, {"op": "remove", "path": "/pstate/none"}]'
    rule = "CreateSandboxRequest { not data.pstate.x }"
    await guard.replace(_rules(f'ExecProcessRequest := {{"allowed": true, "ops": {ops}}}', rule))

    with pytest.raises(AgentError, match="internal error: the policy's state: cannot apply"):
        await guard.check(EXEC)
    await guard.check(agent.CreateSandboxRequest())


@pytest.mark.parametrize(
    "text",
    ["", "not rego", _rules("X {"), _rules("X { y == 1 }"), _rules("#" + "x" * 70000)],
)
async def test_a_text_that_is_no_policy_leaves_the_one_before_in_force(guard: Guard, text: str) -> None:
    await guard.replace(_rules("ExecProcessRequest := false"))

    with pytest.raises(InvalidArgument, match="not a policy"):
        await guard.replace(text)

    with pytest.raises(PermissionDenied):
        await guard.check(EXEC)


async def test_both_forms_of_the_language_are_understood(guard: Guard) -> None:
    await guard.replace(_rules("import rego.v1", "ExecProcessRequest if { every x in [1, 2] { x > 0 } }"))

    await guard.check(EXEC)


def test_the_guests_own_policy_is_in_force_from_the_beginning(tmp_path: Path) -> None:
    assert Guard.from_file("", tmp_path / "none")._engine is None

    (tmp_path / "default.rego").write_text(ALLOW)
    guard = Guard.from_file("", tmp_path / "default.rego")
    assert guard._engine is not None
    guard.close()


@pytest.mark.parametrize("text", [None, "package", "\xff"])
def test_a_policy_file_that_cannot_be_had_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "policy.rego").write_text(text, encoding="latin-1")

    with pytest.raises(AgentError, match=r"policy.rego"):
        Guard.from_file(f"{tmp_path}/policy.rego")


def test_a_document_has_every_field_by_its_own_name() -> None:
    request = agent.CreateContainerRequest(
        container_id="c", devices=[agent.Device(id="d", type="blk")], OCI=oci.Spec(Annotations={"a": "b"})
    )

    found = document.of(request)

    assert isinstance(found, dict)
    assert found["devices"] == [{"id": "d", "type_": "blk", "vm_path": "", "container_path": "", "options": []}]
    assert found["string_user"] is None
    assert found["sandbox_pidns"] is False
    spec = found["OCI"]
    assert isinstance(spec, dict)
    assert (spec["Annotations"], spec["Process"], spec["Mounts"]) == ({"a": "b"}, None, [])


def test_bytes_are_numbers_enumerations_too_and_what_is_optional_is_null() -> None:
    assert document.of(agent.WriteStreamRequest(data=b"\x00\xff")) == {
        "container_id": "", "exec_id": "", "data": [0, 255],
    }  # fmt: skip
    storage = document.of(agent.Storage(fs_group=agent.FSGroup(group_id=7, group_change_policy=1)))
    assert isinstance(storage, dict)
    assert storage["fs_group"] == {"group_id": 7, "group_change_policy": 1}
    memory = document.of(agent.MemAgentMemcgConfig(swap=False))
    assert isinstance(memory, dict)
    assert (memory["swap"], memory["disabled"]) == (False, None)
    call = document.of(oci.LinuxSyscall(errnoret=5))
    assert isinstance(call, dict)
    assert call["ErrnoRet"] == {"errnoret": 5}
    call = document.of(oci.LinuxSyscall())
    assert isinstance(call, dict)
    assert call["ErrnoRet"] is None


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [(stat.S_IFREG, "Regular", ""), (stat.S_IFDIR, "Directory", ""), (stat.S_IFLNK, "Symlink", "to"),
     (stat.S_IFIFO, "Unknown", "")],
)  # fmt: skip
def test_a_file_is_told_by_its_kind_without_its_data(kind: int, name: str, target: str) -> None:
    found = document.of(agent.CopyFileRequest(path="/p", file_mode=kind | 0o600, data=b"to", uid=-1, file_size=2))

    assert found == {
        "path": "/p", "file_type": name, "symlink_target": target, "file_size": 2, "file_mode": kind | 0o600,
        "dir_mode": 0, "uid": -1, "gid": 0, "offset": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"op": "add", "path": "/a/1", "value": 9}, {"a": [1, 9, 2], "b/~": {}}),
        ({"op": "add", "path": "/a/-", "value": 9}, {"a": [1, 2, 9], "b/~": {}}),
        ({"op": "add", "path": "/b~1~0/x", "value": None}, {"a": [1, 2], "b/~": {"x": None}}),
        ({"op": "add", "path": "", "value": 5}, 5),
        ({"op": "remove", "path": "/a/0"}, {"a": [2], "b/~": {}}),
        ({"op": "replace", "path": "/a", "value": 1}, {"a": 1, "b/~": {}}),
        ({"op": "move", "from": "/a", "path": "/c"}, {"c": [1, 2], "b/~": {}}),
        ({"op": "copy", "from": "/a/1", "path": "/c"}, {"a": [1, 2], "b/~": {}, "c": 2}),
        ({"op": "test", "path": "/a", "value": [1, 2]}, {"a": [1, 2], "b/~": {}}),
    ],
)
def test_patches_do_what_their_standard_says(operation: document.Json, expected: document.Json) -> None:
    before: document.Json = {"a": [1, 2], "b/~": {}}

    assert patch.applied(before, [operation]) == expected
    assert before == {"a": [1, 2], "b/~": {}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/a/3", "value": 1},
        {"op": "add", "path": "/none/x", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": "/x"},
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "remove", "path": "/a/01"},
        {"op": "test", "path": "/a/0", "value": True},
        {"op": "fold", "path": "/a"},
        {"path": "/a"},
        "add",
    ],
)
def test_a_patch_that_does_not_fit_is_told(operation: document.Json) -> None:
    with pytest.raises(patch.PatchError, match="cannot apply"):
        patch.applied({"a": [1, 2]}, [operation])
