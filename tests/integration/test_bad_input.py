"""Bad input: one clear message that names what is wrong, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from image.tree import File, Tree
from kata_protos.task_types_pb2 import Status
from kata_protos.task_v2_pb2 import StateRequest, StateResponse
from kata_protos.ttrpc_request_pb2 import Request, Response
from kata_py.resource import mount
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle as bundles
from tests.faults import in_stage, on_record, processes, stopped
from tests.integration.conftest import ON_QEMU
from tests.manager import Container, Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

MACHINE = {"namespace": "agent", "qemu": "qemu"}  # the process that is the machine, on record

FRAME_HEADER = struct.Struct(">IIBB")  # length, stream, type, flags
REQUEST = 1

# A launcher whose shim, and it alone, finds a small file system at a place.
SMALL = """\
unshare --mount --propagation slave sh -ec 'mkdir -p {place}; mount -t tmpfs -o {options} none {place}; exec "$@"' sh"""

# A launcher that is not root, yet may read wherever this repository lies.
NOT_ROOT = "setpriv --reuid=65534 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"


def unspoilt(bundle: Path) -> None:
    """Leave a bundle as it is."""


async def refused(manager: Manager, id: str, *args: str, spoil: Callable[[Path], object] = unspoilt) -> StatusError:
    """Ask a shim for a container that cannot be, and return what the manager is told."""
    async with manager.container(id, *(args or ["true"]), create=False) as container:
        spoil(container.bundle)
        with pytest.raises(StatusError) as caught:
            await container.create()
        return caught.value


async def refused_at_start(manager: Manager, id: str, bundle: Path, *flags: str) -> str:
    """Start a shim that cannot be, and return the one line that the manager's user reads."""
    before = sorted(bundle.iterdir())
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await manager.start_shim(id, bundle, *flags)
    assert sorted(bundle.iterdir()) == before
    line: str = caught.value.output.decode()
    assert re.fullmatch("containerd-shim-kata-v2 start: .*\n", line)
    return line


def configured(manager: Manager, directory: Path, **values: object) -> Manager:
    """The manager with a configuration in which these keys have these values."""
    text = manager.config.read_text()
    for key, value in values.items():
        line = f"{key} = {json.dumps(value)}"
        text, found = re.subn(rf"(?m)^{key} = .*$", line, text)
        text += "" if found else f"{line}\n"  # the last table is [runtime]
    config = directory / "configuration.toml"
    config.write_text(text)
    return manager.using(config=config)


def wrapped(manager: Manager, directory: Path, command: str) -> Manager:
    """The manager with a launcher that is run by a command."""
    launcher = directory / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec {command} {manager.launcher} "$@"\n')
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    return manager.using(launcher=launcher)


@pytest.fixture
def bundle(tmp_path: Path, manager: Manager) -> Path:
    """A bundle in which nothing is wrong."""
    return bundles.write(tmp_path / "bundle", bundles.spec("x", manager.rootfs, bundles.process(["true"])))


async def test_an_unknown_command_is_named(manager: Manager) -> None:
    error = await refused(manager, "wrong", "no-such-command")
    assert re.fullmatch(
        r'create failed after \d+\.\d s of 60 s: agent: .*"no-such-command" not found in \$PATH.*', error.message
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"process":\n {,}}', r"/config\.json:2:3: not JSON: Expecting property name"),
        (b"\xff\xfe", r"/config\.json: not JSON that can be read: 'utf-8' codec"),
        (b'{"ociVersion": "1.0.2", "root": 3}', r"/config\.json: root: expected an object, got 3"),
        (b"{}", r"/config\.json: ociVersion is missing"),
    ],
)
async def test_a_garbled_config_json_is_told_with_its_place(manager: Manager, content: bytes, said: str) -> None:
    error = await refused(manager, "garbled", spoil=lambda bundle: (bundle / "config.json").write_bytes(content))
    assert error.code == Code.INVALID_ARGUMENT
    assert re.search(said, error.message)


async def test_a_missing_config_json_is_named(manager: Manager) -> None:
    error = await refused(manager, "missing", spoil=lambda bundle: (bundle / "config.json").unlink())
    assert error.code == Code.INVALID_ARGUMENT
    assert "/missing/config.json is missing" in error.message


async def test_a_garbled_or_missing_config_json_is_named_at_start(manager: Manager, bundle: Path) -> None:
    file = bundle / "config.json"
    file.write_text('{"process":\n {,}}')
    assert f"{file}:2:3: not JSON" in await refused_at_start(manager, "x", bundle)
    file.unlink()
    assert f"{file} is missing" in await refused_at_start(manager, "x", bundle)


