"""The faults that `kata-ctl explain` is measured by, each injected into real parts.

An injector gets a manager and a directory of its own. When it returns, the sandbox `NAME` has failed, and is gone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from image.tree import File, Tree
from kata_py.config.load import load
from kata_py.resource.cgroup import hand_down, hierarchies
from kata_py.sandbox import record as records
from kata_py.ttrpc.errors import StatusError, TtrpcError
from tests import bundle as bundles
from tests import launcher, netns
from tests import registry as registries
from tests.conftest import REPOSITORY
from tests.faults import MACHINES, in_stage, kill_when, on_record, processes, stopped
from tests.integration.test_bad_input import (
    MACHINE,
    SMALL,
    booting,
    configured,
    refused,
    refused_at_start,
    unspoilt,
    wrapped,
)
from tests.integration.test_guest_pull import IMAGE_NAME, created, registry_of, volume, written
from tests.manager import Container, Manager
from tests.registry import layer
from tests.tasks import until

NAME = "explained"  # the sandbox
HIDDEN = (
    "unshare --mount --propagation slave sh -ec '! [ -e {device} ] || "
    '{{ mount --bind {device} {device}; mount -o remount,bind,nodev {device}; }}; exec "$@"\' sh'
)
PATIENCE = 40  # seconds, for a guest that will soon be down by itself
POLICY = "io.katacontainers.config.agent.policy"
OLDER = """

_all = Agent.ttrpc_methods
Agent.ttrpc_methods = lambda self: {n: e for n, e in _all(self).items() if n != "CreateContainer"}
"""
S390 = 22  # EM_S390: a machine that no test runs on


async def key(manager: Manager, tmp: Path, **values: object) -> None:
    await refused(configured(manager, tmp, **values), NAME)


async def hypervisor(manager: Manager, tmp: Path, lines: Sequence[str]) -> None:
    keys = tuple(line.partition("=")[0] for line in lines)
    text = [line for line in manager.config.read_text().splitlines() if not line.startswith(keys)]
    at = text.index("[hypervisor.qemu]") + 1
    await configuration(manager, tmp, "\n".join([*text[:at], *lines, *text[at:]]))


async def without(manager: Manager, tmp: Path, device: str, line: str) -> None:
    """On a host that has the device, nobody can open it there: its place is on a file system without devices."""
    hidden = HIDDEN.format(device=device)
    await hypervisor(wrapped(manager, tmp, hidden), tmp, [line])


async def guest(manager: Manager, tmp: Path, script: str, patience: int) -> None:
    """A guest that runs a script as its init, and has so many seconds for it."""
    await key(booting(manager, tmp, script), tmp, dial_timeout=patience)


async def configuration(manager: Manager, tmp: Path, text: str | None) -> None:
    config = tmp / "configuration.toml"
    if text is not None:
        config.write_text(text)
    await refused(manager.using(config=config), NAME)


async def full(manager: Manager, tmp: Path, place: str) -> None:
    await refused(wrapped(manager, tmp, SMALL.format(place=place, options="nr_inodes=1")), NAME)


async def command(manager: Manager, tmp: Path) -> None:
    await refused(manager, NAME, "no-such-command")


async def changed(manager: Manager, tmp: Path, change: Callable[[dict[str, Any]], object]) -> None:
    def spoil(bundle: Path) -> None:
        spec = json.loads((bundle / "config.json").read_text())
        change(spec)
        (bundle / "config.json").write_text(json.dumps(spec))

    await refused(manager, NAME, spoil=spoil)


async def garbled(manager: Manager, tmp: Path) -> None:
    await refused(manager, NAME, spoil=garble)


def garble(bundle: Path) -> None:
    """Make a bundle's spec one that cannot be read."""
    (bundle / "config.json").write_bytes(b"{,")


async def no_room_for_socket(manager: Manager, tmp: Path) -> None:
    await not_started(wrapped(manager, tmp, SMALL.format(place="/run/containerd/s", options="nr_inodes=1")), tmp)


async def garbled_initramfs(manager: Manager, tmp: Path) -> None:
    garbled = tmp / "initramfs.img"
    garbled.write_bytes(b"no archive" * 1000)
    await key(manager, tmp, initramfs=str(garbled), dial_timeout=PATIENCE)


async def standstill(manager: Manager, tmp: Path) -> None:
    hurried = configured(manager, tmp, create_container_timeout=1)
    async with hurried.container(NAME, "true", create=False) as container:
        creating = asyncio.create_task(container.create())
        content = await on_record(container.id, in_stage("create"))
        driver = next(name for name in MACHINE.values() if name in processes(content))
        with stopped(processes(content)[driver]), pytest.raises(StatusError):
            await creating


async def hurried(manager: Manager, tmp: Path) -> None:
    """A manager that waits for a guest's boot no longer than a moment."""
    async with manager.container(NAME, "true", create=False) as container:
        with pytest.raises(StatusError):
            await container.create(timeout=1.0)
        await until(lambda: not (records.ROOT / NAME).exists())


async def ended(container: Container) -> None:
    """Wait until the container is seen to have ended."""
    with suppress(TtrpcError):
        await container.wait()


