"""The log of the adaptor's commands."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx2
import pytest

from kata_caa import log
from kata_caa.errors import SettingError


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 0), ("error", 0)])
def test_requests_to_the_cluster_are_told_with_debug_alone(level: str, lines: int, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    log.begin(level)
    with httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200))) as client:
        client.get("http://cluster/api")
    assert sum("HTTP Request: GET" in each for each in caplog.messages) == lines


def test_a_level_that_there_is_not_is_refused():
    with pytest.raises(SettingError, match=r"^-log-level: 'loud' is none of debug, info, warning, error$"):
        log.begin("loud")
