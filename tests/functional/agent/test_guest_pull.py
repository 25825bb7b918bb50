"""Images that the agent pulls from a real registry, by what containers see of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_protos import agent_pb2 as agent
from kata_py.ttrpc.errors import StatusError
from tests import registry as registries
from tests.dripping import DrippingRegistry, dripping
from tests.drivers.pod import TIMEOUT, Pod
from tests.drivers.pod import pod as make_pod
from tests.registry import DIRECTORY, Entry, Registry, digest_of, layer
from tests.tasks import until

pytestmark = pytest.mark.root

IMAGES = "/run/kata-containers/image"
SANDBOX = {"io.kubernetes.cri.container-type": "sandbox"}


@pytest.fixture(scope="module")
def busybox(rootfs: Path) -> tuple[bytes, str]:
    """A layer with a shell and its programs."""
    return registries.layer_of(rootfs)


@pytest.fixture
def pause_bundle(short_tmp: Path) -> Path:
    """What the guest holds pods together with."""
    return registries.write_pause_bundle(short_tmp / "pause_bundle")


@pytest_asyncio.fixture
async def pod(
    top: Path, rootfs: Path, pause_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pod]:
    """A pod whose agent knows its pause bundle."""
    monkeypatch.setenv("KATA_AGENT_PAUSE_BUNDLE", str(pause_bundle))
    for name, value in registries.skopeo_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    async with make_pod(top, rootfs) as pod:
        yield pod


@pytest_asyncio.fixture
async def registry(pod: Pod, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry that the agent may ask without TLS."""
    async with registries.serving(tmp_path / "registry", netns=Path(f"/proc/{pod.agent_pid}/ns/net")) as registry:
        tell(pod, "registries.conf", registry.configuration)
        yield registry


def tell(pod: Pod, name: str, text: str) -> None:
    """Write one of the files by which a guest learns of registries."""
    path = pod.path(f"/run/peerpod/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def request(
    pod: Pod, name: str, reference: str, *argv: str, metadata: dict[str, str] | None = None
) -> agent.CreateContainerRequest:
    """What a host asks for: a container whose image is pulled."""
    wanted = pod.request(name, *(argv or ("sleep", "1000")))
    place = f"/run/kata-containers/{name}/rootfs"
    wanted.storages.add(
        driver="image_guest_pull", source=reference, fstype="overlay", mount_point=place,
        driver_options=["image_guest_pull=" + json.dumps({"metadata": metadata or {}})],
    )  # fmt: skip
    wanted.OCI.Root.Path = place
    return wanted


async def run(pod: Pod, name: str, reference: str, *argv: str, metadata: dict[str, str] | None = None) -> None:
    await pod.calls.CreateContainer(request(pod, name, reference, *argv, metadata=metadata), timeout=TIMEOUT)
    await pod.start(name)


async def refused(pod: Pod, reference: str, *, timeout: float = TIMEOUT, goes_on: bool = False) -> str:
    """Why an image is not pulled; nothing of the container is left, nor of its pull unless that goes on."""
    with pytest.raises(StatusError) as caught:
        await pod.calls.CreateContainer(request(pod, "refused", reference), timeout=timeout)
    assert [each for each in left(pod) if "refused" in each or ("pulls" in each and not goes_on)] == []
    return caught.value.message


def left(pod: Pod) -> list[str]:
    """What is left of containers, or of pulls."""
    mounts = [line.split()[4] for line in pod.path("/proc/1/mountinfo").read_text().splitlines()]
    found = [point for point in mounts if point.endswith("/rootfs")]
    for place in ("containers", "pulls"):
        directory = pod.path(f"{IMAGES}/{place}")
        found += [str(each) for each in directory.iterdir()] if directory.exists() else []
    found += [str(each) for each in pod.path("/run/kata-containers").glob("refused*")]
    return found


def mount_memory(pod: Pod, place: str, size: str) -> None:
    """Mount a tmpfs in the guest."""
    enter = ["nsenter", f"--mount=/proc/{pod.agent_pid}/ns/mnt"]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)


async def said(pod: Pod, name: str, script: str) -> str:
    outcome = await pod.shell(name, script)
    assert (outcome.code, outcome.stderr) == (0, b"")
    return outcome.stdout.decode()


