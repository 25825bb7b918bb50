"""The managers' handlers that start a shim of Kata's, by the files of their configuration.

Sources: containerd `docs/cri/config.md` (versions 2 and 3), CRI-O `docs/crio.conf.5.md`. Nothing is asked of the
managers: what they have read may be older than the files.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kata_py.config.load import problems
from kata_py.node.eligibility import Finding, Verdict

CONTAINERD = "etc/containerd/config.toml"
CRIO = "etc/crio/crio.conf"
DROP_INS = ("etc/containerd/conf.d/*.toml", "etc/containerd/config.d/*.toml", "etc/crio/crio.conf.d/*")

_PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
_PATH = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin", "opt/kata/bin")
_HEAD = 1 << 12  # bytes of a program in which a launcher of ours names what it starts
_OURS = b"kata_py"


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler, as a runtime class names it.

    Attributes:
        manager: `containerd` or `CRI-O`.
        name: The handler's.
        file: Where it is configured.
        shim: The program, a path or a name that is looked for.
        configuration: What the shim is told to read; None if nothing.
    """

    manager: str
    name: str
    file: Path
    shim: str
    configuration: Path | None


def files(root: Path = Path("/")) -> list[Path]:
    """The files of the managers' configuration that are there."""
    found = [root / CONTAINERD, root / CRIO]
    for pattern in DROP_INS:
        found += sorted(root.glob(pattern))
    return [path for path in found if path.is_file()]


def judged(root: Path = Path("/")) -> Iterator[Finding]:
    """Judge all handlers: whether the shim is there, and ours, and can take the configuration that it is told."""
    found: list[Handler] = []
    for path in files(root):
        try:
            found += _handlers(path, root)
        except (OSError, ValueError, RecursionError) as error:
            yield Finding(f"{path}", Verdict.FAIL, f"cannot be read: {error}", "correct it; its manager needs it too")
    for handler in found:
        yield _judged(handler, root)
    if not found:
        evidence = f"no handler of /{CONTAINERD} or /{CRIO} with their drop-ins starts a shim of Kata's"
        yield Finding("handlers", Verdict.WARN, evidence, "kata-ctl install containerd, or crio")


def _judged(handler: Handler, root: Path) -> Finding:
    name = f"{handler.manager}: {handler.name}"
    program = shutil.which(handler.shim, path=":".join(str(root / place) for place in _PATH))
    if program is None:
        evidence = f"{handler.file} has {handler.shim}, which is not there"
        return Finding(name, Verdict.FAIL, evidence, "install it there, or correct runtime_path")
    try:
        with Path(program).open("rb") as file:
            ours = _OURS in file.read(_HEAD)
    except OSError as error:
        return Finding(name, Verdict.FAIL, f"{program}: {error.strerror}", "let root read it")
    if not ours:
        evidence = f"{program} is another's shim: none of kata-py"
        return Finding(name, Verdict.WARN, evidence, "leave it so, or name ours in runtime_path")
    if handler.configuration is not None and (wrong := problems(handler.configuration)):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        fix = f"see all: kata-ctl config check {handler.configuration}"
        return Finding(name, Verdict.FAIL, f"{wrong[0]}{more}", fix)
    told = f" with {handler.configuration}" if handler.configuration else ""
    return Finding(name, Verdict.OK, f"{program}{told}, by {handler.file}")


def _handlers(path: Path, root: Path) -> Iterator[Handler]:
    data = tomllib.loads(path.read_text())
    if "crio" in path.relative_to(root).parts:
        for name, entry in _tables(_table(data, "crio", "runtime", "runtimes")):
            shim = _string(entry, "runtime_path")
            if _string(entry, "runtime_type") == "vm" and "shim-kata" in Path(shim).name:
                yield Handler("CRI-O", name, path, shim, _path(entry, "runtime_config_path"))
        return
    for plugin in _PLUGINS:
        for name, entry in _tables(_table(data, "plugins", plugin, "containerd", "runtimes")):
            kind = _string(entry, "runtime_type")
            if "kata" in kind:
                shim = _string(entry, "runtime_path") or f"containerd-shim-{'-'.join(kind.split('.')[-2:])}"
                options = entry.get("options")
                config = _path(options, "ConfigPath") if isinstance(options, dict) else None
                yield Handler("containerd", name, path, shim, config)


def _table(data: Mapping[str, object], *names: str) -> Mapping[str, object]:
    for name in names:
        inner = data.get(name)
        if not isinstance(inner, dict):
            return {}
        data = inner
    return data


def _tables(table: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name, entry in table.items():
        if isinstance(entry, dict):
            yield name, entry


def _string(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _path(entry: Mapping[str, object], name: str) -> Path | None:
    return Path(value) if (value := _string(entry, name)) else None
