"""What a configuration comes to: each key with the value that counts, and where that was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from kata_py.config import meaning
from kata_py.config.bind import described, excerpt, nearest, section, types_of
from kata_py.config.errors import ConfigurationError
from kata_py.config.file import Key, Setting
from kata_py.config.load import configured, settings_of
from kata_py.config.model import AgentConfig, HypervisorConfig, RuntimeConfig, Source
from kata_py.config.rules import RULES
from kata_py.config.upstream import NOT_HONOURED, OURS, PENDING

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key.

    Attributes:
        table: Its table, `hypervisor.qemu`.
        key: Its name in it.
        value: What counts, as TOML or JSON would have it.
        origin: `FILE:LINE`, or `default`.
    """

    table: str
    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A key, explained.

    Attributes:
        entry: What counts, and where that was said.
        meaning: What it is for; several keys may share a paragraph.
        type: What it may be, in words.
        default: What counts where nothing is said.
        annotations: Those of a pod that say it instead, where the configuration lets it.
        honoured: False for a key that is accepted and has no effect yet.
        upstream: Whether upstream knows the key.
    """

    entry: Entry
    meaning: str
    type: str
    default: object
    annotations: tuple[str, ...]
    honoured: bool
    upstream: bool


def effective(named: Source = None, environ: Mapping[str, str] | None = None) -> list[Entry]:
    """All keys, in the order of the model.

    Raises:
        ConfigurationError: As `load`.
    """
    return [entry for _, entry in _entries(named, environ)]


def explain(name: str, named: Source = None, environ: Mapping[str, str] | None = None) -> list[Explanation]:
    """The keys of that name: `default_memory`, or `runtime.enable_debug` where tables share one.

    Raises:
        ConfigurationError: There is none of that name, or as `load`.
    """
    every = list(_entries(named, environ))
    found = [_explained(shape, entry) for shape, entry in every if name in (entry.key, f"{entry.table}.{entry.key}")]
    if found := found or [
        each for each in _foreign() if name in (each.entry.key, f"{each.entry.table}.{each.entry.key}")
    ]:
        return found
    hint = f"the nearest is {nearest(name.rpartition('.')[2], [entry.key for _, entry in every])}"
    raise ConfigurationError(f"there is no key {name}", hint=hint)


def _foreign() -> Iterator[Explanation]:
    """Upstream's keys that the model has not."""
    for table, keys in NOT_HONOURED.items():
        for key, accepted in keys.items():
            yield Explanation(
                entry=Entry(table, key, "", DEFAULT),
                meaning="upstream's alone: accepted where it changes nothing here",
                type="anything" if accepted is None else " or ".join(map(excerpt, accepted)),
                default="",
                annotations=(),
                honoured=False,
                upstream=True,
            )


def _entries(named: Source, environ: Mapping[str, str] | None) -> Iterator[tuple[type, Entry]]:
    source, settings = settings_of(named, environ)
    configuration = configured(source, settings)
    tables: tuple[tuple[Key, HypervisorConfig | AgentConfig | RuntimeConfig], ...] = (
        (("hypervisor", configuration.hypervisor.name), configuration.hypervisor),
        (("agent", "kata"), configuration.agent),
        (("runtime",), configuration.runtime),
    )
    for table, values in tables:
        for field in fields(values):
            if (table[0], field.name) != ("hypervisor", "name"):
                value = _plain(getattr(values, field.name))
                yield type(values), Entry(".".join(table), field.name, value, _origin((*table, field.name), settings))


def _origin(key: Key, settings: Mapping[Key, Setting]) -> str:
    if key not in settings:
        return DEFAULT
    file = settings[key].file
    line = file.line(key)
    return f"{file.path}:{line}" if line else str(file.path)


def _explained(shape: type, entry: Entry) -> Explanation:
    [field] = [field for field in fields(shape) if field.name == entry.key]
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    table = section(tuple(entry.table.split(".")))
    return Explanation(
        entry=entry,
        meaning=meaning.of(shape, entry.key),
        type=described(types_of(shape)[entry.key]),
        default=_plain(default),
        annotations=tuple(n for n, rule in RULES.items() if (rule.section, rule.key) == (table, entry.key)),
        honoured=entry.key not in PENDING.get(table, {}),
        upstream=entry.key not in OURS.get(table, ()),
    )


def _plain(value: object) -> object:
    """A value as TOML has it: what is not there is an empty string."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
