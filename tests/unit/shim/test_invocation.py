from __future__ import annotations

import pytest

from kata_py.shim.errors import UsageError
from kata_py.shim.invocation import Invocation

CONTAINERD = "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id box"


def read(text: str) -> Invocation:
    return Invocation(text.split())


def test_containerds_start_is_read() -> None:
    invocation = read(f"{CONTAINERD} -debug start")
    assert (invocation.action, invocation.namespace, invocation.id) == ("start", "k8s.io", "box")
    assert invocation.address == "/run/containerd/containerd.sock"
    assert invocation.debug


def test_crios_empty_address_is_a_value() -> None:
    invocation = Invocation(["-namespace", "default", "-address", "", "-publish-binary", "/c", "-id", "box", "start"])
    assert (invocation.address, invocation.id, invocation.action) == ("", "box", "start")


def test_deletes_bundle_is_the_flags_and_else_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    assert read(f"{CONTAINERD} -bundle /run/b delete").bundle == "/run/b"
    assert read(f"{CONTAINERD} -bundle b delete").bundle == f"{here}/b"
    assert read(f"{CONTAINERD} delete").bundle == str(here)


def test_the_daemon_gets_the_words_without_the_action() -> None:
    assert read(f"{CONTAINERD} -debug start").rest == f"{CONTAINERD} -debug".split()


@pytest.mark.parametrize("words", ["--id box", "-id=box", "--id=box"])
def test_flags_have_gos_forms(words: str) -> None:
    assert read(words).id == "box"


@pytest.mark.parametrize(("word", "switched"), [("-debug", True), ("-debug=true", True), ("-debug=false", False)])
def test_a_switch_may_have_a_value_behind_an_equals_sign(word: str, switched: bool) -> None:
    assert read(word).debug is switched


@pytest.mark.parametrize("unknown", ["-new", "-new value", "-new=value", "--new value -other"])
@pytest.mark.parametrize("before", [True, False])
def test_an_unknown_flag_is_no_error_wherever_it_stands(unknown: str, before: bool) -> None:
    invocation = read(f"{unknown} -id box start" if before else f"-id box {unknown} start")
    assert (invocation.id, invocation.action) == ("box", "start")


@pytest.mark.parametrize("words", ["restart", "start now", "-id box start delete"])
def test_another_word_is_an_error_that_names_it(words: str) -> None:
    with pytest.raises(UsageError, match=f"unexpected word '{words.split()[-1]}'"):
        read(words)


def test_a_socket_may_be_given_as_path_or_address() -> None:
    assert read("-socket /s").socket == read("-socket unix:///s").socket == "/s"
