"""What an operator does with a running sandbox besides looking at it: copy files, have the node examined, collect."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests import bundle
from tests.faults import on_record, processes, stopped
from tests.integration.conftest import ON_NAMESPACES
from tests.integration.test_bad_input import MACHINE
from tests.integration.test_management import ctl, governed, rego
from tests.manager import Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

SECRET = "s3cret-of-the-container"


@ON_NAMESPACES
async def test_files_and_directories_are_copied_into_a_container_and_out_of_it(
    manager: Manager, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    content = os.urandom((3 << 20) + 17)
    (tree / "below/data").write_bytes(content)
    (tree / "below/data").chmod(0o640)
    (tree / "script").write_text("#!/bin/sh\n")
    (tree / "script").chmod(0o755)
    (tree / "link").symlink_to("below/data")
    os.mkfifo(tree / "fifo")
    async with manager.container("copied", "sleep", "100000") as container:
        await container.start()
        await ctl("cp", str(tree), "copied:copied:/tmp")
        await ctl("cp", f"{tree}/below/data", "copied:cop:/tmp/other")
        await ctl("cp", "copied:copied:/tmp/tree", f"{tmp_path}/back")
        await ctl("cp", "copied:copied:/tmp/other", str(tmp_path))
        for path in (tmp_path / "back/below/data", tmp_path / "other"):
            assert path.read_bytes() == content
            assert path.stat().st_mode & 0o7777 == 0o640
        assert (tmp_path / "back/script").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "back/link").readlink() == Path("below/data")
        assert not (tmp_path / "back/fifo").exists()
        assert b"No such file" in await ctl("cp", "copied:copied:/none", str(tmp_path), code=1)
        assert b"/none/deep" in await ctl("cp", f"{tree}/script", "copied:copied:/none/deep/x", code=1)
        assert b"of one: copied" in await ctl("cp", f"{tree}/script", "copied:web:/x", code=1)
        assert [each.name for each in (tmp_path / "back").iterdir() if each.name.startswith(".")] == []


@ON_NAMESPACES
async def test_a_policy_keeps_files_from_being_copied(manager: Manager, tmp_path: Path) -> None:
    async with governed(manager, "kept", rego(ExecProcess=False), "sleep", "100000") as container:
        await container.start()
        refusal = await ctl("cp", "kept:kept:/etc", str(tmp_path), code=1)
        assert b"ExecProcessRequest is blocked by policy" in refusal
        assert b"next: the guest's policy" in refusal
        unheard = rego(ExecProcess=True, ReadStream=False)
        await ctl("policy", "set", "--sandbox-id", "kept", "-", stdin=unheard.encode())
        assert b"policy may keep outputs from being read" in await ctl("cp", "kept:kept:/bin", str(tmp_path), code=1)
    assert list(tmp_path.iterdir()) == []


async def examined(manager: Manager, id: str) -> dict[str, str]:
    """What the doctor finds of a sandbox."""
    said = await ctl("doctor", "-o", "json", "--config", str(manager.config), code=3)
    [told] = [each for each in json.loads(said)["findings"] if each["name"] == f"sandbox {id}"]
    assert told["part"] == "sandboxes"
    assert isinstance(told, dict)
    return told


@ON_NAMESPACES
async def test_a_node_with_a_sandbox_is_examined_and_collected_without_its_secrets(
    manager: Manager, tmp_path: Path
) -> None:
    spec = bundle.spec("told", manager.rootfs, bundle.process(["sleep", "100000"], env=[f"API_KEY={SECRET}"]))
    async with manager.container("told", spec=spec) as container:
        await container.start()
        told = await examined(manager, "told")
        assert told["verdict"] == "ok"
        assert told["evidence"].startswith("its agent answered after ")
        await ctl("collect", "-o", str(tmp_path / "r.tar.gz"), "--config", str(manager.config))
        content = await on_record("told", lambda content: True)
        with stopped(processes(content)[MACHINE["namespace"]]):
            told = await examined(manager, "told")
        assert told["verdict"] == "fail"
        assert "its agent does not answer" in told["evidence"]
        assert "kata-ctl explain told" in told["fix"]
    with tarfile.open(tmp_path / "r.tar.gz") as archive:
        files = {each.name: archive.extractfile(each) for each in archive if each.isfile()}
        texts = {name: content.read().decode() for name, content in files.items() if content}
    assert [name for name, text in texts.items() if SECRET in text] == []
    assert "kata_shim_threads" in texts["r/sandboxes/told/metrics.txt"]
    assert json.loads(texts["r/sandboxes/told/record.json"])["sandbox"] == "told"
    assert "API_KEY=<redacted>" in json.loads(texts["r/sandboxes/told/containers/told.json"])["process"]["env"]
    assert "agent" in texts["r/sandboxes/told/timeline.txt"]
