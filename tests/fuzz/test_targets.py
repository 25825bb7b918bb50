"""Each target with a few inputs, and with those that once did harm; `make fuzz` gives each of them a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import TARGETS, load
from tests.fuzz.target import PATIENCE, Target

EXAMPLES = 40


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES, deadline=PATIENCE * 1000, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_the_input_a_target_keeps_its_word(name: str, data: st.DataObject) -> None:
    target: Target[Any] = load(name)
    target.check(data.draw(target.inputs))


@pytest.mark.parametrize(
    "file", [pytest.param((name, file), id=f"{name}/{file.name}") for name in TARGETS for file in load(name).corpus]
)
def test_an_input_that_once_did_harm_does_none(file: tuple[str, Path]) -> None:
    target = load(file[0])
    target.check(target.of_bytes(file[1].read_bytes()))
