from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from image import archive
from image.archive import Archive
from image.errors import BuildError
from image.recipe import ARCHITECTURES

AMD64 = ARCHITECTURES["x86_64"]

# apt as far as the build talks to it; what it is asked goes to a log. Like apt, it tells nothing of what is there.
APT = """\
#!/bin/sh
asked=$(echo "$(basename "$0") $*" | sed 's/-o=[^ ]* *//g; s/-q=2 //')
echo "$asked" >>{log}
case "$asked" in
    *--print-uris*)
        for package in linux-image-1-cloud-amd64 crun; do
            [ -e "${{package}}_1%3a2-3_amd64.deb" ] && continue
            echo "'http://deb/$package.deb' ${{package}}_1%3a2-3_amd64.deb 5 SHA256:{sha256}"
        done ;;
    *show*) echo "Depends: linux-image-1-cloud-amd64 (= 1)" ;;
    *download*) for package in linux-image-1-cloud-amd64 crun; do printf 12345 >${{package}}_1%3a2-3_amd64.deb; done ;;
esac
{then}
"""
SHA256 = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"


class Apt:
    """A stand-in for apt on PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.answer()

    def answer(self, *, sha256: str = SHA256, then: str = "") -> None:
        for name in ("apt-get", "apt-cache"):
            script = self.directory / name
            script.write_text(APT.format(log=self.log, sha256=sha256, then=then))
            script.chmod(0o755)

    def asked(self) -> list[str]:
        asked = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return asked


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    keyring = tmp_path / "keyring"
    keyring.touch()
    monkeypatch.setattr(archive, "KEYRING", keyring)
    return Apt(directory)


@pytest.fixture
def packages(tmp_path: Path) -> Archive:
    return Archive(AMD64, tmp_path / "cache", lambda text: None)


def test_packages_are_downloaded_with_the_kernel_that_the_metapackage_names_first(apt: Apt, packages: Archive) -> None:
    found = packages.packages(["crun"])
    assert [(package.name, package.version) for package in found] == [
        ("linux-image-1-cloud-amd64", "1:2-3"),
        ("crun", "1:2-3"),
    ]
    assert [packages.path(package).read_bytes() for package in found] == [b"12345", b"12345"]
    assert apt.asked() == [
        "apt-get update",
        "apt-cache show --no-all-versions linux-image-cloud-amd64",
        "apt-get download --print-uris linux-image-1-cloud-amd64 crun",
        "apt-get download linux-image-1-cloud-amd64=1:2-3 crun=1:2-3",
    ]


def test_what_was_resolved_and_downloaded_needs_no_apt_again(apt: Apt, packages: Archive) -> None:
    found = packages.packages(["crun"])
    apt.asked()
    assert packages.packages(["crun"]) == found
    assert apt.asked() == []


def test_a_damaged_package_is_downloaded_again_in_the_same_version(apt: Apt, packages: Archive) -> None:
    found = packages.packages(["crun"])
    packages.path(found[1]).write_bytes(b"1234X")
    apt.asked()
    packages.packages(["crun"])
    assert apt.asked() == ["apt-get download crun=1:2-3"]
    assert packages.path(found[1]).read_bytes() == b"12345"


def test_an_update_and_other_names_are_resolved_anew(apt: Apt, packages: Archive) -> None:
    packages.packages(["crun"])
    apt.asked()
    packages.packages(["crun"], update=True)
    assert apt.asked()[0] == "apt-get update"
    with pytest.raises(BuildError, match="apt knows no runc"):
        packages.packages(["crun", "runc"])


def test_a_garbled_record_of_versions_is_no_record(apt: Apt, packages: Archive, tmp_path: Path) -> None:
    packages.packages(["crun"])
    lock = tmp_path / "cache/packages.json"
    good = lock.read_text()
    for bad in ("", "[]", json.dumps({"wanted": ["linux-image-cloud-amd64", "crun"], "packages": [{"nick": 1}]})):
        lock.write_text(bad)
        packages.packages(["crun"])
        assert lock.read_text() == good


def test_what_apt_says_of_its_failure_is_passed_on_with_a_hint(apt: Apt, packages: Archive) -> None:
    apt.answer(then="echo 'W: careful' >&2; echo 'E: Could not resolve deb.debian.org' >&2; exit 100")
    with pytest.raises(BuildError) as raised:
        packages.packages(["crun"])
    assert raised.value.cause == "apt-get update failed: E: Could not resolve deb.debian.org"
    assert "proxy" in raised.value.hint


def test_a_package_that_differs_from_its_description_is_refused(apt: Apt, packages: Archive) -> None:
    apt.answer(sha256="0" * 64)
    with pytest.raises(BuildError, match="not downloaded as the archive describes it"):
        packages.packages(["crun"])


def test_a_machine_without_apt_or_keyring_is_told_what_is_missing(
    apt: Apt, packages: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keyring").unlink()
    with pytest.raises(BuildError, match="apt-get install debian-archive-keyring"):
        packages.packages(["crun"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="build it on Debian or Ubuntu"):
        packages.packages(["crun"])
