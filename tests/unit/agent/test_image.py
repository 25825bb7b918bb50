from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.image import pause, program
from kata_agent.image.errors import DiskFull, PullError, Stalled
from kata_agent.image.reference import pullable
from kata_agent.image.registry import Registries, Settings
from kata_agent.image.store import ImageStore
from tests.tasks import until

SLEEP = ("sleep", "1000")


def no_progress() -> int:
    return 0


# ---- programs


async def test_a_program_ends_with_what_it_wrote(reaper: Reaper) -> None:
    outcome = await program.run(reaper, ("sh", "-c", "cat; echo out; echo err >&2; exit 3"), progress=no_progress)
    assert outcome == (3, "out\n", "err\n")


async def test_a_program_without_progress_is_killed(reaper: Reaper) -> None:
    with pytest.raises(Stalled, match=r"sleep made no progress for 0.1 s"):
        await program.run(reaper, SLEEP, progress=no_progress, stall=0.1)


async def test_a_program_that_gets_on_may_take_its_time(reaper: Reaper) -> None:
    ticks = iter(range(1000))
    outcome = await program.run(reaper, ("sleep", "0.5"), progress=lambda: next(ticks), stall=0.1)
    assert outcome.code == 0


async def test_a_cancelled_program_has_ended(reaper: Reaper, tmp_path: Path) -> None:
    running = asyncio.create_task(
        program.run(reaper, ("sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"), progress=no_progress)
    )
    pid = tmp_path / "pid"
    await until(lambda: pid.exists() and pid.read_text().strip())
    running.cancel()
    await asyncio.wait({running})
    assert not Path("/proc", pid.read_text().strip()).exists()


async def test_a_guest_without_the_program_says_so(reaper: Reaper) -> None:
    with pytest.raises(AgentError, match="this guest has no no-such-program, which pulling images needs"):
        await program.run(reaper, ("no-such-program",), progress=no_progress)


