from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kata_agent.device import cdi
from kata_agent.errors import AgentError, InvalidArgument
from kata_py.oci.spec import Spec

NULL = Path("/dev/null").stat().st_rdev
KIND = "example.com/gpu"


def write(directory: Path, name: str, devices: dict[str, Any], edits: Any = None, kind: str = KIND) -> None:
    described = [{"name": each, "containerEdits": edit} for each, edit in devices.items()]
    document = {"cdiVersion": "0.6.0", "kind": kind, "devices": described, "containerEdits": edits or {}}
    (directory / name).write_text(json.dumps(document))


def container(**linux: Any) -> Spec:
    return {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "env": ["PATH=/bin", "GPU=no"]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": linux,
    }  # type: ignore[return-value,typeddict-item]


def test_devices_are_named_by_annotations() -> None:
    annotations = {"cdi.k8s.io/b": f"{KIND}=1", "cdi.k8s.io/a": f"{KIND}=0,{KIND}=1", "other": "x"}

    assert cdi.names(annotations) == [f"{KIND}=0", f"{KIND}=1"]
    assert cdi.names({**annotations, "io.katacontainers.pkg.oci.container_type": "pod_sandbox"}) == []
    with pytest.raises(InvalidArgument, match=r"cdi.k8s.io/a: 'gpu' is no CDI device"):
        cdi.names({"cdi.k8s.io/a": "gpu"})


async def test_edits_of_the_kind_come_once_and_before_those_of_its_devices(tmp_path: Path) -> None:
    devices = {name: {"env": [f"D={name}"]} for name in ("0", "1", "2")}
    write(tmp_path, "gpu.json", devices, {"env": ["K=1"]})

    edits = await cdi.find([f"{KIND}=1", f"{KIND}=0"], tmp_path, timeout=0)

    assert edits == [{"env": ["K=1"]}, {"env": ["D=1"]}, {"env": ["D=0"]}]


async def test_a_spec_that_is_written_later_is_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / "cdi"
    waiting = asyncio.create_task(cdi.find([f"{KIND}=0"], directory, timeout=10, pace=0.01))
    await asyncio.sleep(0)
    directory.mkdir()
    (directory / "gpu.json").write_text('{"kind": ')
    await asyncio.sleep(0)
    write(directory, "gpu.json", {"0": {"env": ["A=1"]}})

    assert {"env": ["A=1"]} in await waiting


async def test_a_kind_that_does_not_come_is_told_with_what_could_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").touch()

    with pytest.raises(AgentError, match=r"timeout of 0 seconds: no spec is of kind example.com/gpu; nvidia.yaml"):
        await cdi.find([f"{KIND}=0"], tmp_path, timeout=0)


async def test_a_device_that_its_kind_has_not_fails_at_once(tmp_path: Path) -> None:
    write(tmp_path, "gpu.json", {"0": {}})

    with pytest.raises(AgentError, match=r"CDI device example.com/gpu=9 is not known"):
        await cdi.find([f"{KIND}=9"], tmp_path, timeout=60)


def test_edits_are_made_to_the_container() -> None:
    rules = [{"allow": False, "access": "rwm"}]
    edit = {
        "env": ["GPU=yes", "LIB=/gpu"],
        "additionalGids": [44, 0],
        "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}],
        "mounts": [{"hostPath": "/usr/lib/gpu", "containerPath": "/gpu", "options": ["ro"]}],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/ldconfig", "args": ["ldconfig"]}],
    }
    before = container(resources={"devices": rules})

    after = cdi.applied(before, [edit])

    assert after["process"]["env"] == ["PATH=/bin", "GPU=yes", "LIB=/gpu"]
    assert after["process"]["user"]["additionalGids"] == [44]
    numbers = {"type": "c", "major": os.major(NULL), "minor": os.minor(NULL)}
    assert after["linux"]["devices"] == [{"path": "/dev/gpu0", **numbers, "fileMode": 0o666}]
    assert after["linux"]["resources"]["devices"] == [*rules, {"allow": True, **numbers, "access": "rw"}]
    mount = {"destination": "/gpu", "source": "/usr/lib/gpu", "type": "bind", "options": ["ro", "rbind"]}
    assert after["mounts"][1:] == [mount]
    assert after["hooks"] == {"createContainer": [{"path": "/usr/bin/ldconfig", "args": ["ldconfig"]}]}
    assert before == container(resources={"devices": rules})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"intelRdt": {}}, "containerEdits.intelRdt is not supported"),
        ({"hooks": [{"hookName": "later", "path": "/x"}]}, "hookName 'later' is not supported"),
        ({"deviceNodes": [{"path": "/dev/no-such-device"}]}, "'/dev/no-such-device' doesn't exist"),
        ({"deviceNodes": [{}]}, "has not the specification's form"),
        ({"mounts": [{"hostPath": "/x"}]}, "has not the specification's form: KeyError\\('containerPath'\\)"),
    ],
)
def test_an_edit_that_cannot_be_made_is_told(edit: dict[str, Any], message: str) -> None:
    with pytest.raises(AgentError, match=message):
        cdi.applied(container(), [edit])
