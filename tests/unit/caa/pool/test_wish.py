"""The settings of the warm pool."""

from __future__ import annotations

import pytest

from kata_caa.errors import SettingError
from kata_caa.pool.wish import Budget, Wish, kind_of, wishes
from kata_caa.providers.api import InstanceSpec


def test_a_kind_is_what_a_pod_asks_for():
    found = wishes(
        [("default", "2"), ("m6a.large", "1"), ("2x4096", "3"), ("default@ami-1", "1")], multi_nic=True
    )  # fmt: skip
    assert found == (
        Wish("default", InstanceSpec(multi_nic=True), 2),
        Wish("m6a.large", InstanceSpec("m6a.large", multi_nic=True), 1),
        Wish("2x4096", InstanceSpec(vcpus=2, memory=4096, multi_nic=True), 3),
        Wish("default@ami-1", InstanceSpec(image="ami-1", multi_nic=True), 1),
    )
    assert [kind_of(each.spec) for each in found] == [each.name for each in found]


@pytest.mark.parametrize("number", ["0", "-1", "101", "two", "", "1.5", "²"])
def test_a_number_that_cannot_be_is_named(number: str):
    with pytest.raises(SettingError, match=rf"-warm-pool: default={number}: a number from 1 to 100"):
        wishes([("default", number)], multi_nic=False)


@pytest.mark.parametrize("kind", ["@ami-1", "m6a.large@"])
def test_half_a_kind_is_named(kind: str):
    with pytest.raises(SettingError, match=f"-warm-pool: '{kind}' is not TYPE, CPUSxMEMORY or default"):
        wishes([(kind, "1")], multi_nic=False)


def test_a_kind_that_comes_twice_is_named():
    with pytest.raises(SettingError, match=r"m6a\.large comes twice"):
        wishes([("m6a.large", "1"), ("m6a.large", "2")], multi_nic=False)


def test_a_budget_bounds_the_sum_of_prices():
    budget = Budget(0.3, {"small": 0.1, "large": 0.25, "default": 0.1})
    assert budget.allows(0.1 + 0.1, "small")
    assert not budget.allows(0.1, "large")
    assert budget.allows(0.2, "")
    assert not budget.allows(0.3, "")
    assert Budget().allows(1e9, "whatever")


def test_a_budget_wants_the_price_of_each_kind():
    budget = Budget(0.3, {"small": 0.1})
    budget.require("small")
    with pytest.raises(SettingError, match=r'-warm-pool-budget: the price of large is not known; write "large" = '):
        budget.require("large")
    with pytest.raises(SettingError, match="the price of default is not known"):
        budget.require("")
    Budget().require("large")
