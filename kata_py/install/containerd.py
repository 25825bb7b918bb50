"""containerd's drop-in, proven before it is written by what `containerd config dump` makes of it.

The main file leads to drop-ins by `imports`, or they are not read. Up to 1.7 each file's table of a plug-in replaces
that of the files before it, and a list of runtimes replaces the default one: so the drop-in repeats what was there.
From 2.0 on tables are merged, and the drop-in has ours alone.

Source: containerd `services/server/config/config.go` (1.6, 1.7), `cmd/containerd/server/config/config.go` (2.x).
"""

from __future__ import annotations

import copy
import glob
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from kata_py.config import toml
from kata_py.install.errors import InstallError, NotImportedError
from kata_py.install.handler import Handler

NAME = "containerd"
MAIN = Path("/etc/containerd/config.toml")
DROP_IN = Path("/etc/containerd/conf.d/50-kata.toml")
RESTART = "systemctl restart containerd (the pods that run stay)"
RUNTIME = "io.containerd.kata.v2"
ANNOTATIONS = ("io.katacontainers.*",)

Release = tuple[int, int, int]
MERGES: Release = (2, 0, 0)  # from which on tables are merged
COMMAND_TIMEOUT = 30.0  # seconds

_PLUGIN = {2: "io.containerd.grpc.v1.cri"}  # by the file's version; later ones have
_PLUGIN_LATER = "io.containerd.cri.v1.runtime"

_HEADER = "# Written by kata-ctl install containerd, and taken away by kata-ctl uninstall containerd.\n"
_REPEATED = """\
# This containerd takes a plug-in's table whole from the last file that has it, so that of
# {other} is repeated here. After a change there run kata-ctl install containerd again.
"""

_BY_TYPE = """\
# This containerd does not heed runtime_path (1.6.21 and 1.7.1 do): the program is its runtime_type.
"""

Table = dict[str, Any]  # as it comes from TOML, in whatever form others gave it


@dataclass(frozen=True, slots=True)
class _File:
    """A file that containerd reads; its content is empty where it is ours."""

    path: Path
    content: Table

    def plugin(self, name: str) -> Table:
        """A plug-in's table; empty if there is none."""
        found = self.content.get("plugins", {}).get(name, {})
        return found if isinstance(found, dict) else {}


