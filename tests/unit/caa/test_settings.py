"""Flags and environment variables of the adaptor."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kata_caa.errors import SettingError
from kata_caa.settings import Duration, digest, duration, load, setting, settings_of


@dataclass(frozen=True)
class Config:
    socket: str = setting("/run/x.sock", "socket", "SOCKET", "where it listens")
    port: int = setting(15150, "port", "PORT", "where the forwarder listens")
    verify: bool = setting(False, "verify", "VERIFY", "whether to look")
    timeout: Duration = setting(Duration(300.0), "timeout", "TIMEOUT", "how long")
    types: tuple[str, ...] = setting((), "types", "TYPES", "what is allowed")
    tags: tuple[tuple[str, str], ...] = setting((), "tags", "TAGS", "what is attached")
    key: str = setting("", "", "KEY", "a secret", secret=True)


def test_without_flags_and_variables_the_defaults_count():
    assert load(Config, {}, {}) == Config()


def test_a_flag_counts_before_a_variable_and_that_before_the_default():
    assert load(Config, {}, {"PORT": "1"}).port == 1
    assert load(Config, {"port": ["2"]}, {"PORT": "1"}).port == 2


def test_an_empty_variable_is_none():
    assert load(Config, {}, {"SOCKET": ""}).socket == "/run/x.sock"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("True", True), ("t", False), ("yes", False)])
def test_a_boolean_variable_is_true_for_1_and_true_alone(text, value):
    assert load(Config, {}, {"VERIFY": text}).verify is value


@pytest.mark.parametrize(("text", "value"), [("t", True), ("true", True), ("0", False), ("f", False)])
def test_a_boolean_flag_takes_go_s_words(text, value):
    assert load(Config, {"verify": [text]}, {"VERIFY": "1"}).verify is value


@pytest.mark.parametrize("variable", [{"PORT": "many"}, {"TIMEOUT": "soon"}, {"TAGS": "x"}])
def test_a_bad_variable_keeps_the_default(variable):
    assert load(Config, {}, variable) == Config()


@pytest.mark.parametrize(("flag", "text"), [("port", "many"), ("timeout", "soon"), ("verify", "yes"), ("tags", "x")])
def test_a_bad_flag_is_an_error_that_names_it(flag, text):
    with pytest.raises(SettingError, match=f"^-{flag}: "):
        load(Config, {flag: [text]}, {})


def test_a_list_from_the_environment_is_appended_to_by_its_flag():
    config = load(Config, {"types": ["c", "d, e"], "tags": ["k=v"]}, {"TYPES": "a,b", "TAGS": "x=y=z"})
    assert config.types == ("a", "b", "c", "d", "e")
    assert config.tags == (("x", "y=z"), ("k", "v"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("0", 0), ("1.5s", 1.5), ("-2s", -2)]
)
def test_durations_have_go_s_form(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5x", "1m5"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        duration(text)


def test_a_digest_tells_configurations_apart_but_for_their_secrets():
    assert digest(Config()) == digest(Config(key="other"))
    assert digest(Config()) != digest(Config(verify=True))


def test_a_secret_is_not_shown():
    assert "hunter2" not in repr(load(Config, {}, {"KEY": "hunter2"}))
    assert [how.secret for _, how in settings_of(Config)] == [False] * 6 + [True]
