"""From `configuration.toml` and its drop-ins to frozen values, or to an error that names key, file and line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from kata_py.config.bind import Report, bind, fault, nearest, raised, refuse_all
from kata_py.config.check import Contradiction, contradictions
from kata_py.config.errors import ConfigurationError, NoConfiguration
from kata_py.config.file import Key, Setting, parse, read
from kata_py.config.model import REMOTE, AgentConfig, Configuration, HypervisorConfig, RuntimeConfig, Source

# Where the file is looked for when nobody names one; the first that exists counts.
SEARCHED = (
    Path("/etc/kata-containers/configuration.toml"),
    Path("/usr/share/defaults/kata-containers/configuration.toml"),
    Path("/opt/kata/share/defaults/kata-containers/configuration.toml"),
    Path("/opt/kata/current/share/configuration.toml"),  # of the installed version that is in force
)

_AGENT: Key = ("agent", "kata")
_RUNTIME: Key = ("runtime",)
_FACTORY: Key = ("factory",)


# The file's name where there is none: the runtime class's options hold its text.
RUNTIME_CLASS = Path("options in the runtime class")

DEFAULTS = b""  # the configuration that says nothing


def load(named: Source = None, environ: Mapping[str, str] | None = None) -> Configuration:
    """Find and read the configuration.

    Stricter than upstream, where a misspelt key in the main file is ignored: here every key is honoured, known to
    be upstream's and to change nothing, or an error.

    Args:
        named: What the runtime class names. Drop-ins lie beside a file; a text has none.
        environ: The environment, for `KATA_CONF_FILE`; None is the process's own.

    Raises:
        ConfigurationError: No file was found, one cannot be read, or one says what cannot be honoured.
    """
    return configured(*settings_of(named, environ))


def problems(named: Source = None, environ: Mapping[str, str] | None = None) -> list[ConfigurationError]:
    """All that is wrong with a configuration, main file first; `load` raises the first it meets.

    Args:
        named: As for `load`.
        environ: As for `load`.
    """
    found: list[ConfigurationError] = []
    source: Path | None = None
    try:
        source, settings = settings_of(named, environ, found.append)
        configured(source, settings, found.append)
    except ConfigurationError as error:  # there is nothing to go on with
        found.append(error)
    return sorted(found, key=lambda each: (each.file != source, str(each.file), each.line or 0))


def configured(source: Path, settings: Mapping[Key, Setting], report: Report = raised) -> Configuration:
    """What settings come to.

    Args:
        source: The main file.
        settings: What it and its drop-ins say, as `settings_of` gives it.
        report: Takes what cannot be honoured.

    Raises:
        ConfigurationError: What `report` raises.
    """
    blamed: set[str] = set()

    def note(error: ConfigurationError) -> None:
        blamed.add(error.key)
        report(error)

    tables = _tables(settings.items(), note)
    hypervisor, *others = [table for table in tables if table[0] == "hypervisor"] or [("hypervisor", "qemu")]
    if others:
        names = " and ".join(f"[{'.'.join(table)}]" for table in (hypervisor, *others))
        note(ConfigurationError(f"more than one hypervisor: {names}", file=source, hint="leave one of them in"))
    for table in others:
        bind(HypervisorConfig, table, tables[table], note, name=table[1])
    refuse_all(_FACTORY, tables.get(_FACTORY, {}), note)
    _one_root(hypervisor, tables.get(hypervisor, {}), note)
    configuration = Configuration(
        hypervisor=bind(HypervisorConfig, hypervisor, tables.get(hypervisor, {}), note, name=hypervisor[1]),
        agent=bind(AgentConfig, _AGENT, tables.get(_AGENT, {}), note),
        runtime=bind(RuntimeConfig, _RUNTIME, tables.get(_RUNTIME, {}), note),
        source=source,
    )
    for each in contradictions(configuration):
        table = hypervisor if each.table == "hypervisor" else _RUNTIME
        if blamed.isdisjoint(".".join((*table, key)) for key in each.keys):  # its default is not what was meant
            report(_contradiction(each, table, source, settings))
    return _elsewhere(configuration) if configuration.hypervisor.name == REMOTE else configuration


def settings_of(
    named: Source = None, environ: Mapping[str, str] | None = None, report: Report = raised
) -> tuple[Path, dict[Key, Setting]]:
    """Where the configuration is, and what it and its drop-ins say, the later file's word for each key.

    Args:
        named: As for `load`.
        environ: As for `load`.
        report: Takes what cannot be read; the other files count then.

    Raises:
        ConfigurationError: There is none, or what `report` raises.
    """
    if isinstance(named, bytes):
        return RUNTIME_CLASS, parse(named, RUNTIME_CLASS)
    source = locate(named, os.environ if environ is None else environ)
    settings: dict[Key, Setting] = {}
    try:
        drop_ins = _drop_ins(source)
    except ConfigurationError as error:
        report(error)
        drop_ins = []
    for file in (source, *drop_ins):
        try:
            settings |= read(file)
        except ConfigurationError as error:
            report(error)
    return source, settings


def _contradiction(
    each: Contradiction, table: Key, source: Path, settings: Mapping[Key, Setting]
) -> ConfigurationError:
    """The error for keys that exclude each other, at the first of them that a file says."""
    for key in each.keys:
        if setting := settings.get((*table, key)):
            return fault((*table, key), setting, each.cause)
    return ConfigurationError(each.cause, file=source, key=".".join((*table, each.keys[0])))


def _elsewhere(configuration: Configuration) -> Configuration:
    """What holds for a machine that is not on this host, whatever the file says: it shares nothing with the host, and
    the adaptor says how large it is unless a pod does.

    Source: kata `pkg/katautils/config.go` (newRemoteHypervisorConfig).
    """
    hypervisor = replace(
        configuration.hypervisor,
        shared_fs="none",
        disable_block_device_use=True,
        default_vcpus=0.0,
        default_memory=0,
    )
    return replace(configuration, hypervisor=hypervisor)


def locate(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Say which file counts: the one that is named, else `KATA_CONF_FILE`, else the first of `SEARCHED` there is.

    The environment is believed only if nobody but root, or the user the shim runs as, can have written the file.

    Raises:
        NoConfiguration: There is none.
        ConfigurationError: The environment's is not to be trusted.
    """
    if path is not None:
        return path
    if named := environ.get("KATA_CONF_FILE"):
        file = Path(named)
        try:
            status = file.stat()
        except OSError as error:
            raise ConfigurationError(f"named by KATA_CONF_FILE, but: {error.strerror}", file=file) from error
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigurationError(
                "named by KATA_CONF_FILE, but others can write it", file=file, hint="chown root and chmod go-w"
            )
        return file
    for file in SEARCHED:
        if file.exists():
            return file
    raise NoConfiguration(
        f"no configuration: none of {', '.join(map(str, SEARCHED))} is there",
        hint="configs/configuration-qemu.toml is one to start from",
    )


