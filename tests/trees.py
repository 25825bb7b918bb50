"""Trees as `make package` unpacks to, as small as they can be: the shim in them is this repository's."""

from __future__ import annotations

from pathlib import Path

from tests import launcher
from tools import configuration

Footprint = dict[str, tuple[int, bytes | str]]


def make(place: Path, version: str, *, build: str = "") -> Path:
    """Make a version's tree, which is for the namespace driver, and return it."""
    launcher.write(place / "bin")
    info = place / "lib" / f"kata_py-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text(f"{version} {build}\n")
    for name in ("configuration.toml", "configuration-remote.toml"):
        configuration.write(place / "share" / name, None, program="the tests", hypervisor="namespace")
    return place


def footprint(top: Path) -> Footprint:
    """Every name below a directory, with its mode and what it holds."""
    found: Footprint = {}
    for path in sorted(top.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(top))] = (path.lstat().st_mode, content)
    return found
