"""A real containerd with the drop-in that `kata-ctl install` has written: its pods are ours, the rest is as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kata_py.sandbox import record
from tests import launcher
from tests.cri import client
from tests.cri.client import Cri, CriError
from tests.cri.pods import Pods
from tests.functional.install.conftest import NEW, OLD, Node
from tests.leftovers import left_behind
from tools import configuration
from tools.cri import CriContainerd
from tools.footprint import Footprint

pytestmark = [pytest.mark.root, pytest.mark.containerd]


class InstalledContainerd(CriContainerd):
    """A containerd that is told of us by a drop-in, beside a handler of its own."""

    def __init__(self, node: Node, directory: Path) -> None:
        own = configuration.write(directory / "own.toml", None, program="the tests", hypervisor="namespace")
        super().__init__(directory, launcher.write(directory / "bin"), {"own": own})
        node.main = directory / "config.toml"
        self._node = node

    def _config(self) -> str:
        return f'imports = ["{self.directory}/conf.d/*.toml"]\n{super()._config()}'

    def _prepare(self, stack: ExitStack) -> None:
        super()._prepare(stack)
        self._node.install("containerd")


@pytest.fixture
def containerd(node: Node, short_tmp: Path) -> Iterator[InstalledContainerd]:
    """It runs; afterwards the machine is as before."""
    node.upgrade(node.bundles / OLD)
    before = Footprint.take()
    with InstalledContainerd(node, short_tmp / "installed") as containerd:
        yield containerd
    assert left_behind(before) == []


async def program_of_pod(cri: Cri, handler: str, logs: Path, meanwhile: Callable[[], object] | None = None) -> Path:
    """Run a pod under a handler, with a container after something has happened; says which program its shim is."""
    async with Pods(cri, handler, logs).run() as pod:
        if meanwhile:
            meanwhile()
        container = await pod.run("sleep", "1000")
        assert (await container.exec("echo", "inside")).stdout == b"inside\n"
        return Path(record.program_of(pod.id))


async def test_pods_run_by_the_drop_in_until_it_is_taken_away(
    containerd: InstalledContainerd, node: Node, tmp_path: Path
) -> None:
    shims = {version: node.home / "versions" / version / "bin" / node.shim.name for version in (OLD, NEW)}
    async with client.connected(containerd.address) as cri:
        await client.serving(cri)
        # Nobody restarts containerd; a container goes to its pod's shim, whichever version adds it.
        assert await program_of_pod(cri, "kata", tmp_path, lambda: node.upgrade(node.bundles / NEW)) == shims[OLD]
        assert await program_of_pod(cri, "kata-remote", tmp_path) == shims[NEW]
        assert await program_of_pod(cri, "own", tmp_path) == containerd.launcher

    node.ctl("uninstall", "containerd")
    await asyncio.to_thread(containerd.stop)
    await asyncio.to_thread(containerd.start)
    async with client.connected(containerd.address) as cri:
        await client.serving(cri)
        with pytest.raises(CriError, match='no runtime for "kata" is configured'):
            await program_of_pod(cri, "kata", tmp_path)
        assert await program_of_pod(cri, "own", tmp_path) == containerd.launcher