async def killed(manager: Manager, tmp: Path, victim: str) -> None:
    async with manager.container(NAME, "sleep", "1000") as container:
        await container.start()
        content = await on_record(NAME, lambda content: content["state"] == "running")
        os.kill(processes(content)[victim], signal.SIGKILL)
        await ended(container)


async def annotated(manager: Manager, tmp: Path, key: str, value: str) -> None:
    annotation = {f"io.katacontainers.config.hypervisor.{key}": value}
    await changed(manager, tmp, lambda spec: spec.update(annotations=annotation))


async def killed_with_full_shm(manager: Manager, tmp: Path) -> None:
    """QEMU is killed, on a host whose /dev/shm was full before: its memory is a memfd, so that makes no difference."""
    await killed(wrapped(manager, tmp, SMALL.format(place="/dev/shm", options="nr_inodes=1")), tmp, "qemu")


async def stale_sockets(manager: Manager, tmp: Path) -> None:
    """An earlier sandbox of the same id left its machine's sockets, and no record."""
    directory = MACHINES / NAME
    directory.mkdir(parents=True)
    for name in ("monitor.sock", "qmp.sock", "agent.sock", "console.sock", "vhost-fs.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(directory / name))
    try:
        await refused(manager, NAME)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def killed_in(manager: Manager, tmp: Path, victim: str, stage: str) -> None:
    async with manager.container(NAME, "sleep", "1000", create=False) as container:
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_when(NAME, victim, in_stage(stage)))
            with suppress(TtrpcError):
                await container.create()
        if victim == "shim":
            await asyncio.to_thread(manager.delete, NAME, container.bundle)  # as containerd does


async def shim_killed(manager: Manager, tmp: Path) -> None:
    async with manager.container(NAME, "sleep", "1000") as container:
        await container.start()
        os.kill(container.shim_pid, signal.SIGKILL)
        await ended(container)
        await asyncio.to_thread(manager.delete, NAME, container.bundle)


async def shim_hung(manager: Manager, tmp: Path) -> None:
    async with manager.container(NAME, "sleep", "1000") as container:
        await container.start()
        os.kill(container.shim_pid, signal.SIGSTOP)
        await asyncio.to_thread(manager.delete, NAME, container.bundle)


async def not_started(
    manager: Manager, tmp: Path, *, flags: Sequence[str] = (), spoil: Callable[[Path], object] = unspoilt
) -> None:
    spec = bundles.spec(NAME, manager.rootfs, bundles.process(["true"]))
    bundle = bundles.write(tmp / "bundle", spec)
    spoil(bundle)
    await refused_at_start(manager, NAME, bundle, *flags)


async def shim_gone(manager: Manager, tmp: Path) -> None:
    """A container comes to a pod whose sandbox is no more."""
    spec = bundles.in_pod(bundles.spec("app", manager.rootfs, bundles.process(["true"])), NAME)
    bundle = bundles.write(tmp / "bundle", spec)
    await refused_at_start(manager, "app", bundle)


async def no_capability(manager: Manager, tmp: Path) -> None:
    without = wrapped(manager, tmp, "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin")
    async with without.container(NAME, "true", create=False) as container:
        with pytest.raises(TtrpcError):
            await container.create()


async def no_tun(manager: Manager, tmp: Path) -> None:
    await networked(wrapped(manager, tmp, HIDDEN.format(device="/dev/net/tun")), tmp)


async def networked(manager: Manager, tmp: Path, commands: Sequence[str] = ()) -> None:
    """A pod with one link, of whose network namespace something is not as it should be."""
    with netns.pod() as world, netns.pod() as inside:
        inside.ip(f"link add eth0 type veth peer name out0 netns {world.pid}")
        inside.ip("addr add 10.0.0.2/24 dev eth0")
        inside.ip("link set eth0 up")
        for command in commands:
            inside.run(*command.split())
        await in_netns(manager, tmp, inside.path)


async def in_netns(manager: Manager, tmp: Path, path: Path | None) -> None:
    """A pod in another network namespace; None is the host's."""

    def change(spec: dict[str, Any]) -> None:
        spaces = [space for space in spec["linux"]["namespaces"] if space["type"] != "network"]
        spec["linux"]["namespaces"] = [*spaces, *([{"type": "network", "path": str(path)}] if path else ())]

    await changed(manager, tmp, change)


async def netns_unmounted(manager: Manager, tmp: Path) -> None:
    """What `ip netns` and CNI leave when the namespace is unmounted and its file stays."""
    (tmp / "netns").touch()
    await in_netns(manager, tmp, tmp / "netns")


async def governed(manager: Manager, tmp: Path, policy: str) -> None:
    def govern(spec: dict[str, Any]) -> None:
        spec["annotations"] = {POLICY: base64.b64encode(policy.encode()).decode()}

    await changed(manager, tmp, govern)


async def foreign_program(manager: Manager, tmp: Path) -> None:
    """A container's program is for another architecture, and so is its image."""
    program = tmp / "program"
    program.write_bytes(of_s390(Path("/bin/busybox").read_bytes()))
    program.chmod(0o755)
    mount = {"destination": "/bin/foreign", "type": "bind", "source": str(program), "options": ["rbind", "ro"]}
    async with manager.container(NAME, "/bin/foreign", mounts=[mount], create=False) as container:
        await container.create()
        with pytest.raises(StatusError):
            await container.start()