# ---- names


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        ("busybox", "busybox"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        (f"quay.io/a:1@sha256:{'a' * 64}", f"quay.io/a@sha256:{'a' * 64}"),
        (f"localhost:5000/a@sha256:{'a' * 64}", f"localhost:5000/a@sha256:{'a' * 64}"),
    ],
)
def test_of_a_tag_and_a_digest_the_digest_is_asked_for(reference: str, asked: str) -> None:
    assert pullable(reference) == asked


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("", "has no source"),
        (f"sha256:{'a' * 64}", "is an image's id on the host"),
        ("a" * 64, "is an image's id on the host"),
        ("--flag", "is no image's name"),
        ("a b", "is no image's name"),
        ("a\n", "is no image's name"),
    ],
)
def test_what_is_no_name_is_refused(reference: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        pullable(reference)


# ---- what skopeo says, recorded from 1.9.3 unless the words are another registry's

_WORDS = {
    'reading manifest 2 in r/a: manifest unknown: manifest unknown': (
        PullError, "the registry has no such image: check its name, tag and digest",
    ),
    'Error parsing image name "docker://r/a:1": reading manifest 1 in r/a: unauthorized: authentication required': (
        PullError, "the registry does not let us have it: give the guest credentials for it in /auth.json",
    ),
    "reading manifest latest in docker.io/library/a: errors:\ndenied: requested access to the resource is denied": (
        PullError, "the registry does not let us have it",
    ),
    'Get "https://no.such/v2/": dial tcp: lookup no.such on 10.0.0.1:53: no such host': (
        PullError, "there is no such host: check the registry's name, and the guest's /etc/resolv.conf",
    ),
    'Get "https://r/v2/": http: server gave HTTP response to HTTPS client': (
        PullError, "the registry speaks no TLS: name it with insecure = true in /registries.conf",
    ),
    'Get "https://r/v2/": x509: certificate signed by unknown authority': (
        PullError, "the registry's certificate is not to be trusted: put its authority's certificate into /certs",
    ),
    'no image found in manifest list for architecture amd64, variant "", OS linux': (
        PullError, "it is not made for this machine's architecture: use an image for amd64",
    ),
    "toomanyrequests: You have reached your pull rate limit": (PullError, "the registry has had too many requests"),
    "dial tcp 127.0.0.1:5: connect: connection refused": (PullError, "the registry cannot be reached from the guest"),
    "writing blob: storing blob to file: write /x: no space left on device": (DiskFull, "there is no room for it"),
    "something new": (PullError, "image r/a:1: it cannot be pulled: something new"),
}  # fmt: skip


@pytest.mark.parametrize("words", _WORDS)
async def test_what_skopeo_says_becomes_a_cause_and_a_next_step(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    (tmp_path / "words").write_text(f'time="x" level=fatal msg={json.dumps(words)}\n')
    stand_in(tmp_path, f"cat {tmp_path}/words >&2; exit 1", monkeypatch)
    kind, said = _WORDS[words]
    with pytest.raises(PullError, match="image r/a:1: ") as caught:
        await registries(reaper, tmp_path).check("r/a:1")
    assert type(caught.value) is kind
    assert said in str(caught.value)


def stand_in(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that stands for skopeo."""
    path = directory / "bin" / "skopeo"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def registries(reaper: Reaper, scratch: Path) -> Registries:
    root = Path("/")
    told = Settings(root / "auth.json", root / "registries.conf", root / "certs", root / "policy.json")
    return Registries(reaper, told, "amd64", scratch)


async def test_skopeo_is_told_what_the_guest_has_been_told(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"""echo "$@" >> {tmp_path}/said; echo '{{"architecture": "amd64"}}'""", monkeypatch)
    told = Settings(*(tmp_path / name for name in ("auth.json", "registries.conf", "certs", "policy.json")))
    asked = Registries(reaper, told, "amd64", tmp_path)
    (tmp_path / "auth.json").write_text("\n")

    await asked.check("r/a:1")
    for path in (told.auth, told.registries, told.policy):
        path.write_text("{}")
    told.certificates.mkdir()
    await asked.check("r/a:1")

    without, with_all = (tmp_path / "said").read_text().splitlines()
    assert without == f"--tmpdir={tmp_path} --insecure-policy inspect --config docker://r/a:1"
    assert with_all == (
        f"--tmpdir={tmp_path} --policy={told.policy} --registries-conf={told.registries} inspect --config"
        f" --authfile={told.auth} --cert-dir={told.certificates} docker://r/a:1"
    )


async def test_a_registry_that_sends_nothing_is_given_up(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "exec sleep 1000", monkeypatch)
    store = ImageStore(reaper, Settings(stall=0.1), tmp_path / "images")
    with pytest.raises(Stalled, match=r"image r/a:1: the registry has sent nothing for 0.1 s"):
        await store.pull("r/a:1")
    assert list((tmp_path / "images" / "pulls").iterdir()) == []


async def given_up(store: ImageStore, reference: str) -> str:
    """What is told at a deadline that has come."""
    with pytest.raises(PullError) as caught:
        await store.pull(reference, asyncio.get_running_loop().time() + 0.2)
    return str(caught.value)


async def lines(path: Path, count: int) -> list[str]:
    """The lines of a file, once there are so many."""
    await until(lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    return path.read_text().splitlines()


async def test_pulls_that_nobody_waits_for_end_with_the_store(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000", monkeypatch)
    store = ImageStore(reaper, Settings(), tmp_path / "images")
    assert "its pull goes on for who asks next" in await given_up(store, "r/a:1")
    [pid] = await lines(tmp_path / "pid", 1)
    assert Path("/proc", pid).exists()

    await store.aclose()

    assert not Path("/proc", pid).exists()
    assert list((tmp_path / "images" / "pulls").iterdir()) == []


async def test_a_pull_that_fails_when_nobody_waits_for_it_is_told_of_in_the_log(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    stand_in(tmp_path, f"read line < {gate}; echo 'manifest unknown' >&2; exit 1", monkeypatch)
    store = ImageStore(reaper, Settings(), tmp_path / "images")
    await given_up(store, "r/a:1")
    await asyncio.to_thread(gate.write_text, "go\n")
    await until(
        lambda: "r/a:1: its pull, which nobody waited for, has failed: image r/a:1: the registry" in caplog.text
    )


async def test_two_pulls_have_begun_at_most_and_one_that_has_not_ends_with_who_waits_for_it(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"echo $* >> {tmp_path}/asked; exec sleep 1000", monkeypatch)
    store = ImageStore(reaper, Settings(), tmp_path / "images")
    for name in ("r/a:1", "r/b:1", "r/a:1"):
        assert "its pull goes on" in await given_up(store, name)

    assert "other images are pulled before it" in await given_up(store, "r/c:1")

    asked = await lines(tmp_path / "asked", 2)
    assert [line.rpartition("//")[2] for line in asked] == ["r/a:1", "r/b:1"]
    await store.aclose()


async def test_credentials_that_have_changed_end_a_pull_that_nobody_waits_for(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"echo $$ >> {tmp_path}/pids; exec sleep 1000", monkeypatch)
    store = ImageStore(reaper, Settings(auth=tmp_path / "auth.json"), tmp_path / "images")
    await given_up(store, "r/a:1")
    [former] = await lines(tmp_path / "pids", 1)
    (tmp_path / "auth.json").write_text("{}")
    await given_up(store, "r/a:1")

    _, latter = await lines(tmp_path / "pids", 2)
    await until(lambda: not Path("/proc", former).exists())
    assert Path("/proc", latter).exists()
    await store.aclose()


# ---- the pause


def test_the_pauses_command_is_the_guests_and_everything_else_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"process": {"args": ["/pause"], "env": ["A=1"], "terminal": true}}')
    spec = {"process": {"args": ["x"], "cwd": "/x", "user": {"uid": 65535, "gid": 65535}}, "hostname": "pod"}

    assert pause.with_process(spec, tmp_path) == {  # type: ignore[arg-type]
        "hostname": "pod",
        "process": {"args": ["/pause"], "cwd": "/", "env": ["A=1"], "user": {"uid": 65535, "gid": 65535}},
    }


@pytest.mark.parametrize("text", ["", "{}", '{"process": {}}', '{"process": {"args": []}}'])
def test_a_pause_bundle_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    if text:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(AgentError, match=r"this guest's pause bundle cannot be used: .*config.json"):
        pause.with_process({"process": {"args": ["x"]}}, tmp_path)  # type: ignore[typeddict-item]


def test_a_guest_without_a_pause_says_so(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="this guest has no pause bundle"):
        pause.rootfs(tmp_path)
