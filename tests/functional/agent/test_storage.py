"""Storages, by what containers see of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import GUEST_SHARE, TIMEOUT, Pod
from tests.tasks import until

pytestmark = pytest.mark.root

PLACE = "/run/kata-containers/sandbox"
VOLUME = f"{PLACE}/volume"


async def run(pod: Pod, name: str, *storages: agent.Storage, volume: str = VOLUME, **fields: Sequence[object]) -> None:
    """Run a container that idles and has the volume at /volume."""
    request = pod.request(name, "sleep", "1000")
    request.storages.extend(storages)
    request.OCI.Mounts.append(oci.Mount(destination="/volume", type="bind", source=volume, options=["rbind"]))
    for field, values in fields.items():
        getattr(request, field).extend(values)
    pod.unpack(name)
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)
    await pod.start(name)


async def said(pod: Pod, name: str, script: str) -> str:
    """What a script says in a container."""
    outcome = await pod.shell(name, script)
    assert (outcome.code, outcome.stderr) == (0, b"")
    return outcome.stdout.decode()


def mounted(pod: Pod) -> list[str]:
    """Where the agent has something of ours mounted."""
    lines = pod.path("/proc/1/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith("/run/kata-containers/")]


async def test_memory_has_the_size_and_mode_that_were_asked_for_and_lives_as_long_as_the_pod(pod: Pod) -> None:
    shm = agent.Storage(
        driver="ephemeral", source="shm", fstype="tmpfs", mount_point=VOLUME,
        options=["mode=1777", "size=65536", "noexec", "fsgid=1234"],
    )  # fmt: skip
    await run(pod, "one", shm)
    assert f"{VOLUME} tmpfs rw,noexec,relatime,size=64k" in pod.path("/proc/1/mounts").read_text()
    assert await said(pod, "one", "stat -c '%a %g' /volume") == "3777 1234\n"
    await said(pod, "one", "echo kept > /volume/file")
    await pod.remove("one")

    await run(pod, "two", shm)

    assert await said(pod, "two", "cat /volume/file") == "kept\n"


async def test_a_directory_of_the_guest_lives_as_long_as_the_pod(pod: Pod) -> None:
    local = agent.Storage(driver="local", mount_point=VOLUME, options=["mode=0770"])
    await run(pod, "one", local)
    assert await said(pod, "one", "stat -c %a /volume; echo kept > /volume/file") == "770\n"
    await pod.remove("one")

    await run(pod, "two", local)

    assert await said(pod, "two", "cat /volume/file") == "kept\n"


async def test_what_is_bound_is_gone_with_its_last_container(pod: Pod) -> None:
    local = agent.Storage(driver="local", mount_point=f"{PLACE}/local")
    bind = agent.Storage(driver="bind", source=f"{PLACE}/local", mount_point=VOLUME, options=["ro"])
    await run(pod, "one", local, bind)
    await run(pod, "two", local, bind)
    assert [
        line for line in pod.path("/proc/1/mounts").read_text().splitlines() if f"{VOLUME} " in line and " ro," in line
    ]
    await pod.remove("one")
    assert VOLUME in mounted(pod)

    await pod.remove("two")

    assert VOLUME not in mounted(pod)
    assert not pod.path(VOLUME).exists()


async def test_layers_are_written_to_by_their_container_alone(pod: Pod) -> None:
    lower = pod.share / "lower"
    lower.mkdir()
    (lower / "file").write_text("below\n")

    def layers(name: str) -> agent.Storage:
        return agent.Storage(
            driver="overlayfs", source="overlay", fstype="overlay", mount_point=f"{PLACE}/{name}",
            options=[f"lowerdir={GUEST_SHARE}/lower", "io.katacontainers.fs-opt.overlay-rw"],
            driver_options=[f"io.katacontainers.volume.overlayfs.create_directory={PLACE}/made/{name}"],
        )  # fmt: skip

    for name in ("one", "two"):
        await run(pod, name, layers(name), volume=f"{PLACE}/{name}")
    await said(pod, "one", "echo above > /volume/file")

    assert await said(pod, "one", "cat /volume/file") == "above\n"
    assert await said(pod, "two", "cat /volume/file") == "below\n"
    assert (lower / "file").read_text() == "below\n"
    assert pod.path(f"{PLACE}/made/two").is_dir()
    for name in ("one", "two"):
        await pod.remove(name)
    assert list(pod.path("/run/kata-containers/overlay").iterdir()) == []
    assert [point for point in mounted(pod) if point.startswith(PLACE)] == []


async def test_layers_that_are_not_there_leave_nothing(pod: Pod) -> None:
    layers = agent.Storage(
        driver="overlayfs", source="overlay", fstype="overlay", mount_point=VOLUME,
        options=["lowerdir=/missing", "io.katacontainers.fs-opt.overlay-rw"],
    )  # fmt: skip

    with pytest.raises(StatusError, match=f"cannot make overlayfs storage overlay at {VOLUME}: No such file"):
        await run(pod, "one", layers)

    assert list(pod.path("/run/kata-containers/overlay").iterdir()) == []


async def test_a_watched_volume_follows_the_host_and_programs_hear_of_it(pod: Pod) -> None:
    source, watchable = pod.share / "config", pod.share / "watchable"
    for directory in (source, source / "..1", watchable):
        directory.mkdir()
    (source / "..1" / "key").write_text("old\n")
    (source / "..data").symlink_to("..1")
    (source / "key").symlink_to("..data/key")
    volume = f"{GUEST_SHARE}/watchable/config"
    await run(
        pod, "one", agent.Storage(driver="watchable-bind", source=f"{GUEST_SHARE}/config", mount_point=volume),
        volume=volume,
    )  # fmt: skip
    assert await said(pod, "one", "cat /volume/key") == "old\n"
    with watch(pod.path(volume)) as heard:
        (source / "..2").mkdir()
        (source / "..2" / "key").write_text("new\n")
        (source / "swap").symlink_to("..2")
        (source / "swap").replace(source / "..data")
        await until(lambda: b"..data" in heard())
    assert await said(pod, "one", "cat /volume/key") == "new\n"
    await pod.remove("one")
    assert list(pod.path(f"{GUEST_SHARE}/watchable").iterdir()) == []


@contextmanager
def watch(directory: Path) -> Iterator[Callable[[], bytes]]:
    """What is moved into a directory, as programs hear of it. Source: inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(descriptor, bytes(directory), 0x80) > 0  # IN_MOVED_TO
    events = bytearray()

    def heard() -> bytes:
        with contextlib.suppress(BlockingIOError):
            events.extend(os.read(descriptor, 4096))
        return bytes(events)

    try:
        yield heard
    finally:
        os.close(descriptor)


