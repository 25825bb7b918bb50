from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.lines import Tail
from kata_qemu.sockets import connected
from kata_qemu.virtiofsd import Kind, Settings, arguments, recognise, serving
from tests.drivers.journal import ListJournal

IN_C = "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022 Fabrice Bellard"
IN_RUST = "virtiofsd 1.13.2"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "virtiofsd"


def write(program: Path, script: str) -> Path:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("says", "kind"), [(IN_C, Kind.C), (IN_RUST, Kind.RUST)])
async def test_the_program_tells_which_one_it_is(program: Path, says: str, kind: Kind) -> None:
    assert await recognise(write(program, f"echo '{says}'")) is kind


async def test_debians_program_is_recognised() -> None:
    assert await recognise(Path("/usr/lib/qemu/virtiofsd")) is Kind.C


async def test_another_program_is_named_with_what_it_said_and_what_to_set(program: Path) -> None:
    with pytest.raises(HypervisorError, match=r"does not say that it is a virtiofsd \(set virtio_fs_daemon") as failure:
        await recognise(write(program, "echo 'GLIBC_2.39 not found' >&2; exit 1"))
    assert failure.value.stage == "virtiofsd"
    assert failure.value.evidence == ("GLIBC_2.39 not found",)


async def test_a_file_that_is_no_program_is_named(program: Path) -> None:
    program.write_bytes(b"\0")
    program.chmod(0o755)
    with pytest.raises(HypervisorError, match=r"virtiofsd: cannot start .*/virtiofsd: Exec format error"):
        await recognise(program)


async def test_a_program_that_hangs_is_given_up(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kata_qemu.virtiofsd.VERSION_TIMEOUT", 0.05)
    with pytest.raises(HypervisorError, match=r"--version does not end within 0.05 s"):
        await recognise(write(program, "exec sleep 60"))


def test_the_program_in_rust_takes_upstreams_arguments() -> None:
    settings = Settings(Path("/virtiofsd"), "never", ("--thread-pool-size=1", "--announce-submounts"))
    assert arguments(Kind.RUST, settings, Path("/share"), 7) == [
        "/virtiofsd", "--fd=7", "--shared-dir=/share", "--cache=never", "--log-level=warn",
        "--xattr", "--thread-pool-size=1", "--announce-submounts",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "told"), [(Kind.RUST, []), (Kind.C, ["no_xattr"])])
def test_extended_attributes_can_be_switched_off(kind: Kind, told: list[str]) -> None:
    words = arguments(kind, Settings(Path("/virtiofsd"), "never", ("--no-xattr",)), Path("/share"), 7)
    assert [word for word in words if "xattr" in word] == told


def test_the_program_in_c_takes_the_same_in_its_own_words() -> None:
    settings = Settings(
        Path("/virtiofsd"), "auto", ("--thread-pool-size=1", "--xattr", "--sandbox=chroot", "-o", "a=b")
    )
    assert arguments(Kind.C, settings, Path("/sha,re"), 7) == [
        "/virtiofsd", "--fd=7", "-o", "source=/sha\\,re", "-o", "cache=auto", "-o", "log_level=warn",
        "-o", "announce_submounts", "--thread-pool-size=1", "-o", "xattr", "-o", "sandbox=chroot", "-o", "a=b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cache", "in_c"), [("never", "none"), ("metadata", "none"), ("auto", "auto"), ("always", "always")]
)
def test_every_cache_mode_has_its_like_in_c(cache: str, in_c: str) -> None:
    assert f"cache={in_c}" in arguments(Kind.C, Settings(Path("/v"), cache), Path("/share"), 7)


@pytest.mark.parametrize(("kind", "word"), [(Kind.C, "log_level=info"), (Kind.RUST, "--log-level=info")])
def test_a_daemon_that_is_debugged_talks(kind: Kind, word: str) -> None:
    assert word in arguments(kind, Settings(Path("/v"), debug=True), Path("/share"), 7)


async def test_debians_daemon_serves_whoever_connected_before_and_leaves_when_he_does(
    tmp_path: Path, short_tmp: Path
) -> None:
    journal, tail = ListJournal(), Tail()
    settings = Settings(Path("/usr/lib/qemu/virtiofsd"))
    with ExitStack() as client:
        async with serving(settings, tmp_path, short_tmp / "fs1", journal, tail) as daemon, asyncio.timeout(10):
            client.enter_context(connected(short_tmp / "fs1"))
            assert daemon.alive
            client.close()
            assert await daemon.wait() == "virtiofsd exited with status 0"
    assert journal.entries == []


async def test_a_daemon_that_dies_is_heard_of_with_its_last_words(
    program: Path, short_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(program, f"test $1 = --version && echo '{IN_RUST}' && exit; echo 'no such directory' >&2; exit 2")
    tail = Tail()
    async with serving(Settings(program), Path("/share"), short_tmp / "fs2", ListJournal(), tail) as daemon:
        assert await daemon.wait() == "virtiofsd exited with status 2"
        with pytest.raises(ConnectionRefusedError), connected(short_tmp / "fs2"):
            raise AssertionError("connected")
    assert tail.lines == ("virtiofsd: no such directory",)
    assert "no such directory" in caplog.messages


async def test_a_daemon_nobody_ever_connected_to_is_killed(
    tmp_path: Path, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kata_qemu.virtiofsd.GRACE", 0.05)
    journal = ListJournal()
    settings = Settings(Path("/usr/lib/qemu/virtiofsd"))
    async with serving(settings, tmp_path, short_tmp / "fs3", journal, Tail()) as daemon:
        assert daemon.alive
    assert not daemon.alive
    assert journal.entries == []
