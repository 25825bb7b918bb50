"""What the adaptor's command puts down of its settings."""

from __future__ import annotations

import logging

import pytest

from kata_caa import command
from kata_caa.config import AdaptorConfig
from kata_caa.providers.aws.config import AwsConfig


def test_a_setting_that_would_fill_the_log_is_shortened(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    command._tell(AdaptorConfig, AdaptorConfig(initdata="x" * 1000, socket="/s"))
    assert caplog.messages == ["socket = /s", f"initdata = {'x' * 120}... (1000 characters)"]


def test_a_secret_is_never_put_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    command._tell(AwsConfig, AwsConfig(secret_key="k" * 10))
    assert caplog.messages == ["aws-secret-key = **********"]
