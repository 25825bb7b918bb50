"""A pod's life: run, stop, remove, as often as a kubelet may ask."""

from __future__ import annotations

import pytest

from tests.cri.conftest import ON_BOTH
from tests.cri.pods import READY, Pods

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


@ON_BOTH
async def test_a_pod_runs_is_stopped_and_removed(pods: Pods) -> None:
    pod = await pods.start(pods.config())
    assert (await pod.status()).state == READY
    await pod.stop()
    await pod.remove()
    assert pod.id not in await pods.all()
