"""configuration.toml, as a file or in a runtime class's options: a configuration, or a ConfigurationError."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import strategies as st

from kata_py.config.errors import ConfigurationError
from kata_py.config.load import load
from kata_py.config.model import AgentConfig, HypervisorConfig, RuntimeConfig
from kata_py.config.upstream import NOT_HONOURED
from tests.fuzz.documents import deep, texts, values
from tests.fuzz.target import Target, mutated

_TABLES = {
    "hypervisor.qemu": ("hypervisor", HypervisorConfig), "hypervisor.remote": ("hypervisor", HypervisorConfig),
    "agent.kata": ("agent.kata", AgentConfig), "runtime": ("runtime", RuntimeConfig),
}  # fmt: skip
_DATES = st.sampled_from(["1979-05-27", "07:32:00", "1979-05-27T00:32:00.999999-07:00", "1979-13-01"])


def _toml(value: object) -> str:
    match value:
        case None:
            return "''"
        case float():
            return repr(value)
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{json.dumps(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
        case _:
            return json.dumps(value)


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    lines = []
    for table in draw(st.lists(st.sampled_from([*_TABLES]), unique=True, max_size=3)):
        section, shape = _TABLES[table]
        lines.append(f"[{table}]")
        names = sorted({field.name for field in fields(shape)} | NOT_HONOURED[section].keys())
        keys = st.sampled_from(names) | texts.map(json.dumps)
        for key in draw(st.lists(keys, unique=True, max_size=5)):
            lines.append(f"{key} = {draw(values.map(_toml) | _DATES)}")
    return "\n".join(lines).encode(errors="surrogatepass")


_dotted = st.integers(1, 2000).map(lambda depth: b"[" + b".".join([b"a"] * depth) + b"]")


def check(text: bytes) -> None:
    try:
        load(text)
    except ConfigurationError:
        pass


TARGET = Target("toml", _files() | mutated(_files()) | _dotted | deep.map(lambda text: b"x = " + text), check, bytes)
