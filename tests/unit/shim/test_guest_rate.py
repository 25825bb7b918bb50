from __future__ import annotations

import logging

import pytest

from kata_py.shim.guest_rate import BURST, GUEST, RATE, GuestRate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(name: str) -> logging.LogRecord:
    return logging.makeLogRecord({"name": name})


@pytest.mark.parametrize("name", sorted(GUEST))
def test_a_guest_that_floods_its_log_keeps_its_share_and_what_was_dropped_is_told(name: str) -> None:
    clock = Clock()
    rate = GuestRate(clock)
    assert sum(rate.filter(line(name)) for _ in range(BURST + 50)) == BURST
    clock.now = 1.0
    first = line(name)
    assert rate.filter(first)
    assert vars(first)["dropped"] == 50
    assert sum(rate.filter(line(name)) for _ in range(1000)) == RATE - 1


def test_the_hosts_own_lines_always_pass() -> None:
    rate = GuestRate(Clock())
    for name in GUEST:
        for _ in range(BURST):
            rate.filter(line(name))
    assert all(rate.filter(line("kata_py.sandbox.sandbox")) for _ in range(BURST))


@pytest.mark.parametrize("name", sorted(GUEST))
def test_the_names_are_those_of_loggers_that_there_are(name: str) -> None:
    module = __import__(name, fromlist=["log"])
    logger = getattr(module, "log", None) or module.logger
    assert logger.name == name
