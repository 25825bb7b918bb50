from __future__ import annotations

import pytest

from kata_py.resource.cpuset import format_cpuset, parse_cpuset


@pytest.mark.parametrize(
    ("text", "numbers", "shortest"),
    [
        ("", set(), ""),
        ("0", {0}, "0"),
        ("0-3,7", {0, 1, 2, 3, 7}, "0-3,7"),
        ("7,0-1,2\n", {0, 1, 2, 7}, "0-2,7"),
        ("3-3", {3}, "3"),
    ],
)
def test_a_list_is_read_and_written_in_its_shortest_form(text: str, numbers: set[int], shortest: str) -> None:
    assert parse_cpuset(text) == numbers
    assert format_cpuset(numbers) == shortest


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "0,,1", "0-99999999999", "1 2", "0x1"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no list of processors"):
        parse_cpuset(text)
