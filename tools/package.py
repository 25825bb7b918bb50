"""`make package`: the wheel, a bundle that runs from wherever it is unpacked, and a Debian package of the same tree.

What is in them does not depend on who builds, and when: times are the commit's, owners root's, and bytecode names no
place.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import configuration

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = Path("/opt/kata")  # where the Debian package has the tree, and what the shipped configuration names
WHEELS = REPOSITORY / "build" / "wheels"
EXTRAS = "host,monitor,otel,policy"
PROGRAMS = {
    "containerd-shim-kata-v2": "kata_py.shim.command",
    "kata-ctl": "kata_py.cli.command",
    "kata-monitor": "kata_py.monitor.command",
}
GUEST_FILES = ("boot.json", "initramfs.img", "kata-containers.img", "manifest.json", "vmlinux")

# No `site`: it costs time at each pod's start, and the host's own packages must not come before ours. A link to the
# program, as in /usr/bin, is followed.
_LAUNCHER = """\
#!/usr/bin/python3 -IS
import sys
from os.path import dirname, realpath
sys.path.insert(0, dirname(dirname(realpath(__file__))) + "/lib")
from {module} import main
sys.exit(main())
"""

_CONFIGURATION = """\
# For the guest of this package. Unpacked elsewhere, replace {home} by that place. Every key is told in
# configuration-qemu.toml, beside this file.
[hypervisor.qemu]
{machine}"""

# Compiled parts of the vendored packages are for one minor version of Python.
_CONTROL = """\
Package: kata-py
Version: {version}
Architecture: {architecture}
Maintainer: The kata-py authors <noreply@example.invalid>
Section: admin
Priority: optional
Installed-Size: {kib}
Depends: python3 (>= {python}), python3 (<< {next_python}), libc6, {qemu}
Recommends: containerd | cri-o
Description: Pods in virtual machines for containerd and CRI-O
 The node side of Kata Containers in Python: the shim, kata-ctl and kata-monitor, with the guest that they boot.
"""
# dpkg writes over files that it does not know, and kata-deploy puts upstream's there.
_PREINST = """\
#!/bin/sh
set -e
if [ "$1" = install ] && [ -e "$DPKG_ROOT{shim}" ]; then
    echo "kata-py: {shim} is there already, of another Kata Containers: remove it, or use the bundle" >&2
    exit 1