async def test_a_container_runs_from_an_image_that_was_pulled_and_its_writes_go_with_it(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    reference = await registry.push("lib/busybox:1", busybox)
    await run(pod, "one", reference)
    await said(pod, "one", "echo written > /etc/file")
    assert pod.path("/run/kata-containers/one/rootfs/etc/file").read_text() == "written\n"

    await pod.remove("one")

    assert left(pod) == []
    assert not pod.path("/run/kata-containers/one").exists()
    await run(pod, "one", reference)
    assert await said(pod, "one", "ls /etc") == "group\npasswd\n"


async def test_layers_hide_replace_and_pass_through_what_is_below(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    base = layer(
        {
            "kept": Entry(b"kept\n"), "gone": Entry(b"gone\n"), "old/": DIRECTORY, "old/file": Entry(b"old\n"),
            "sticky/": Entry(None, 0o1777, 5), "tree/": DIRECTORY, "tree/a": Entry(b"a\n"), "tree/b": Entry(b"b\n"),
        },
        packed="none",
    )  # fmt: skip
    above = layer(
        {
            ".wh.gone": Entry(), "old/.wh..wh..opq": Entry(), "old/new": Entry(b"new\n"), "sticky/file": Entry(b"s\n"),
            "tree/.wh.a": Entry(), "owned": Entry(b"o\n", 0o4755, 7), "link": Entry(link="/kept"),
        },
        packed="zstd",
    )  # fmt: skip
    await run(pod, "one", await registry.push("lib/layers:1", busybox, base, above))

    assert await said(
        pod, "one", "cat /link; ls -d /gone 2>&1; ls /old /tree; stat -c '%a %u' /sticky /owned; true"
    ) == ("kept\nls: /gone: No such file or directory\n/old:\nnew\n\n/tree:\nb\n1777 5\n4755 7\n")
    assert await said(pod, "one", "ls -A /old /tree | grep -c wh; true") == "0\n"


async def test_an_image_has_a_hundred_layers(pod: Pod, registry: Registry, busybox: tuple[bytes, str]) -> None:
    layers = [layer({f"n/{number}": Entry(b"x")}) for number in range(100)]

    await run(pod, "one", await registry.push("lib/many:1", busybox, *layers))

    assert await said(pod, "one", "ls /n | wc -l") == "100\n"


async def test_a_layer_that_two_images_share_is_fetched_once(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    one = await registry.push("lib/one:1", busybox, layer({"which": Entry(b"one\n")}))
    two = await registry.push("lib/two:1", busybox, layer({"which": Entry(b"two\n")}))
    registry.forget()

    await run(pod, "one", one)
    await run(pod, "two", two)

    assert [await said(pod, name, "cat /which") for name in ("one", "two")] == ["one\n", "two\n"]
    assert registry.fetches(digest_of(busybox)) == 1
    stored = sum(blob.stat().st_blocks * 512 for blob in pod.path(f"{IMAGES}/blobs/sha256").iterdir())
    assert stored < len(busybox[0])  # what is unpacked is not kept twice


async def test_a_layer_upon_another_one_is_another_one(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    passing = layer({"place/file": Entry(b"x")})
    for name, mode in (("one", 0o700), ("two", 0o711)):
        reference = await registry.push(f"lib/{name}:1", busybox, layer({"place/": Entry(None, mode)}), passing)
        await run(pod, name, reference)

    assert [await said(pod, name, "stat -c %a /place; cat /place/file") for name in ("one", "two")] == [
        "700\nx", "711\nx",
    ]  # fmt: skip


async def test_two_containers_that_want_an_image_at_once_share_its_pull(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    reference = await registry.push("lib/busybox:1", busybox)
    registry.forget()

    await asyncio.gather(*(run(pod, name, reference) for name in ("one", "two", "three")))

    assert registry.fetches(digest_of(busybox)) == 1
    assert registry.fetches("manifests/") == 2  # to look at it first, and to copy it


async def test_a_tag_that_has_moved_is_followed_by_the_next_container(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    for content in (b"old\n", b"new\n"):
        reference = await registry.push("lib/moving:1", busybox, layer({"which": Entry(content)}))
        await run(pod, content.decode().strip(), reference)

    assert [await said(pod, name, "cat /which") for name in ("old", "new")] == ["old\n", "new\n"]


async def test_the_pause_is_the_guests_own_with_its_command_and_the_hosts_rights(pod: Pod) -> None:
    await run(pod, "pause", "pause", "/host/pause", metadata=SANDBOX)

    config = json.loads(pod.path("/run/kata-containers/pause/config.json").read_text())
    assert config["process"]["args"] == ["/bin/sleep", "1000"]
    assert (config["process"]["env"], config["process"]["cwd"]) == (["PAUSE=1"], "/bin")
    assert not config["process"].get("terminal")
    [state] = pod.processes().values()
    assert state in ("R", "S")  # alive, and it may not have come to sleep yet
    await pod.remove("pause")
    assert left(pod) == []


async def test_a_registry_that_wants_to_know_who_asks_is_told(
    pod: Pod, tmp_path: Path, busybox: tuple[bytes, str]
) -> None:
    netns = Path(f"/proc/{pod.agent_pid}/ns/net")
    async with registries.serving(tmp_path / "registry", netns=netns, protected=True) as registry:
        reference = await registry.push("lib/secret:1", busybox)
        tell(pod, "registries.conf", registry.configuration)
        tell(pod, "auth.json", "")  # as upstream's guests have it
        why = await refused(pod, reference)
        assert f"image {reference}: the registry does not let us have it: give the guest credentials" in why
        assert "/run/peerpod/auth.json" in why
        tell(pod, "auth.json", "{")
        assert "the credentials cannot be read: write /run/peerpod/auth.json" in await refused(pod, reference)

        tell(pod, "auth.json", registry.credentials)

        await run(pod, "one", reference)


async def test_a_registry_with_a_certificate_of_its_own_is_trusted_when_the_guest_has_it(
    pod: Pod, tmp_path: Path, busybox: tuple[bytes, str]
) -> None:
    netns = Path(f"/proc/{pod.agent_pid}/ns/net")
    async with registries.serving(tmp_path / "registry", netns=netns, encrypted=True) as registry:
        reference = await registry.push("lib/busybox:1", busybox)
        assert "certificate is not to be trusted: put its authority's certificate into /run/peerpod/certs" in (
            await refused(pod, reference)
        )

        tell(pod, "certs/registry.crt", (registry.directory / "certificate").read_text())

        await run(pod, "one", reference)


async def test_a_container_that_cannot_be_created_leaves_nothing_of_its_root(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    reference = await registry.push("lib/busybox:1", busybox)

    with pytest.raises(StatusError, match="no/such/program"):
        await pod.calls.CreateContainer(request(pod, "refused", reference, "/no/such/program"), timeout=TIMEOUT)

    assert left(pod) == []


async def test_what_cannot_be_pulled_is_told_with_its_cause_at_once(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    known = await registry.push("lib/busybox:1", busybox)
    foreign = await registry.push("lib/foreign:1", busybox, architecture="s390x")
    listed = await registry.push("lib/listed:1", busybox, architecture="s390x", listed=True)
    registry.forget()

    assert "the registry has no such image: check its name" in await refused(pod, f"{known}-no")
    assert "made for linux/s390x, and this machine is linux/" in await refused(pod, foreign)
    assert "not made for this machine's architecture: use an image for" in await refused(pod, listed)
    assert "is no image's name" in await refused(pod, "a b")
    assert "the registry cannot be reached from the guest" in await refused(pod, "127.0.0.1:1/lib/busybox:1")
    tell(pod, "registries.conf", "")
    assert "the registry speaks no TLS: name it with insecure = true in /run/peerpod/registries.conf" in await refused(
        pod, known
    )
    assert registry.fetches(digest_of(busybox)) == 0


async def test_a_layer_that_no_guest_can_unpack_is_named_and_nothing_is_left(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    content, media_type = layer({"a": Entry(b"a")})
    encrypted = await registry.push("lib/encrypted:1", busybox, (content, f"{media_type}+encrypted"))
    damaged = await registry.push("lib/damaged:1", busybox, (b"no archive at all", media_type.removesuffix("+gzip")))

    assert "+encrypted, which this guest cannot unpack" in await refused(pod, encrypted)
    assert f"image {damaged}: a layer cannot be unpacked" in await refused(pod, damaged)
    assert len(list(pod.path(f"{IMAGES}/layers").iterdir())) == 1  # busybox


async def test_an_image_makes_room_for_the_next_one_and_else_there_is_none(
    pod: Pod, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    place = pod.path(IMAGES)
    place.mkdir(parents=True)
    mount_memory(pod, IMAGES, "8m")
    noise = [layer({"noise": Entry(bytes(3 << 20))}, packed=packed) for packed in ("gzip", "none")]
    first = await registry.push("lib/first:1", busybox, noise[0])
    second = await registry.push("lib/second:1", layer({"other": Entry(bytes(2 << 20))}), busybox)
    large = await registry.push("lib/large:1", layer({"noise": Entry(bytes(9 << 20))}))
    await run(pod, "one", first)

    why = await refused(pod, large)

    assert f"image {large}: there is no room for it in the guest: {IMAGES} has " in why
    assert "of 8 MiB; give the pod more memory" in why
    await pod.remove("one")
    await run(pod, "two", second)


async def test_a_host_that_waits_no_longer_is_told_how_far_it_was(pod: Pod, registry: Registry) -> None:
    reference = await registry.push("lib/busybox:1", layer({"a": Entry(b"a")}))
    os.kill(registry.pid, signal.SIGSTOP)
    try:
        why = await refused(pod, reference, timeout=2.0, goes_on=True)
    finally:
        os.kill(registry.pid, signal.SIGCONT)

    assert f"image {reference}: it was not there after " in why
    assert "raise create_container_timeout" in why


@pytest_asyncio.fixture
async def slow(
    pod: Pod, registry: Registry, tmp_path: Path, busybox: tuple[bytes, str]
) -> AsyncIterator[DrippingRegistry]:
    """A registry whose one layer has a hundred pieces, beside another one."""
    netns, piece = Path(f"/proc/{pod.agent_pid}/ns/net"), -(-len(busybox[0]) // 100)
    async with dripping(tmp_path / "slow", [busybox], netns=netns, piece=piece) as slow:
        tell(pod, "registries.conf", registry.configuration + slow.configuration)
        yield slow


async def test_a_layer_that_takes_longer_than_hosts_wait_is_there_for_who_asks_again(
    pod: Pod, slow: DrippingRegistry
) -> None:
    for number in (1, 2):
        slow.let(30)
        why = await refused(pod, slow.reference, timeout=2.0, goes_on=True)
        assert "MiB have come meanwhile, and its pull goes on for who asks next: raise create_container_timeout" in why
        assert (slow.asked, slow.passed) == (1, 30 * number)
    slow.let(40)

    await run(pod, "one", slow.reference)

    assert (slow.asked, slow.passed) == (1, 100)
    assert await said(pod, "one", "echo here") == "here\n"
    assert not any("pulls" in each for each in left(pod))


async def test_a_pull_that_nobody_waits_for_holds_up_no_other_one_and_ends_with_the_agent(
    pod: Pod, slow: DrippingRegistry, registry: Registry, busybox: tuple[bytes, str]
) -> None:
    reference = await registry.push("lib/busybox:1", busybox)
    slow.let(30)
    await refused(pod, slow.reference, timeout=2.0, goes_on=True)

    await run(pod, "one", reference)

    assert (slow.asked, slow.passed) == (1, 30)
    await pod.calls.DestroySandbox(agent.DestroySandboxRequest(), timeout=TIMEOUT)
    async with asyncio.timeout(TIMEOUT):
        await pod.vm.wait()


async def test_who_comes_with_other_credentials_does_not_join_a_pull_that_is_under_way(
    pod: Pod, slow: DrippingRegistry
) -> None:
    slow.let(30)
    await refused(pod, slow.reference, timeout=2.0, goes_on=True)
    assert slow.asked == 1
    tell(pod, "auth.json", json.dumps({"auths": {}}))

    running = asyncio.create_task(run(pod, "one", slow.reference))

    await until(lambda: slow.asked == 2)
    slow.let(200)
    await running


async def test_a_storage_without_what_it_needs_is_refused(pod: Pod) -> None:
    for options, complaint in (([], "is missing"), (["image_guest_pull={"], "is garbled")):
        wanted = request(pod, "refused", "x")
        del wanted.storages[0].driver_options[:]
        wanted.storages[0].driver_options.extend(options)
        with pytest.raises(StatusError, match=complaint):
            await pod.calls.CreateContainer(wanted, timeout=TIMEOUT)
