"""The root image: the same whoever builds it, and quick to start from."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from image.build import BOOT, IMAGE, INITRAMFS, KERNEL
from kata_agent import __version__
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect

MEBIBYTE = 1 << 20

# Imported before PID 1 has packs, or for the command line that a guest's agent has not.
_ELSEWHERE = re.compile(r"encodings(\..*)?|argparse|gettext|shutil|lzma|_compression")

_IN_ROOT = """\
image=$1 root=$2 run=$3; shift 3
mount -o loop,ro "$image" "$root" && mount --bind "$run" "$root/run" && exec chroot "$root" "$@" 2>"$run/errors"
"""


def build(guest: Path, output: Path, **environment: str) -> dict[str, str]:
    """Build from the packages that are there; returns digests by file name."""
    here, there = (directory / "cache/amd64" for directory in (guest, output))
    for kind in ("packages", "wheels"):
        shutil.copytree(here / kind, there / kind, copy_function=os.link)
    shutil.copy(here / "packages.json", there)
    command = [sys.executable, "-m", "image.build", "--output", output]
    subprocess.run(command, env={**os.environ, **environment}, umask=int(environment["UMASK"], 8), check=True)
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in (KERNEL, INITRAMFS, IMAGE, BOOT)}


def test_two_builds_from_the_same_packages_are_identical(guest: Path, tmp_path: Path) -> None:
    one = build(guest, tmp_path / "one", UMASK="022", TZ="UTC", LANG="C", PYTHONHASHSEED="1")
    two = build(guest, tmp_path / "a/longer/path", UMASK="077", TZ="Asia/Tokyo", LANG="C.UTF-8", PYTHONHASHSEED="2")
    assert one == two


def test_a_second_build_makes_nothing_anew_but_what_is_damaged(guest: Path, tmp_path: Path) -> None:
    build(guest, tmp_path, UMASK="022")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    command = [sys.executable, "-m", "image.build", "--output", tmp_path]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"==> guest: {tmp_path} is up to date\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    for name, step in ((IMAGE, "the image"), (KERNEL, "kernel")):
        (tmp_path / name).write_bytes(b"damaged")
        assert step in subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert (tmp_path / name).stat().st_size > MEBIBYTE


@pytest.fixture
def in_root(guest: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """A command line that runs in the mounted image what is added to it; its /run is `tmp_path / "run"`."""
    root, run = tmp_path / "root", tmp_path / "run"
    root.mkdir()
    run.mkdir()
    return ("unshare", "--mount", "sh", "-c", _IN_ROOT, "sh", guest / IMAGE, root, run)


@pytest.mark.root
def test_the_image_has_an_init_for_those_who_mount_it_without_our_initramfs(in_root: tuple[str | Path, ...]) -> None:
    done = subprocess.run([*in_root, "/sbin/init", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"kata-agent {__version__}\n"


@pytest.mark.root
async def test_all_that_is_imported_until_the_first_answer_comes_from_packs(
    in_root: tuple[str | Path, ...], tmp_path: Path, short_tmp: Path
) -> None:
    run = short_tmp / "guest-run"
    run.symlink_to(tmp_path / "run")  # a path that a socket's address has room for
    init = ("/usr/bin/python3", "-ISv", "/usr/lib/kata-agent/init.pyc", "--server-addr", "unix:///run/agent")
    agent = await asyncio.create_subprocess_exec(*in_root, *init)
    try:
        async with connect(UnixAddress(str(run / "agent")), timeout=10, retry=0.05) as client:
            await client.call("grpc.Health", "Check", b"", timeout=10)
        imports = re.findall(r"^import '(\S+)' # <(\S+)", (run / "errors").read_text(), re.MULTILINE)
    finally:
        agent.kill()
        await agent.wait()
    loose = [name for name, loader in imports if "SourcelessFileLoader" in loader]
    assert [name for name in loose if not _ELSEWHERE.fullmatch(name)] == []
    assert "asyncio" in [name for name, loader in imports if "Packs" in loader]
