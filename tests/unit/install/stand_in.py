"""A containerd of any release, as far as `--version` and `config dump` go: how its files are merged.

Source: containerd `services/server/config/config.go` (1.6, 1.7), `cmd/containerd/server/config/config.go` (2.x).
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from kata_py.config import toml

Table = dict[str, Any]

GRPC, RUNTIME = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
RUNC: Table = {"runtime_type": "io.containerd.runc.v2", "runtime_path": ""}

_TEXT = """\
#!{python}
import sys
sys.path.insert(0, {repository!r})
from tests.unit.install.stand_in import main
main({release!r}, sys.argv[1:])
"""


def write(path: Path, release: str) -> Path:
    """Write the program and return its path."""
    repository = str(Path(__file__).resolve().parents[3])
    path.write_text(_TEXT.format(python=sys.executable, repository=repository, release=release))
    path.chmod(0o755)
    return path


def main(release: str, words: list[str]) -> None:
    """What it prints."""
    match words:
        case ["--version"]:
            print(f"containerd github.com/containerd/containerd {release} deadbeef")
        case ["--config", path, "config", "dump"]:
            print(toml.dumps(_effective(Path(path), merges=int(release.lstrip("v")[0]) >= 2)))
        case _:
            sys.exit(f"not a command line: {words}")


def _effective(main: Path, *, merges: bool) -> Table:
    result: Table = {}
    pending, loaded = [main], []
    while pending:
        path = pending.pop(0)
        if path in loaded:
            continue
        loaded.append(path)
        content = tomllib.loads(path.read_text())
        plugins = content.pop("plugins", {})
        if merges and content.get("version") == 2 and GRPC in plugins:
            plugins[RUNTIME] = plugins.pop(GRPC)
        mine = result.setdefault("plugins", {})
        for name, table in plugins.items():
            mine[name] = _merged(mine.get(name, {}), table) if merges else table
        result |= {key: value for key, value in content.items() if key != "imports"}
        for entry in content.get("imports", []):
            place = Path(path.parent if merges else Path.cwd(), entry)
            pending += sorted(place.parent.glob(place.name)) if "*" in entry else [place]
    plugin = RUNTIME if merges else GRPC
    if any("cri" in each for each in result.get("disabled_plugins", [])):
        result["plugins"].pop(plugin, None)
        return result
    table = result["plugins"].setdefault(plugin, {})
    runtimes = table.setdefault("containerd", {}).setdefault("runtimes", {})
    if merges or not runtimes:
        runtimes.setdefault("runc", dict(RUNC))
    return result


def _merged(to: Table, table: Table) -> Table:
    both = {name: _merged(to[name], table[name]) for name in to.keys() & table.keys() if isinstance(to[name], dict)}
    return to | table | both
