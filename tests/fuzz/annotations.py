"""A pod's annotations: a configuration and a size, or a ConfigurationError."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hypothesis import strategies as st

from kata_py.config.annotations import annotated
from kata_py.config.errors import ConfigurationError
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.config.rules import CONFIG, HASH_TYPES, HASHES, POLICY, RULES
from kata_py.config.size import _CONTAINERD, _FIELDS, _OVERHEAD, _RESOURCES, SandboxSize
from tests.fuzz.documents import deep, numbers, replaced, texts, values
from tests.fuzz.target import Target

_SOURCE = Path("/etc/kata-containers/configuration.toml")
_SIZES = [_CONTAINERD + name for name in ("cpu-period", "cpu-quota", "cpu-shares", "memory")]
_CRIO = [*_RESOURCES, *_OVERHEAD]
_names = st.sampled_from([*RULES, *HASHES, *HASH_TYPES, POLICY, *_SIZES, *_CRIO]) | texts.map(CONFIG.__add__) | texts
_texts = (
    texts | numbers.map(str) | values.map(json.dumps) | deep.map(bytes.decode)
    | replaced(dict.fromkeys(_FIELDS, 1)).map(json.dumps)
)  # fmt: skip


def check(annotations: dict[str, str]) -> None:
    for name in ("qemu", "remote"):
        try:
            annotated(Configuration(HypervisorConfig(name, enable_annotations=(".*",)), _SOURCE), annotations, cpus=8)
        except ConfigurationError as error:
            said = str(error)
            if len(said) > 2000:
                raise AssertionError("a refusal without end") from error
    try:
        size = SandboxSize.of(annotations)
    except ConfigurationError:
        return
    assert math.isfinite(size.vcpus)
    assert size.memory >= 0


TARGET = Target("annotations", st.dictionaries(_names, _texts, max_size=5), check, lambda data: dict(json.loads(data)))
