"""What tests of the adaptor's part in a cluster have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_caa.k8s.api import Api, connected
from tests.kube.server import KubeServer


@pytest.fixture
async def api(kube: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The client, connected to the test's API server as its kubeconfig says."""
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
    async with connected() as made:
        yield made
