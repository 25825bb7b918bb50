from __future__ import annotations

import logging
from itertools import count
from pathlib import Path

import pytest

from kata_qemu.console import Console
from kata_qemu.lines import Tail
from tests.drivers.journal import ListJournal


class Guest:
    """A console whose clock goes on by one at each look."""

    def __init__(self) -> None:
        self.journal = ListJournal()
        self.tail = Tail()
        self.console = Console(Path("/vm/console.sock"), self.tail, self.journal, clock=count(100).__next__)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_a_line_is_in_the_log_under_the_words_that_users_search_for(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        guest.console.take("hello")
    (record,) = caplog.records
    assert record.getMessage() == "reading guest console"
    assert record.levelno == logging.DEBUG
    assert record.__dict__["vmconsole"] == "hello"
    assert record.__dict__["console-url"] == "/vm/console.sock"
    assert guest.tail.lines == ("hello",)


def test_the_markers_end_the_stages_of_the_boot(guest: Guest) -> None:
    for line in ("Booting from ROM..kata-boot: initramfs", "insmod", "kata-boot: agent", "kata-boot: agent"):
        guest.console.take(line)
    assert guest.journal.stages == [("kernel", 100, 101), ("userland", 101, 102)]


def test_a_line_that_speaks_of_a_marker_is_none(guest: Guest) -> None:
    guest.console.take("kata-boot: initramfs is what I say first")
    assert guest.journal.stages == []
