"""Reading a bundle's config.json: what is taken, and what each fault is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.oci.errors import SpecError
from kata_py.oci.load import load_spec, parse_process, parse_resources

SPEC: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "annotations": {"example.com/note": "hello"},
    "linux": {"namespaces": [{"type": "pid"}], "resources": {"memory": {"limit": 1 << 27}}},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SPEC))
    return tmp_path


def changed(*path: str | int, value: object) -> dict[str, Any]:
    """The spec with one value replaced."""
    document: Any = json.loads(json.dumps(SPEC))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(document)


def fault(bundle: Path, document: object) -> str:
    """What is said about a document, without the file it is in."""
    file = bundle / "config.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(SpecError) as caught:
        load_spec(bundle)
    place, text = str(caught.value).split("config.json", 1)
    assert place == f"{bundle}/"
    return text


def test_a_spec_is_read_as_it_stands(bundle: Path) -> None:
    assert load_spec(bundle) == SPEC


def test_keys_that_are_unknown_or_null_do_no_harm(bundle: Path) -> None:
    document = changed("linux", "devices", value=None) | {"vm": {"anything": [1, None]}, "hooks": None}
    (bundle / "config.json").write_text(json.dumps(document))
    assert load_spec(bundle) == SPEC | {"vm": {"anything": [1, None]}}


def test_a_missing_bundle_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere: there is no such directory; a bundle holds"):
        load_spec(tmp_path / "nowhere")
    with pytest.raises(SpecError, match=r"config\.json is missing; a bundle holds"):
        load_spec(tmp_path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(SpecError, match=r"config\.json: cannot be read: Is a directory"):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1:1: not JSON: Expecting value"),
        ('{\n  "ociVersion": "1.2.0",\n}', ":3:1: not JSON: Expecting property name enclosed in double quotes"),
        ('{"ociVersion": "1.2.0"} x', ":1:25: not JSON: Extra data"),
        ("[" * 100_000, ": not JSON that can be read: maximum recursion depth exceeded while decoding a JSON array"),
        ("1" * 5000, ": not JSON that can be read: Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_garbled_text_is_located(bundle: Path, text: str, said: str) -> None:
    assert fault(bundle, text).startswith(said)


def test_bytes_that_are_no_utf_8_are_located(bundle: Path) -> None:
    (bundle / "config.json").write_bytes(b'{"ociVersion": "\xff"}')
    with pytest.raises(SpecError, match=r"config\.json: not JSON: byte 16 is no UTF-8"):
        load_spec(bundle)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], ": expected an object, got []"),
        ({}, ": ociVersion is missing"),
        (changed("process", value="sh"), ': process: expected an object, got "sh"'),
        (changed("process", "args", value="sh"), ': process.args: expected a list, got "sh"'),
        (changed("process", "args", value=["sh", 7]), ": process.args[1]: expected a string, got 7"),
        (changed("process", "user", value={"uid": 0}), ": process.user: gid is missing"),
        (changed("process", "user", "uid", value=True), ": process.user.uid: expected a whole number, got true"),
        (changed("process", "terminal", value=1), ": process.terminal: expected true or false, got 1"),
        (changed("mounts", 0, value={"type": "proc"}), ": mounts[0]: destination is missing"),
        (
            changed("annotations", "example.com/note", value=1),
            ': annotations["example.com/note"]: expected a string, got 1',
        ),
        (
            changed("linux", "resources", "memory", "limit", value="1" * 50),
            f': linux.resources.memory.limit: expected a whole number, got "{"1" * 36}...',
        ),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(bundle: Path, document: object, said: str) -> None:
    assert fault(bundle, document) == said


def test_a_process_and_resources_are_read_alone() -> None:
    assert parse_process(json.dumps(SPEC["process"]).encode())["args"] == ["sh"]
    assert parse_resources(b'{"pids": {"limit": 7}, "cpu": null}') == {"pids": {"limit": 7}}
    with pytest.raises(SpecError, match=r"^exec of web: args is missing$"):
        parse_process(b'{"cwd": "/", "user": {"uid": 0, "gid": 0}}', source="exec of web")
    with pytest.raises(SpecError, match=r"^resources: pids: limit is missing$"):
        parse_resources(b'{"pids": {}}')


@given(
    text=st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["user", "args", "cwd", "env", "x"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_bytes_the_outcome_is_a_process_or_a_spec_error(text: bytes) -> None:
    try:
        process = parse_process(text)
    except SpecError:
        return
    assert {"user", "args", "cwd"} <= process.keys()


@pytest.mark.parametrize("depth", range(900, 1000))
def test_a_document_nested_as_deeply_as_can_be_read_is_refused_like_any_other(depth: int) -> None:
    with pytest.raises(SpecError):
        parse_process(b"[" * depth + b"]" * depth)
