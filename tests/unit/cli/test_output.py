from __future__ import annotations

import sys

import pytest

from kata_py.cli.output import print_guests

SAID = b"*filter\n\tx\x1b[2J\x07\xc2\x9b31m \xc3\xa9\n"


def test_what_a_guest_said_goes_to_a_file_as_it_is(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_guests(SAID)
    assert capfdbinary.readouterr().out == SAID


def test_a_terminal_gets_no_commands_of_a_guests(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_guests(SAID)
    assert capfdbinary.readouterr().out == b"*filter\n\tx?[2J??31m \xc3\xa9\n"
