"""OCI documents to the agent's messages and back."""

from __future__ import annotations

import logging
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from kata_protos import oci_pb2
from kata_py.oci import spec, wire
from kata_py.oci.errors import SpecError
from kata_py.oci.spec import LinuxResources, Process, Spec

MESSAGES = oci_pb2.DESCRIPTOR.message_types_by_name
SHAPES: dict[str, Any] = {name: shape for name, shape in vars(spec).items() if is_typeddict(shape)}
RANGES = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


def fields(message: Descriptor) -> dict[str, FieldDescriptor]:
    """A message's fields by the specification's names, paired without looking at case."""
    named = {field.name.lower(): field for field in message.fields}
    named["ociversion"] = named.get("version", message.fields[0])
    return {key: named[key.lower()] for key in SHAPES[message.name].__annotations__}


def values(hint: Any, field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values of a type that fit a field, zero and empty among them."""
    if get_origin(hint) is list:
        return st.lists(values(get_args(hint)[0], field), max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
    if is_typeddict(hint):
        return documents(hint.__name__)
    if hint is int:
        return st.integers(*RANGES[field.type]) | st.just(0)
    return {str: st.text(alphabet="ab/0", max_size=3), bool: st.booleans()}[hint]


def documents(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Documents of the type of that name, with any of the keys that need not be there left out."""
    shape = SHAPES[name]
    paired = fields(MESSAGES[name])
    keys = {key: values(hint, paired[key]) for key, hint in get_type_hints(shape).items()}
    if name == "LinuxDeviceCgroup":  # what a missing number means there has tests of its own
        keys |= {"major": st.integers(1, 511), "minor": st.integers(1, 255)}
    return st.fixed_dictionaries(
        {key: value for key, value in keys.items() if key in shape.__required_keys__},
        optional={key: value for key, value in keys.items() if key in shape.__optional_keys__},
    )


def documents_of_a_spec(part: str) -> st.SearchStrategy[dict[str, Any]]:
    """Specs that hold one part in every form; all at once would be too much for one example."""
    rest = st.fixed_dictionaries({"ociVersion": st.just("1.2.0")}, optional={"hostname": st.sampled_from(["", "web"])})
    return st.tuples(rest, documents(part)).map(lambda parts: parts[0] | {part.lower(): parts[1]})


def normal(document: Any, hint: Any) -> Any:
    """The document without what the wire cannot tell from missing: keys that may be missing and say nothing."""
    if get_origin(hint) is list:
        return [normal(item, get_args(hint)[0]) for item in document]
    if not is_typeddict(hint):
        return document
    hints = get_type_hints(hint)
    kept = {key: normal(value, hints[key]) for key, value in document.items()}
    for key in hint.__optional_keys__ & kept.keys():
        nothing = not any(kept[key].values()) if is_typeddict(hints[key]) else not kept[key]
        if nothing and key not in ("capabilities", "errnoRet"):
            del kept[key]
    if hint is spec.LinuxDevice:
        kept = {"major": 0, "minor": 0} | kept
    return kept


@settings(deadline=None)
@given(document=st.sampled_from(["Process", "Root", "Hooks", "Linux"]).flatmap(documents_of_a_spec))
def test_what_is_sent_comes_back(document: Spec) -> None:
    assert wire.from_agent(wire.to_agent(document)) == normal(document, Spec)


@given(document=documents("Process"))
def test_a_process_alone_comes_back(document: Process) -> None:
    assert wire.process_from_agent(wire.process_to_agent(document)) == normal(document, Process)


@given(document=documents("LinuxResources"))
def test_resources_alone_come_back(document: LinuxResources) -> None:
    assert wire.resources_from_agent(wire.resources_to_agent(document)) == normal(document, LinuxResources)


def test_every_field_of_the_wire_has_its_key_and_every_required_key_is_there_even_if_zero() -> None:
    for name, message in MESSAGES.items():
        if name in ("Solaris", "Windows"):
            continue
        keys = {wire._key(field.name) for field in message.fields} - {"solaris", "windows"}
        assert keys == set(SHAPES[name].__annotations__), name
        required = {wire._key(field) for field in wire._REQUIRED.get(name, ())}
        assert required == SHAPES[name].__required_keys__ | ({"major", "minor"} if name == "LinuxDevice" else set()), (
            name
        )


@pytest.mark.parametrize(
    "numbers", [{}, {"major": 5}, {"major": 5, "minor": 0}, {"major": 5, "minor": 2}, {"minor": 2}], ids=str
)
def test_a_device_rule_tells_all_devices_from_device_zero(numbers: dict[str, int]) -> None:
    resources: Any = {"devices": [{"allow": False, "access": "rwm"} | numbers]}
    assert wire.resources_from_agent(wire.resources_to_agent(resources)) == resources


def test_a_device_rule_from_upstream_s_runtime_means_all_devices_where_it_says_zero() -> None:
    message = oci_pb2.LinuxResources(Devices=[oci_pb2.LinuxDeviceCgroup(Allow=False, Access="rwm")])
    assert wire.resources_from_agent(message) == {"devices": [{"allow": False, "access": "rwm"}]}


def test_limits_of_minus_one_survive() -> None:
    resources: LinuxResources = {"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    assert wire.resources_from_agent(wire.resources_to_agent(resources)) == resources


def test_a_seccomp_errno_of_zero_is_told_from_none() -> None:
    calls: list[spec.LinuxSyscall] = [
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
        {"names": ["reboot"], "action": "SCMP_ACT_ERRNO"},
    ]
    document: Spec = {"ociVersion": "1", "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}}}
    assert wire.from_agent(wire.to_agent(document)) == document


def test_each_kind_of_hook_keeps_its_place() -> None:
    kinds = ("prestart", "poststart", "poststop", "createRuntime", "createContainer", "startContainer")
    document: Any = {"ociVersion": "1", "hooks": {kind: [{"path": f"/bin/{kind}", "timeout": 5}] for kind in kinds}}
    assert wire.from_agent(wire.to_agent(document)) == document


def test_no_capabilities_at_all_are_not_no_word_about_capabilities() -> None:
    none: Process = {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "capabilities": {}}
    assert wire.process_from_agent(wire.process_to_agent(none)) == none
    assert "capabilities" not in wire.process_from_agent(oci_pb2.Process())


def test_capability_names_lose_the_quotes_that_runtime_rs_gives_them() -> None:
    message = oci_pb2.Process(Capabilities=oci_pb2.LinuxCapabilities(Bounding=['"CAP_KILL"', "CAP_CHOWN"]))
    assert wire.process_from_agent(message)["capabilities"] == {"bounding": ["CAP_KILL", "CAP_CHOWN"]}


def test_empty_messages_of_other_runtimes_are_left_out() -> None:
    message = oci_pb2.Spec(Version="1.2.0")
    message.Windows.dummy = "x"
    message.Solaris.SetInParent()
    message.Hooks.SetInParent()
    message.Process.ConsoleSize.SetInParent()
    message.Linux.Resources.Network.SetInParent()
    assert wire.from_agent(message) == {
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [], "cwd": ""},
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"process": {"user": {"uid": 1 << 32, "gid": 0}}}, "process.user.uid: does not fit the agent's protocol"),
        ({"linux": {"devices": [{"path": "/dev/x", "major": 1 << 63}]}}, "linux.devices[0].major: does not fit"),
        ({"annotations": {"a": "\ud800"}}, "annotations: does not fit the agent's protocol"),
        ({"process": {"args": ["sh", "\ud800"]}}, "process.args: does not fit the agent's protocol"),
    ],
)
def test_a_value_that_does_not_fit_is_named(change: Any, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        wire.to_agent(change)
    assert str(caught.value).startswith(said)


def test_keys_without_a_place_are_left_out_and_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    unified: Any = {
        "ociVersion": "1",
        "linux": {"resources": {"unified": {"memory.oom.group": "1"}, "pids": {"limit": 9}}},
    }
    assert wire.from_agent(wire.to_agent(unified)) == {
        "ociVersion": "1",
        "linux": {"resources": {"pids": {"limit": 9}}},
    }
    assert caplog.messages == ["linux.resources.unified has no place in the agent's protocol and is left out"]