async def foreign_kernel(manager: Manager, tmp: Path) -> None:
    kernel = tmp / "vmlinux"
    kernel.write_bytes(of_s390(Path(load(manager.config).hypervisor.kernel).read_bytes()))
    await key(manager, tmp, kernel=str(kernel))


async def foreign_init(manager: Manager, tmp: Path) -> None:
    """A guest whose first program is for another architecture."""
    tree = Tree()
    tree.add("init", File(of_s390(Path("/bin/busybox").read_bytes()), executable=True))
    initramfs = tmp / "initramfs.img"
    initramfs.write_bytes(tree.cpio())
    await key(manager, tmp, initramfs=str(initramfs), dial_timeout=PATIENCE)


async def garbled_image(manager: Manager, tmp: Path) -> None:
    """A guest's root of which the beginning, with the file system's own description, is not what it was."""
    image = tmp / "image"
    image.write_bytes(bytes(1 << 20))
    await key(manager, tmp, image=str(image), dial_timeout=PATIENCE)


async def little_memory(manager: Manager, tmp: Path) -> None:
    """The pod's cgroup has room for a part of its machine alone."""
    confined = configured(manager, tmp, sandbox_cgroup_only=True)
    with limited("/explained", 130 << 20):
        await changed(confined, tmp, lambda spec: spec["linux"].update(cgroupsPath=f"/explained/{NAME}"))


@contextmanager
def limited(path: str, limit: int) -> Iterator[None]:
    """A cgroup of the host that may have so many bytes of memory."""
    tree = next(tree for tree in hierarchies() if tree.unified or "memory" in tree.controllers)
    directory = tree.directory(path)
    directory.mkdir()
    try:
        if tree.unified:
            hand_down(directory)
        (directory / ("memory.max" if tree.unified else "memory.limit_in_bytes")).write_text(str(limit))
        yield
    finally:
        directory.rmdir()


async def greedy_container(manager: Manager, tmp: Path) -> None:
    """A container takes more memory than it may have."""
    spec = bundles.spec(NAME, manager.rootfs, bundles.process(["tail", "/dev/zero"]))
    spec["linux"]["resources"]["memory"] = {"limit": 16 << 20}
    async with manager.container(NAME, spec=spec) as container:
        await container.start()
        await ended(container)


def of_s390(program: bytes) -> bytes:
    """An ELF file that says it is for s390x."""
    return program[:18] + struct.pack("<H", S390) + program[20:]


async def older_agent(manager: Manager, tmp: Path) -> None:
    """An agent of a version that did not know how to create containers yet."""
    shutil.copytree(REPOSITORY / "agent" / "kata_agent", tmp / "older" / "kata_agent")
    calls = tmp / "older" / "kata_agent" / "rpc" / "service.py"
    calls.write_text(calls.read_text() + OLDER)
    await refused(manager.using(launcher=launcher.write(tmp / "bin", tmp / "older")), NAME)


async def later_container(manager: Manager, tmp: Path) -> None:
    """A pod runs, and a further container of it cannot be made."""

    def spec(id: str, *args: str) -> dict[str, Any]:
        return bundles.in_pod(bundles.spec(id, manager.rootfs, bundles.process(args)), NAME, sandbox=id == NAME)

    async with manager.container(NAME, spec=spec(NAME, "sleep", "1000")) as sandbox:
        await sandbox.start()
        async with manager.container("app", spec=spec("app", "no-such-command"), create=False) as app:
            with pytest.raises(StatusError):
                await app.create()


async def clock_ahead(manager: Manager, tmp: Path) -> None:
    """To the guest, which has the node's time, the certificate of the registry has expired.

    No namespace shifts the time of day: it is the certificate that is shifted.
    """
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("KATA_AGENT_PAUSE_BUNDLE", str(registries.write_pause_bundle(tmp / "pause_bundle")))
        for name, value in registries.skopeo_environment(tmp).items():
            environ.setenv(name, value)
        pulling = manager.using(config=written(tmp / "pull.toml", "namespace"))
        async with (
            created(pulling, NAME, rootfs=volume("pause")) as pod,
            registry_of(pod, tmp / "registry", encrypted=True, expired=True) as registry,
        ):
            image = await registry.push("lib/app:1", layer({}))
            with pytest.raises(StatusError):
                async with created(pulling, "app", pod=NAME, annotations={IMAGE_NAME: image}, rootfs=volume(image)):
                    raise AssertionError("it was created")


async def failing_hook(manager: Manager, tmp: Path) -> None:
    hook = {"path": "/bin/false"}
    await changed(manager, tmp, lambda spec: spec.update(hooks={"createRuntime": [hook]}))


async def no_volume(manager: Manager, tmp: Path) -> None:
    mount = {"destination": "/data", "type": "bind", "source": str(tmp / "no-such"), "options": ["rbind"]}
    await changed(manager, tmp, lambda spec: spec["mounts"].append(mount))