fi
"""
_QEMU = {"amd64": "qemu-system-x86, qemu-system-common"}


@dataclass(frozen=True, slots=True)
class Packages:
    """What was made."""

    wheel: Path
    bundle: Path
    debian: Path


def main() -> int:
    """Make all three and print where they are."""
    parser = argparse.ArgumentParser(prog="make package")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--guest", type=Path, default=REPOSITORY / "build" / "guest")
    options = parser.parse_args()
    made = make(options.output, options.guest, WHEELS)
    for path in (made.wheel, made.bundle, made.debian):
        print(f"{path.stat().st_size / 2**20:7.1f} MiB  {path}")
    return 0


def make(output: Path, guest: Path, wheels: Path) -> Packages:
    """Build the packages into a directory, which is made.

    Args:
        output: Where they go.
        guest: The folder that `make guest` filled.
        wheels: Where all wheels go, ours among them; what was there is removed.

    Raises:
        subprocess.CalledProcessError: A program failed; it has said why.
        FileNotFoundError: There is no guest.
    """
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    architecture = _said("dpkg", "--print-architecture")
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _said("git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    wheel = _wheel(output, wheels, version, environment)
    with tempfile.TemporaryDirectory(prefix="kata-py-package-") as name:
        root = Path(name) / "root"
        tree = root / HOME.relative_to("/")
        _fill(tree, wheel, wheels, guest, environment)
        bundle = output / f"kata-py-{version}-{os.uname().machine}.tar.zst"
        _settle(tree, epoch)
        _run(
            "tar", "--create", "--use-compress-program=zstd -q -6 -T0", "--sort=name", f"--mtime=@{epoch}",
            "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", f"--file={bundle}",
            f"--directory={tree.parent}",
            tree.name,
        )  # fmt: skip
        debian = output / f"kata-py_{version}_{architecture}.deb"
        _debian(root, version, architecture)
        _settle(root, epoch)
        _run("dpkg-deb", "--build", "--root-owner-group", "-Zzstd", "-z6", str(root), str(debian), env=environment)
    return Packages(wheel, bundle, debian)


def _wheel(output: Path, wheels: Path, version: str, environment: Mapping[str, str]) -> Path:
    """Build ours, and have those that it needs beside it: what is installed afterwards comes from there alone."""
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    _run(*pip, f"--wheel-dir={wheels}", f"{REPOSITORY}[{EXTRAS}]", env=environment)
    name = f"kata_py-{version}-py3-none-any.whl"
    return Path(shutil.copyfile(wheels / name, output / name))


def _fill(tree: Path, wheel: Path, wheels: Path, guest: Path, environment: Mapping[str, str]) -> None:
    """The tree as it is unpacked: bin, lib, share."""
    library = tree / "lib"
    _run(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
        "--root-user-action=ignore", f"--target={library}", "--no-index", f"--find-links={wheels}",
        f"{wheel}[{EXTRAS}]", env=environment,
    )  # fmt: skip
    shutil.rmtree(library / "bin")  # pip's programs name the Python that pip ran with
    for path in library.glob("*.dist-info/direct_url.json"):  # it names the place that the wheel was built at
        path.unlink()
        record = path.with_name("RECORD")
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if "direct_url.json" not in line and "../bin/" not in line))
    # Whose time stamps nobody compares, as they do not survive every way of copying a tree; without them each start
    # would compile anew.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(library, quiet=2, stripdir=str(library), invalidation_mode=mode, workers=1, maxlevels=32)
    (tree / "bin").mkdir()
    for name, module in PROGRAMS.items():
        program = tree / "bin" / name
        program.write_text(_LAUNCHER.format(module=module))
        program.chmod(0o755)
    share = tree / "share"
    (share / "guest").mkdir(parents=True)
    for name in GUEST_FILES:
        shutil.copyfile(guest / name, share / "guest" / name)
    for path in sorted((REPOSITORY / "configs").glob("configuration-*.toml")):
        shutil.copyfile(path, share / path.name)
    shutil.copyfile(REPOSITORY / "LICENSE", share / "LICENSE")
    machine = configuration.machine(guest, HOME / "share" / "guest")
    (share / "configuration.toml").write_text(_CONFIGURATION.format(home=HOME, machine=machine))


def _debian(root: Path, version: str, architecture: str) -> None:
    """What Debian has beside the tree: links, units, the control file."""
    for name in PROGRAMS:
        _link(root / "usr/bin" / name, HOME / "bin" / name)
    _link(root / "usr/share/defaults/kata-containers/configuration.toml", HOME / "share/configuration.toml")
    _link(root / "usr/share/doc/kata-py/copyright", HOME / "share/LICENSE")
    for unit in sorted((REPOSITORY / "configs" / "systemd").glob("kata-*.service")):
        place = root / "lib/systemd/system" / unit.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(unit, place)
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    major, minor = sys.version_info[:2]
    control = root / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        _CONTROL.format(
            version=version,
            architecture=architecture,
            kib=-(-size // 1024),
            qemu=_QEMU[architecture],
            python=f"{major}.{minor}",
            next_python=f"{major}.{minor + 1}",
        )
    )
    guard = control.with_name("preinst")
    guard.write_text(_PREINST.format(shim=HOME / "bin" / "containerd-shim-kata-v2"))
    guard.chmod(0o755)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _settle(tree: Path, epoch: int) -> None:
    """Modes and times that do not depend on who builds, and when."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _run(*command: str, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
