from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kata_py.sandbox.pod import Role
from kata_py.shim import bundle
from kata_py.shim.errors import UsageError

CONTAINERD = "io.kubernetes.cri."
CRIO = "io.kubernetes.cri-o."
DOCKER = "io.kubernetes."


def written(directory: Path, annotations: object) -> str:
    (directory / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "annotations": annotations}))
    return str(directory)


@pytest.mark.parametrize("annotations", [None, {}, {"io.katacontainers.config.hypervisor.machine_type": "q35"}])
def test_a_container_without_a_type_is_its_own_sandbox(annotations: object, tmp_path: Path) -> None:
    assert bundle.membership(written(tmp_path, annotations), "box") == (Role.SINGLE, "box")


@pytest.mark.parametrize(
    ("type_key", "sandbox", "id_key"),
    [
        (CONTAINERD + "container-type", "sandbox", CONTAINERD + "sandbox-id"),
        (CRIO + "ContainerType", "sandbox", CRIO + "SandboxID"),
        (DOCKER + "docker.type", "podsandbox", DOCKER + "sandbox.id"),
    ],
)
def test_each_managers_annotations_are_known(type_key: str, sandbox: str, id_key: str, tmp_path: Path) -> None:
    first = written(tmp_path, {type_key: sandbox, id_key: "pod"})
    assert bundle.membership(first, "box") == (Role.SANDBOX, "box")
    other = written(tmp_path, {type_key: "container", id_key: "pod"})
    assert bundle.membership(other, "box") == (Role.CONTAINER, "pod")


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({CRIO + "ContainerType": "infra"}, "ContainerType is 'infra', expected 'sandbox' or 'container'"),
        ({CRIO + "ContainerType": "container"}, "no annotation io.kubernetes.cri-o.SandboxID"),
        ({CRIO + "ContainerType": "container", CRIO + "SandboxID": "../x"}, "sandbox id '../x' is not valid"),
        ([], None),
        (["a"], "annotations are not an object"),
    ],
)
def test_annotations_that_contradict_themselves_are_named(
    annotations: object, said: str | None, tmp_path: Path
) -> None:
    directory = written(tmp_path, annotations)
    if said is None:
        assert bundle.membership(directory, "box") == (Role.SINGLE, "box")
        return
    with pytest.raises(UsageError, match=said):
        bundle.membership(directory, "box")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "config.json:1:1: not JSON: Expecting value"),
        (b'{"annotations":\n {,}', "config.json:2:3: not JSON: Expecting property name"),
        (b"\xff\xfe\x00", "config.json: not JSON that can be read: 'utf-8' codec"),
        (b"[" * 100_000, "config.json: not JSON that can be read: "),
        (b'"text"', "config.json: annotations are not an object"),
    ],
)
def test_a_garbled_spec_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        bundle.membership(str(tmp_path), "box")


def test_a_missing_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}/config.json is missing"):
        bundle.membership(str(tmp_path), "box")


@pytest.mark.parametrize("value", ["a", "0", "a" * 76, "f" * 64, "my-pod_1.2", "k8s.io"])
def test_what_managers_use_as_ids_is_valid(value: str) -> None:
    bundle.check_id("id", value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "no id given"),
        ("a" * 77, "id of 77 characters, at most 76"),
        ("a/b", "'a/b' is not valid"),
        ("..", "'..' is not valid"),
        ("-a", "'-a' is not valid"),
        ("a b", "is not valid"),
        ("a\n", "is not valid"),
        ("é", "is not valid"),
        ("²", "is not valid"),
    ],
)
def test_what_could_not_be_part_of_a_path_is_refused(value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bundle.check_id("id", value)


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    bundle.remove(str(tmp_path), bundle.ADDRESS)
    bundle.remove(str(tmp_path / "gone"), bundle.ADDRESS, bundle.PID)


def test_a_bundle_is_locked_until_the_process_ends(tmp_path: Path) -> None:
    lock = f"from kata_py.shim import bundle; print(bundle.lock({str(tmp_path)!r}))"
    two = subprocess.run([sys.executable, "-c", f"{lock}; {lock}"], capture_output=True, text=True, timeout=10)
    assert two.stdout.split() == ["True", "False"]
    one = subprocess.run([sys.executable, "-c", lock], capture_output=True, text=True, timeout=10)
    assert one.stdout.split() == ["True"]
