"""Debian's archive: packages by name, verified by apt, kept beside the build.

apt runs with lists, state and cache of its own, so the machine's packages are neither used nor touched, any
architecture can be asked for, and root is not needed. Proxies are the machine's (`/etc/apt/apt.conf.d`). What was
resolved once is written down; later builds take the same versions and need no network.
Source: apt.conf(5), apt-get(8).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from image.errors import BuildError
from image.recipe import MIRROR, SECURITY_MIRROR, SUITE, Architecture

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT = 900.0  # seconds for one run of apt
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    """One package as the archive has it; `file` is its name in the cache, `size` in bytes."""

    name: str
    version: str
    file: str
    size: int
    sha256: str


class Archive:
    """Packages of one architecture.

    Args:
        architecture: Whose packages.
        cache: Directory for lists, state and packages; made if missing.
        say: Told of each step that takes time.
    """

    def __init__(self, architecture: Architecture, cache: Path, say: Callable[[str], None]) -> None:
        self._architecture = architecture
        self._cache = cache
        self._say = say
        self._packages = cache / "packages"
        self._lock = cache / "packages.json"

    def packages(self, names: Sequence[str], *, update: bool = False) -> tuple[Package, ...]:
        """The packages of those names and the kernel's, downloaded; the kernel's is the first.

        Args:
            names: Packages without their dependencies.
            update: Ask the archive for its newest versions, instead of taking those resolved before.

        Raises:
            BuildError: apt failed, or what it brought is not what the archive promised.
        """
        wanted = [self._architecture.kernel_package, *names]
        found = None if update else self._resolved(wanted)
        if found is None:
            found = self._resolve(wanted)
            self._lock.write_text(
                json.dumps({"wanted": wanted, "packages": [asdict(each) for each in found]}, indent=1)
            )
        self._download([package for package in found if not self._is_here(package)])
        return found

    def path(self, package: Package) -> Path:
        """Where a downloaded package lies."""
        return self._packages / package.file

    def _resolved(self, wanted: list[str]) -> tuple[Package, ...] | None:
        try:
            lock = json.loads(self._lock.read_text())
            return tuple(Package(**entry) for entry in lock["packages"]) if lock["wanted"] == wanted else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _resolve(self, wanted: list[str]) -> tuple[Package, ...]:
        self._prepare()
        self._say(f"package lists of Debian {SUITE} ({self._architecture.debian})")
        self._apt("apt-get", "update")
        kernel = self._newest_kernel(wanted[0])
        # In a directory without packages: apt does not tell of those that are there.
        command = ("apt-get", "download", "--print-uris", kernel, *wanted[1:])
        lines = self._apt(*command, directory=self._cache).splitlines()
        found = [_package(match) for line in lines if (match := _URI.match(line))]
        missing = {kernel, *wanted[1:]} - {package.name for package in found}
        if missing:
            raise BuildError(
                f"apt knows no {', '.join(sorted(missing))}", f"{SUITE} must have them: see its output above"
            )
        return tuple(sorted(found, key=lambda package: (package.name != kernel, package.name)))

    def _newest_kernel(self, metapackage: str) -> str:
        shown = self._apt("apt-cache", "show", "--no-all-versions", metapackage)
        match = re.search(r"^Depends: (linux-image-\S+)", shown, re.MULTILINE)
        if match is None:
            raise BuildError(f"{metapackage} depends on no kernel", "the archive has changed its ways: see recipe.py")
        return match[1]

    def _download(self, packages: Sequence[Package]) -> None:
        if not packages:
            return
        self._prepare()
        megabytes = sum(package.size for package in packages) / 1e6
        self._say(f"{len(packages)} packages, {megabytes:.0f} MB")
        self._apt("apt-get", "download", *(f"{package.name}={package.version}" for package in packages))
        for package in packages:
            if not self._is_here(package):
                raise BuildError(
                    f"{package.file} was not downloaded as the archive describes it",
                    "a mirror between versions: run again with --update",
                )

    def _is_here(self, package: Package) -> bool:
        path = self.path(package)
        if not path.is_file() or path.stat().st_size != package.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256

    def _prepare(self) -> None:
        if shutil.which("apt-get") is None:
            raise BuildError(
                "apt-get is not here", "the guest is made of Debian packages: build it on Debian or Ubuntu"
            )
        if not KEYRING.is_file():
            raise BuildError(f"{KEYRING} is not here", "run: apt-get install debian-archive-keyring")
        for directory in ("lists/partial", "archives/partial"):
            (self._cache / directory).mkdir(parents=True, exist_ok=True)
        self._packages.mkdir(exist_ok=True)
        (self._cache / "status").touch()
        suites = ((MIRROR, SUITE), (MIRROR, f"{SUITE}-updates"), (SECURITY_MIRROR, f"{SUITE}-security"))
        lines = (f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for mirror, suite in suites)
        (self._cache / "sources.list").write_text("".join(lines))

    def _apt(self, program: str, *arguments: str, directory: Path | None = None) -> str:
        cache = self._cache.resolve()
        options = (
            f"Dir::State={cache}",
            f"Dir::State::status={cache}/status",
            f"Dir::Cache={cache}",
            f"Dir::Etc::sourcelist={cache}/sources.list",
            "Dir::Etc::sourceparts=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            f"APT::Architecture={self._architecture.debian}",
            f"APT::Architectures={self._architecture.debian}",
            "APT::Sandbox::User=root",
            "APT::Update::Error-Mode=any",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            "Acquire::http::Timeout=30",
        )
        command = [program, "-q=2", *(f"-o={option}" for option in options), *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=directory or self._packages,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(
                f"{program} {arguments[0]} took longer than {_TIMEOUT:.0f} s", "is the network that slow?"
            ) from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["it said nothing"]
            raise BuildError(
                f"{program} {arguments[0]} failed: {' '.join(said)}",
                f"needs {MIRROR}; behind a proxy, set Acquire::http::Proxy in /etc/apt/apt.conf.d/",
            )
        return done.stdout


def _package(match: re.Match[str]) -> Package:
    name, version, _ = match["file"].split("_")
    return Package(name, unquote(version), match["file"], int(match["size"]), match["sha256"])