async def test_a_device_that_does_not_appear_is_told_with_what_was_waited_for(pod: Pod) -> None:
    request = pod.request("one", "true")
    pod.unpack("one")
    request.devices.add(id="1e/1e", type="blk", container_path="/dev/data")

    with pytest.raises(StatusError, match=r"Timeout after 3 s waiting for uevent of .*1e.0/1e.0") as failure:
        await pod.calls.CreateContainer(request, timeout=TIMEOUT)

    assert failure.value.code == Code.INTERNAL
    assert not pod.path("/run/kata-containers/one").exists()


async def test_devices_by_cdi_are_given_as_the_guest_s_specs_say(pod: Pod) -> None:
    spec = """{"cdiVersion": "0.6.0", "kind": "example.com/null", "devices": [{"name": "0", "containerEdits": {
        "env": ["GIVEN=0"], "deviceNodes": [{"path": "/dev/given", "hostPath": "/dev/null"}]}}]}"""
    (pod.path("/run") / "cdi").mkdir()
    (pod.path("/run") / "cdi" / "null.json").write_text(spec)
    request = pod.request("one", "sh", "-c", "echo $GIVEN; stat -c %t:%T /dev/given")
    request.OCI.Annotations["cdi.k8s.io/test"] = "example.com/null=0"
    pod.unpack("one")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)
    await pod.start("one")

    assert (await pod.outcome("one")).stdout == b"0\n1:3\n"
