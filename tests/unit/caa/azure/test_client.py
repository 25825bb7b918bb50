"""How Azure is opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.azure.client import connect
from kata_caa.providers.azure.config import AzureConfig

CONFIG = AzureConfig(subscription_id="s", tenant_id="11111111-1111-1111-1111-111111111111", client_id="c")


@pytest.fixture(autouse=True)
def nothing_of_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name, raising=False)


async def test_without_secret_and_workload_identity_there_is_nothing_to_open():
    with pytest.raises(ProviderError, match="no credentials for Azure") as caught:
        async with connect(CONFIG):
            pass
    assert caught.value.fault is Fault.FATAL
    assert "AZURE_FEDERATED_TOKEN_FILE" in caught.value.hint


async def test_a_secret_is_enough():
    async with connect(dataclasses.replace(CONFIG, secret="x")) as arm:
        assert arm.compute is not None


async def test_a_workload_identity_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    async with connect(CONFIG) as arm:
        assert arm.network is not None
