"""What a pod's proxy is made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_caa import gateway
from kata_caa.config import AdaptorConfig
from kata_caa.gateway import Gateway
from kata_caa.record import PodRecords, State
from tests.kube import things


@pytest.mark.parametrize(("state", "reached"), [(State.STARTING, False), (State.RUNNING, True)])
async def test_the_machine_of_a_pod_that_runs_was_reached_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State, reached: bool
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(gateway, "AgentProxy", lambda *args, **options: made.append(options))
    config = AdaptorConfig(socket=str(tmp_path / "socket"))
    node = Gateway(config, PodRecords(tmp_path / "pods"))
    record = things.record()
    await node.proxy(replace(record, state=state, material=node.issue(record.instance_name).material))
    [options] = made
    assert options["reached"] is reached
    assert options["loss_after"] == config.redial_timeout