def _drop_ins(source: Path) -> list[Path]:
    """The files in `config.d` beside the main file, links resolved, in lexical order.

    Hidden ones are passed over: an editor's, or the `..data` of a mounted ConfigMap.
    """
    directory = source.resolve().parent / "config.d"
    try:
        return sorted(file for file in directory.iterdir() if not file.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=directory) from error


def _tables(settings: Iterable[tuple[Key, Setting]], report: Report) -> dict[Key, dict[str, Setting]]:
    """The settings by table, then by key."""
    tables: dict[Key, dict[str, Setting]] = {}
    unknown: set[Key] = set()  # told once, however many keys they have
    for key, setting in settings:
        table = next((key[:size] for size in (1, 2) if _is_table(key[:size])), None)
        if table is None:
            table = key if setting.value == {} or len(key) == 1 else key[:-1]
            known = nearest(".".join(table), ("hypervisor.qemu", "agent.kata", "runtime", "factory"))
            if table not in unknown:
                hint = f"the nearest valid table is [{known}]"
                report(fault(table, setting, f"unknown table [{'.'.join(table)}]", hint))
            unknown.add(table)
        elif key != table:
            tables.setdefault(table, {})[".".join(key[len(table) :])] = setting
        elif setting.value == {}:
            tables.setdefault(table, {})
        else:
            report(fault(key, setting, f"{'.'.join(key)} must be a table", f"write [{'.'.join(key)}]"))
    return tables


def _is_table(key: Key) -> bool:
    return key in (_AGENT, _RUNTIME, _FACTORY) or (len(key) == 2 and key[0] == "hypervisor")


def _one_root(table: Key, entries: Mapping[str, Setting], report: Report) -> None:
    """An initrd stands in the place of the image that is there by default, but not of one that is asked for."""
    asked = [name for name in ("image", "initrd") if name in entries and entries[name].value != ""]
    if len(asked) == 2:
        cause = f"both image and initrd in [{'.'.join(table)}]: the guest has one root file system"
        report(fault((*table, "initrd"), entries["initrd"], cause, "leave one of them in"))
