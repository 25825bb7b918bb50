"""Command lines in Go's form."""

from __future__ import annotations

import pytest

from kata_caa.errors import SettingError
from kata_caa.flags import parse

FLAGS, BOOLEANS = {"socket", "port", "verify"}, {"verify"}


@pytest.mark.parametrize("words", [["-port", "1"], ["--port", "1"], ["-port=1"], ["--port=1"]])
def test_a_value_stands_behind_the_flag_or_an_equals_sign(words):
    assert parse(words, FLAGS, BOOLEANS) == ({"port": ["1"]}, [])


def test_a_boolean_needs_no_value_and_takes_none_that_stands_apart():
    assert parse(["-verify", "x"], FLAGS, BOOLEANS) == ({"verify": ["true"]}, ["x"])
    assert parse(["-verify=false"], FLAGS, BOOLEANS) == ({"verify": ["false"]}, [])


def test_a_flag_that_is_given_twice_has_both_values():
    assert parse(["-port", "1", "-port=2"], FLAGS, BOOLEANS)[0] == {"port": ["1", "2"]}


def test_flags_end_at_the_first_word_or_at_two_dashes():
    assert parse(["-port", "1", "word", "-socket", "x"], FLAGS, BOOLEANS)[1] == ["word", "-socket", "x"]
    assert parse(["--", "-port"], FLAGS, BOOLEANS) == ({}, ["-port"])


@pytest.mark.parametrize(
    ("words", "said"), [(["-nope"], "not defined: -nope"), (["-port"], "needs an argument: -port")]
)
def test_what_cannot_be_understood_is_an_error_that_names_the_flag(words, said):
    with pytest.raises(SettingError, match=said):
        parse(words, FLAGS, BOOLEANS)
