"""What is written as TOML is read back as it was."""

from __future__ import annotations

import datetime
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.config import toml

_TIMES = st.datetimes() | st.dates() | st.times()
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _TEXTS | _TIMES
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(_TEXTS, _VALUES, max_size=4))
def test_every_value_comes_back(table: dict[str, object]) -> None:
    assert tomllib.loads(toml.dumps(table)) == table


def test_a_document_looks_as_people_write_it() -> None:
    table = {"crio": {"runtime": {"root": "/x", "runtimes": {"a.b": {"on": True, "list": [1, "two"]}, "empty": {}}}}}
    assert toml.dumps(table) == (
        '\n[crio.runtime]\nroot = "/x"\n\n[crio.runtime.runtimes."a.b"]\non = true\nlist = [1, "two"]\n\n'
        "[crio.runtime.runtimes.empty]\n"
    )


def test_numbers_that_are_none_come_back() -> None:
    assert math.isnan(tomllib.loads(toml.dumps({"x": math.nan}))["x"])
    with_zone = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert tomllib.loads(toml.dumps({"x": with_zone})) == {"x": with_zone}


def test_what_toml_has_no_form_for_is_refused() -> None:
    with pytest.raises(ValueError, match="no value of TOML's"):
        toml.dumps({"x": None})
