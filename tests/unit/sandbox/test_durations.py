from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kata_protos import agent_pb2, health_pb2
from kata_py.sandbox.durations import BUCKETS, Durations, Measured, of_agent
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def samples(durations: Durations) -> dict[tuple[str, str, str], float]:
    (family,) = text_string_to_metric_families(durations.text())
    assert family.type == "histogram"
    return {(s.name.removeprefix("f"), s.labels["action"], s.labels.get("le", "")): s.value for s in family.samples}


def test_calls_are_counted_in_upstreams_buckets_by_action() -> None:
    clock = Clock()
    durations = Durations("f", "Help.", clock)
    assert durations.text() == ""
    for action, milliseconds in (("create", 700), ("create", 1), ("create", 1.5), ("state", 0.2)):
        with durations.measured(action):
            clock.now += milliseconds / 1e3
    found = samples(durations)
    assert BUCKETS == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    counted = {le: found["_bucket", "create", le] for le in ("1", "2", "512", "+Inf")}
    # The clock's sums are not exact, so what lies on a bound may be on either side of it.
    assert counted["1"] <= 1
    assert (counted["2"], counted["512"], counted["+Inf"]) == (2, 2, 3)
    assert found["_count", "create", ""] == 3
    assert found["_sum", "create", ""] == pytest.approx(702.5)
    assert found["_bucket", "state", "1"] == 1


# What the agent's service takes, as upstream calls its actions; where nothing is said, the method and `Request`.
_REQUESTS = {
    "GetGuestDetails": "GuestDetailsRequest",
    "GetVolumeStats": "VolumeStatsRequest",
    "MemAgentCompactSet": "MemAgentCompactConfig",
    "MemAgentMemcgSet": "MemAgentMemcgConfig",
    "ReadStderr": "ReadStreamRequest",
    "ReadStdout": "ReadStreamRequest",
    "Version": "CheckRequest",
    "WriteStdin": "WriteStreamRequest",
}


class Answering:
    """A connection whose calls succeed."""

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        return b""


@pytest.mark.parametrize("module", [agent_pb2, health_pb2])
async def test_each_call_to_the_agent_has_upstreams_label(module: ModuleType) -> None:
    (service,) = module.DESCRIPTOR.services_by_name.values()
    assert service.methods
    for method in service.methods:
        durations = of_agent()
        await Measured(Answering(), durations).call(service.full_name, method.name, b"")
        assert {action for _, action, _ in samples(durations)} == {
            f"grpc.{_REQUESTS.get(method.name, f'{method.name}Request')}"
        }


class Failing:
    """A connection whose calls fail, but for one."""

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        if method == "WriteStdin":
            assert (service, payload, timeout, metadata) == ("grpc.AgentService", b"x", 3.0, {"a": "b"})
            return b"answer"
        raise StatusError(Code.NOT_FOUND, "no")


async def test_calls_to_the_agent_are_counted_by_the_names_of_their_requests_and_failures_too() -> None:
    durations = of_agent()
    measured = Measured(Failing(), durations)
    assert await measured.call("grpc.AgentService", "WriteStdin", b"x", timeout=3.0, metadata={"a": "b"}) == b"answer"
    with pytest.raises(StatusError):
        await measured.call("grpc.AgentService", "CreateSandbox", b"")
    text = durations.text()
    assert 'kata_shim_agent_rpc_durations_histogram_milliseconds_count{action="grpc.WriteStreamRequest"} 1' in text
    assert 'kata_shim_agent_rpc_durations_histogram_milliseconds_count{action="grpc.CreateSandboxRequest"} 1' in text
