"""Whose machines are."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_caa import owner
from kata_caa.errors import SettingError
from kata_caa.owner import owner_of_this_node


def test_two_nodes_of_one_name_are_told_apart_by_their_machine_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = set()
    for identity in ("one", "two"):
        file = tmp_path / identity
        file.write_text(identity)
        monkeypatch.setattr(owner, "_MACHINE_IDS", (tmp_path / "missing", file))
        names.add(owner_of_this_node("", {"NODE_NAME": "worker-0"}))
    assert len(names) == 2
    assert all(name.startswith("worker-0-") for name in names)


def test_what_is_configured_counts(monkeypatch: pytest.MonkeyPatch):
    assert owner_of_this_node("mine", {"NODE_NAME": "worker-0"}) == "mine"


def test_a_machine_without_an_id_must_be_told_whose_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(owner, "_MACHINE_IDS", ())
    with pytest.raises(SettingError, match="name one that no other node has"):
        owner_of_this_node("", {})