@pytest.mark.parametrize("id", ["a/b", "../up", "", "a" * 77])
async def test_an_id_that_could_be_no_name_of_a_file_is_refused(manager: Manager, bundle: Path, id: str) -> None:
    assert id in await refused_at_start(manager, id, bundle)
    with pytest.raises(AssertionError, match=r"containerd-shim-kata-v2 delete: (no )?id "):
        manager.delete(id, bundle)


async def test_a_socket_path_that_is_too_long_is_refused(manager: Manager, bundle: Path) -> None:
    path = f"/tmp/{'s' * 102}"
    line = await refused_at_start(manager, "x", bundle, "-socket", path)
    assert f"socket path of 107 bytes, at most 106 fit: {path}" in line


async def test_whoever_is_not_root_is_told(manager: Manager, bundle: Path, tmp_path: Path) -> None:
    assert ": not root: " in await refused_at_start(wrapped(manager, tmp_path, NOT_ROOT), "x", bundle)


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            "default_memory = 512",
            "default_memroy = 512",
            "unknown key default_memroy in [hypervisor.{driver}]; the nearest valid key is default_memory",
        ),
        (
            "default_memory = 512",
            'default_memory = "512"',
            'default_memory in [hypervisor.{driver}] must be a whole number of at least 96, not "512"',
        ),
        ("[agent.kata]", "[agent.kato]", "unknown table [agent.kato]; the nearest valid table is [agent.kata]"),
    ],
    ids=["unknown key", "wrong type", "unknown table"],
)
async def test_a_configuration_that_cannot_be_honoured_is_told_with_its_place(
    manager: Manager, driver: str, tmp_path: Path, line: str, instead: str, said: str
) -> None:
    lines = manager.config.read_text().splitlines()
    number = lines.index(line)
    lines[number] = instead
    config = tmp_path / "configuration.toml"
    config.write_text("\n".join(lines))
    error = await refused(manager.using(config=config), "misconfigured")
    assert error.code == Code.INVALID_ARGUMENT
    assert error.message.startswith(f"{config}:{number + 1}: {said.format(driver=driver)}")


async def test_a_configuration_that_is_no_toml_or_not_there_is_named(manager: Manager, tmp_path: Path) -> None:
    config = tmp_path / "configuration.toml"
    error = await refused(manager.using(config=config), "unconfigured")
    assert error.message == f"{config}: cannot be read: No such file or directory"
    config.write_text("[runtime]\n[agent.kata\n")
    error = await refused(manager.using(config=config), "unconfigured")
    assert re.fullmatch(rf"{config}: not TOML: .* \(at line 2, column 12\)", error.message)


@ON_QEMU
@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("kernel", "build the guest with `make guest`"),
        ("initramfs", "build the guest with `make guest`"),
        ("image", "build the guest with `make guest`"),
        ("path", "install qemu-system"),
        ("virtio_fs_daemon", "install one: Debian 12's is /usr/lib/qemu/virtiofsd, in qemu-system-common"),
    ],
)
async def test_a_missing_part_is_named_with_its_key_and_the_fix(
    manager: Manager, tmp_path: Path, key: str, fix: str
) -> None:
    lacking = configured(manager, tmp_path, **{key: "/no/such/file"})
    error = await refused(lacking, "lacking")
    assert error.message.endswith(f": /no/such/file does not exist (correct `{key}` in {lacking.config}, or {fix})")


@ON_QEMU
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("path", "qemu failed after .*: qemu exited with status 1"),
        ("kernel", "qemu failed after .*: qemu exited with status 1; last lines: qemu.*kernel"),
        ("virtio_fs_daemon", "virtiofsd failed after .*: /bin/false does not say that it is a virtiofsd"),
    ],
)
async def test_a_part_that_is_something_else_is_told(manager: Manager, tmp_path: Path, key: str, said: str) -> None:
    assert re.match(said, (await refused(configured(manager, tmp_path, **{key: "/bin/false"}), "mistaken")).message)


def booting(manager: Manager, directory: Path, script: str) -> Manager:
    """The manager with a guest that runs a shell script as its init, and soon loses patience."""
    tree = Tree()
    tree.add("bin/busybox", File(Path("/bin/busybox").read_bytes(), executable=True))
    tree.add("init", File(f"#!/bin/busybox sh\n{script}\n".encode(), executable=True))
    initramfs = directory / "initramfs.img"
    initramfs.write_bytes(tree.cpio())
    return configured(manager, directory, initramfs=str(initramfs), dial_timeout=5)