class Containerd:
    """What this node's containerd reads, and makes of it.

    Args:
        main: Its main file.
        drop_in: Where the drop-in goes.
        program: containerd itself.
    """

    def __init__(self, main: Path, drop_in: Path, program: str = "containerd") -> None:
        self._main = main
        self._drop_in = drop_in
        self._program = program

    def drop_in(self, handlers: Sequence[Handler], annotations: Sequence[str] = ANNOTATIONS) -> str:
        """The drop-in's text.

        Args:
            handlers: The handlers in it.
            annotations: Which of a pod's annotations reach the shim, as patterns.

        Raises:
            NotImportedError: The main file does not lead to the drop-in.
            InstallError: containerd cannot be asked, its files cannot take a drop-in, or it would make something else
                of them than handlers that are added.
        """
        release = self._release()
        files = self._files(release)
        main = files[0]
        version = main.content.get("version", 1)
        if version < 2:
            raise InstallError(
                f"{self._main} is of version {version}, with which no drop-in can be mixed",
                f"let containerd rewrite it: {self._program} --config {self._main} config migrate",
            )
        plugin = _PLUGIN.get(version, _PLUGIN_LATER)
        at = next(number for number, file in enumerate(files) if file.path == self._drop_in)
        others = [file for file in files if file.path != self._drop_in and file.plugin(plugin)]
        self._refuse_others(others, plugin, handlers)

        table: Table = {}
        header = _HEADER
        if release < MERGES and others:
            late = [file.path for file in others if files.index(file) > at]
            if late:
                raise InstallError(
                    f"{late[-1]} is read after {self._drop_in}, and this containerd takes {plugin} from it alone",
                    f"use a name that comes later: --drop-in {self._drop_in.parent / 'zz-kata.toml'}",
                )
            table = copy.deepcopy(others[-1].plugin(plugin))
            header += _REPEATED.format(other=others[-1].path)
        runtimes = table.setdefault("containerd", {}).setdefault("runtimes", {})
        by_path = _heeds_runtime_path(release)
        runtimes |= {handler.name: _runtime(handler, annotations, by_path) for handler in handlers}
        header += "" if by_path else _BY_TYPE

        def text() -> str:
            return header + toml.dumps({"version": version, "plugins": {plugin: table}})

        paths = [file.path for file in files[1:]]
        before = self._effective(main, [path for path in paths if path != self._drop_in])
        after = self._effective(main, paths, text())
        if lost := _runtimes(before).keys() - _runtimes(after).keys():
            # The list was containerd's default, which is there as long as nobody has one.
            runtimes |= {name: _runtimes(before)[name] for name in sorted(lost)}
            after = self._effective(main, paths, text())
        self._prove(before, after, handlers)
        return text()

    def _release(self) -> Release:
        said = self._run("--version")
        found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", said)
        if not found:
            raise InstallError(f"{self._program} --version does not say which: {said.strip()!r}")
        return int(found[1]), int(found[2]), int(found[3])

    def _files(self, release: Release) -> list[_File]:
        """All files in the order containerd reads them, the main one first.

        Raises:
            NotImportedError: The drop-in is not among them.
            InstallError: One cannot be read.
        """
        if not self._main.exists():
            raise NotImportedError(
                f"there is no {self._main}, and without it containerd reads no drop-in",
                f"write one with these lines, and run this again:\nversion = 2\n{self._line()}",
            )
        files: dict[Path, _File] = {}
        pending = [self._main]
        while pending:
            path = pending.pop(0)
            if path in files:
                continue
            files[path] = _File(path, {} if path == self._drop_in else _read(path))
            imports = files[path].content.get("imports", [])
            pending += [each for entry in imports for each in self._imported(path, entry, release)]
        if self._drop_in not in files:
            has = files[self._main].content.get("imports")
            what = f"in its line `imports`, add to the list: {_pattern(self._drop_in)}"
            raise NotImportedError(
                f"{self._main} does not import {self._drop_in}, so containerd would not read it; "
                "the file is not ours to change",
                f"{what if has else f'put this line above its first table: {self._line()}'}; then run this again",
            )
        return list(files.values())

    def _line(self) -> str:
        return f"imports = [{_pattern(self._drop_in)}]"

    def _imported(self, importer: Path, entry: str, release: Release) -> list[Path]:
        relative = not os.path.isabs(entry)  # noqa: PTH117 no path yet
        if "*" not in entry:
            return [Path(os.path.normpath(importer.parent / entry))]
        if relative and release < MERGES:
            return []  # some look below containerd's working directory, others beside the importer
        pattern = os.path.normpath(importer.parent / entry)
        found = {Path(each) for each in glob.glob(pattern)}  # noqa: PTH207 the pattern is absolute
        if PurePath(self._drop_in).match(pattern):
            found.add(self._drop_in)
        return sorted(found)

    def _refuse_others(self, others: Sequence[_File], plugin: str, handlers: Sequence[Handler]) -> None:
        for file in others:
            theirs = file.plugin(plugin).get("containerd", {}).get("runtimes", {})
            for handler in handlers:
                if handler.name in theirs:
                    raise InstallError(
                        f"{file.path} has a handler {handler.name} already",
                        "remove it there, or leave it out here with --handler",
                    )

    def _effective(self, main: _File, imports: Sequence[Path], text: str | None = None) -> Table:
        """What containerd makes of its files, with a text in the place of the drop-in. Blocks."""
        with tempfile.TemporaryDirectory(prefix="kata-ctl-") as name:
            candidate = Path(name, "drop-in.toml")
            candidate.write_text(text or "")
            named = [str(candidate if path == self._drop_in else path) for path in imports]
            trial = Path(name, "config.toml")
            trial.write_text(toml.dumps(main.content | {"imports": named}))
            dump = tomllib.loads(self._run("--config", str(trial), "config", "dump"))
        if not _runtimes(dump):
            raise InstallError(
                "containerd's CRI plug-in is switched off, and it alone has runtime handlers",
                f"take `cri` out of disabled_plugins in {self._main}",
            )
        return dump

    def _prove(self, before: Table, after: Table, handlers: Sequence[Handler]) -> None:
        """See to it that the handlers are there and nothing else is different.

        Raises:
            InstallError: It is not so.
        """
        added = {handler.name: _runtimes(after).get(handler.name, {}) for handler in handlers}
        good = all(
            added[each.name].get("runtime_path") == str(each.shim)
            and added[each.name].get("options", {}).get("ConfigPath") == str(each.configuration)
            for each in handlers
        )
        if not good or _without(after, added) != _without(before, added):
            raise InstallError(
                "containerd would make something else of its files than handlers that are added; nothing was written",
                f"compare what {self._program} config dump prints with {self._main}, and report this as a defect",
            )

    def _run(self, *arguments: str) -> str:
        command = [self._program, *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT
            )
        except FileNotFoundError:
            raise InstallError(f"there is no program {self._program}", "say where it is: --containerd FILE") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"{' '.join(command)}: {error}") from error
        if done.returncode:
            raise InstallError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")
        return done.stdout


def _runtime(handler: Handler, annotations: Sequence[str], by_path: bool) -> Table:
    return {
        "runtime_type": RUNTIME if by_path else str(handler.shim),
        "runtime_path": str(handler.shim),
        "privileged_without_host_devices": True,
        "pod_annotations": list(annotations),
        "options": {"ConfigPath": str(handler.configuration)},
    }


def _heeds_runtime_path(release: Release) -> bool:
    """Whether `runtime_path` has an effect: it was read, and went no further. Source: containerd `container.go`."""
    return release >= (1, 7, 1) or (1, 6, 21) <= release < (1, 7, 0)


def _runtimes(dump: Mapping[str, Any]) -> Table:
    """The handlers in what containerd printed, whichever plug-in has them in its version."""
    for name in (_PLUGIN_LATER, *_PLUGIN.values()):
        if runtimes := dump.get("plugins", {}).get(name, {}).get("containerd", {}).get("runtimes"):
            return dict(runtimes)
    return {}


def _without(dump: Table, names: Mapping[str, object]) -> Table:
    """What containerd printed, without the handlers of these names and the list of files."""
    kept = copy.deepcopy(dump)
    kept.pop("imports", None)
    for name in (_PLUGIN_LATER, *_PLUGIN.values()):
        runtimes = kept.get("plugins", {}).get(name, {}).get("containerd", {}).get("runtimes", {})
        for each in names:
            runtimes.pop(each, None)
    return kept


def _pattern(drop_in: Path) -> str:
    return f'"{drop_in.parent}/*.toml"'


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InstallError(f"{path} cannot be read as TOML: {error}", "containerd cannot read it either") from error
