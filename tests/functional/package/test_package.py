"""What `make package` makes runs where it is put, without this repository's environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tools.containerd import PrivateContainerd
from tools.package import HOME, PROGRAMS, WHEELS, Packages

VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def said(*command: str | Path) -> str:
    """What a command says in an empty environment."""
    done = subprocess.run(
        command, env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_bundle_runs_wherever_it_is(unpacked: Path, tmp_path: Path):
    for place in (unpacked, tmp_path / "moved"):
        if place != unpacked:
            shutil.move(unpacked, place)
        assert VERSION in said(place / "bin/kata-ctl", "version")
        assert VERSION in said(place / "bin/containerd-shim-kata-v2", "-v")
        assert "listen-address" in said(place / "bin/kata-monitor", "--help")


def test_all_that_the_programs_import_is_in_the_bundle(unpacked: Path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import kata_py.shim.daemon, kata_py.monitor.service, kata_qemu.driver, grpc, pyroute2, qemu.qmp, regorus\n"
        "print(*{m.__file__ for n, m in sys.modules.items() if n.split('.')[0].startswith(('kata', 'google.'))"
        " and getattr(m, '__file__', None)}, sep='\\n')"
    )
    files = said("/usr/bin/python3", "-IS", "-c", code, unpacked / "lib").splitlines()
    assert files
    assert all(file.startswith(str(unpacked)) for file in files)


def test_running_it_writes_nothing_below_it(unpacked: Path):
    before = sorted(unpacked.rglob("*"))
    said(unpacked / "bin/kata-ctl", "version")
    said(unpacked / "bin/containerd-shim-kata-v2", "features")
    assert sorted(unpacked.rglob("*")) == before


def test_the_debian_package_has_the_tree_and_links_that_lead_into_it(packages: Packages, tmp_path: Path):
    said("/usr/bin/dpkg-deb", "-x", packages.debian, tmp_path)
    for name in PROGRAMS:
        target = (tmp_path / "usr/bin" / name).readlink()
        assert target.is_relative_to(HOME)
        assert os.access(tmp_path / target.relative_to("/"), os.X_OK)
    configuration = (tmp_path / "usr/share/defaults/kata-containers/configuration.toml").readlink()
    text = (tmp_path / configuration.relative_to("/")).read_text()
    named = [word for word in text.split('"') if word.startswith(f"{HOME}/")]
    assert len(named) == 3
    assert all((tmp_path / path.lstrip("/")).is_file() for path in named)
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin/kata-ctl"
    link.symlink_to(tmp_path / HOME.relative_to("/") / "bin/kata-ctl")
    assert VERSION in said(link, "version")


def dpkg(root: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run dpkg on a directory of its own."""
    database = root / "var/lib/dpkg"
    database.mkdir(parents=True, exist_ok=True)
    (database / "status").touch()
    command = ["/usr/bin/dpkg", f"--root={root}", "--force-depends", "--force-script-chrootless", "--log=/dev/null"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run([*command, *words], env=environment, capture_output=True, text=True)


def test_dpkg_takes_the_package_in_and_out(packages: Packages, tmp_path: Path):
    dpkg(tmp_path, "--install", packages.debian).check_returncode()
    assert (tmp_path / HOME.relative_to("/") / "share/guest/vmlinux").is_file()
    dpkg(tmp_path, "--purge", "kata-py").check_returncode()
    assert not (tmp_path / HOME.relative_to("/")).exists()
    assert not (tmp_path / "usr/bin/kata-ctl").is_symlink()


def test_dpkg_writes_over_nothing_of_another_kata(packages: Packages, tmp_path: Path):
    theirs = tmp_path / HOME.relative_to("/") / "bin/containerd-shim-kata-v2"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("upstream's")
    refused = dpkg(tmp_path, "--install", packages.debian)
    assert refused.returncode != 0
    assert "is there already, of another Kata Containers" in refused.stderr
    assert theirs.read_text() == "upstream's"


def test_pip_installs_the_wheel_for_a_host(packages: Packages, tmp_path: Path):
    subprocess.run(["/usr/bin/python3", "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-index", f"--find-links={WHEELS}", f"{packages.wheel}[host]"]  # tests have no network
    subprocess.run(pip, check=True)
    assert VERSION in said(tmp_path / "venv/bin/kata-ctl", "version")
    assert VERSION in said(tmp_path / "venv/bin/containerd-shim-kata-v2", "-v")


@pytest.mark.root
@pytest.mark.qemu
@pytest.mark.containerd
def test_a_container_runs_in_a_machine_by_the_bundle_alone(packages: Packages, short_tmp: Path):
    top = short_tmp / "package"
    top.mkdir()
    subprocess.run(["tar", "--extract", f"--file={packages.bundle}", f"--directory={top}"], check=True)
    home = top / "kata"
    config = home / "share/configuration.toml"
    text = config.read_text().replace(str(HOME), str(home))
    # A guest under emulation takes its time.
    config.write_text(f"{text}default_memory = 512\n[agent.kata]\ndial_timeout = 60\n")
    with PrivateContainerd(top / "c", home / "bin/containerd-shim-kata-v2", config) as containerd:
        done = containerd.ctr(*containerd.run_arguments("bundled", "uname", "-r", options=["--rm"]), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() not in ("", os.uname().release)


def test_the_python_that_makes_the_packages_is_the_one_they_run_with():
    version = said("/usr/bin/python3", "-IS", "-c", "import sys; print(*sys.version_info[:2])")
    assert version.split() == [str(part) for part in sys.version_info[:2]]