@ON_QEMU
async def test_a_guest_that_never_answers_is_told_with_its_last_lines(manager: Manager, tmp_path: Path) -> None:
    silent = booting(manager, tmp_path, "echo nobody is here\nexec /bin/busybox sleep 1000")
    error = await refused(silent, "silent")
    assert error.code == Code.DEADLINE_EXCEEDED
    assert re.fullmatch(
        r"agent failed after 5\.\d s of 5 s: no answer from serial://.*; last lines: .*nobody is here.*", error.message
    )


@ON_QEMU
async def test_a_guest_that_panics_is_told_at_once_with_its_last_lines(manager: Manager, tmp_path: Path) -> None:
    error = await refused(booting(manager, tmp_path, "exit 3"), "panic")
    assert error.code == Code.UNAVAILABLE
    assert re.match(
        r"agent failed after [1-4]\.\d s of 5 s: guest rebooted after 'Kernel panic - not syncing: "
        r"Attempted to kill init! exitcode=0x00000300'; last lines: .* \| ",
        error.message,
    )


async def test_a_machine_that_stands_still_is_given_up_in_time(manager: Manager, driver: str, tmp_path: Path) -> None:
    hurried = configured(manager, tmp_path, create_container_timeout=1)
    async with hurried.container("still", "true", create=False) as container:
        creating = asyncio.create_task(container.create())
        content = await on_record(container.id, in_stage("create"))
        with stopped(processes(content)[MACHINE[driver]]), pytest.raises(StatusError) as caught:
            await creating
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    assert re.match(r"create failed after 1\.\d s of 1 s: .*no answer within 1 s; last lines: ", caught.value.message)


@pytest.mark.parametrize(
    ("place", "options", "wanted"),
    [
        ("/run/vc/sbs", "nr_inodes=1", "full'"),
        ("/run/vc/sbs", "nr_inodes=2", "full/record.json'"),
        ("/run/vc/sbs", "size=4k", "full/record.json'"),  # room for one, not for another beside it
        ("/run/vc/vm", "nr_inodes=1", "full'"),
        ("/run/vc/vm", "nr_inodes=2", "full/"),
        ("/run/kata-containers/shared", "nr_inodes=3", "sandboxes/full/mounts'"),
        (
            "/run/kata-containers/shared",
            "nr_inodes=7",
            "sandboxes/full/mounts/full/rootfs'",
        ),  # the machine runs by then
    ],
)
async def test_no_space_is_told_with_the_path_that_wanted_it(
    manager: Manager, tmp_path: Path, place: str, options: str, wanted: str
) -> None:
    cramped = wrapped(manager, tmp_path, SMALL.format(place=place, options=options))
    async with cramped.container("full", "true", create=False) as container:
        with pytest.raises(StatusError) as caught:
            await container.create()
        inside = Path(f"/proc/{container.shim_pid}/root{place}")
        assert [path for path in inside.rglob("*") if path.name != "sandboxes"] == []
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert f"No space left on device: '{place}/{wanted}" in caught.value.message


async def test_no_space_for_the_socket_is_told_at_start(manager: Manager, bundle: Path, tmp_path: Path) -> None:
    cramped = wrapped(manager, tmp_path, SMALL.format(place="/run/containerd/s", options="nr_inodes=1"))
    assert "No space left on device: '/run/containerd/s/" in await refused_at_start(cramped, "x", bundle)


async def test_no_space_in_the_bundle_is_told_at_start(manager: Manager, bundle: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mount.mount("none", str(full), "tmpfs", data="size=4k")
    try:
        (full / "config.json").write_bytes((bundle / "config.json").read_bytes())
        line = await refused_at_start(manager, "x", full)
    finally:
        mount.unmount(str(full))
    assert f"No space left on device: '{full}/shim.pid'" in line


async def test_a_frame_of_5_mib_is_refused_and_connection_and_container_live_on(running: Container) -> None:
    reader, writer = await asyncio.open_unix_connection(running.address.removeprefix("unix://"))

    async def answer(stream: int, body: bytes) -> Response:
        writer.write(FRAME_HEADER.pack(len(body), stream, REQUEST, 0) + body)
        length, answered, _, _ = FRAME_HEADER.unpack(await reader.readexactly(FRAME_HEADER.size))
        assert answered == stream
        return Response.FromString(await reader.readexactly(length))

    try:
        async with asyncio.timeout(10):
            refusal = await answer(1, bytes(5 << 20))
            assert refusal.status.code == Code.RESOURCE_EXHAUSTED
            assert str(5 << 20) in refusal.status.message
            request = Request(
                service="containerd.task.v2.Task", method="State",
                payload=StateRequest(id=running.id).SerializeToString(),
            )  # fmt: skip
            state = StateResponse.FromString((await answer(3, request.SerializeToString())).payload)
            assert state.status == Status.RUNNING
    finally:
        writer.close()
        await writer.wait_closed()
    assert await running.run("true") == (0, b"")
