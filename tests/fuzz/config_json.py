"""A bundle's config.json, on its way to the agent: a spec in the agent's form, or a SpecError."""

from __future__ import annotations

from kata_py.oci import wire
from kata_py.oci.errors import SpecError
from kata_py.oci.load import _parse, parse_process, parse_resources
from kata_py.oci.spec import Spec
from tests.bundle import process, spec
from tests.fuzz.documents import as_json, deep, replaced, values
from tests.fuzz.target import Target, mutated

_RESOURCES = {
    "memory": {"limit": 1 << 27, "swap": -1}, "cpu": {"shares": 1024, "quota": -1, "period": 100_000, "cpus": "0"},
    "pids": {"limit": 7}, "devices": [{"allow": False, "access": "rwm"}], "unified": {"memory.high": "max"},
    "blockIO": {"weight": 10}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
}  # fmt: skip
_FULL = spec("c1", "rootfs", process(["true"]))
_FULL = {
    **_FULL, "annotations": {"a": "b"}, "hostname": "h", "hooks": {"poststop": [{"path": "/x"}]},
    "linux": {**_FULL.get("linux", {}), "resources": _RESOURCES, "sysctl": {"a": "1"}},
}  # fmt: skip
_documents = replaced(_FULL) | replaced(_FULL["process"]) | replaced(_RESOURCES) | values


def check(text: bytes) -> None:
    try:
        back = wire.from_agent(wire.to_agent(_parse(text, Spec, "config.json")))
        assert wire.to_agent(back) == wire.to_agent(wire.from_agent(wire.to_agent(back)))
    except SpecError:
        pass
    try:
        wire.process_to_agent(parse_process(text))
    except SpecError:
        pass
    try:
        wire.resources_to_agent(parse_resources(text))
    except SpecError:
        pass


_texts = _documents.map(as_json)
TARGET = Target("config_json", _texts | mutated(_texts) | deep, check, bytes)
