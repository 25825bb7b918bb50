"""Pods as tests and the demos run them: whoever is interrupted leaves none."""

from __future__ import annotations

import asyncio
from typing import cast

import grpc
import pytest

from tests.cri.client import Cri, CriError
from tests.cri.pods import begin
from tests.cri.proto import cri_pb2 as cri

REQUEST = cri.RunPodSandboxRequest(config=cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="pod")))


class Manager:
    """A manager that starts its pod when it is let; `calls` are the methods it was asked for."""

    def __init__(self, refusal: CriError | None = None) -> None:
        self.calls: list[str] = []
        self.asked, self.let = asyncio.Event(), asyncio.Event()
        self._refusal = refusal

    async def run_pod(self, _: cri.RunPodSandboxRequest, *, timeout: float) -> cri.RunPodSandboxResponse:
        self.asked.set()
        await self.let.wait()
        if self._refusal is not None:
            raise self._refusal
        self.calls.append("run")
        return cri.RunPodSandboxResponse(pod_sandbox_id="id")

    async def stop_pod(self, request: cri.StopPodSandboxRequest) -> None:
        self.calls.append(f"stop {request.pod_sandbox_id}")

    async def remove_pod(self, request: cri.RemovePodSandboxRequest) -> None:
        self.calls.append(f"remove {request.pod_sandbox_id}")


async def _interrupted(manager: Manager) -> None:
    """Cancel the start of a pod in its midst, let the manager go on, and wait for the end of it."""
    starting = asyncio.create_task(begin(cast(Cri, manager), REQUEST))
    await manager.asked.wait()
    starting.cancel()
    manager.let.set()
    with pytest.raises(asyncio.CancelledError):
        await starting


@pytest.mark.asyncio
async def test_a_pod_whose_start_is_interrupted_is_ended_once_it_has_started() -> None:
    manager = Manager()
    await _interrupted(manager)
    assert manager.calls == ["run", "stop id", "remove id"]


@pytest.mark.asyncio
async def test_an_interrupted_start_that_the_manager_refuses_is_an_interruption_all_the_same() -> None:
    manager = Manager(CriError("RunPodSandbox", grpc.StatusCode.UNKNOWN, "no"))
    await _interrupted(manager)
    assert manager.calls == []
