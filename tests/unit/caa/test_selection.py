"""Which type of machine a pod gets, and what is tried in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_caa.errors import Fault, ProviderError, SettingError
from kata_caa.providers.api import InstanceSpec
from kata_caa.selection import Candidate, InstanceType, Spot, candidates, choose, fallbacks, fits

SMALL = InstanceType("small", 2, 2048)
WIDE = InstanceType("wide", 8, 4096)
LARGE = InstanceType("large", 4, 8192)
GPU = InstanceType("gpu", 4, 1024, gpus=1)
TYPES = (LARGE, GPU, WIDE, SMALL)
NAMES = tuple(type.name for type in TYPES)


def chosen(spec: InstanceSpec, *, default: str = "small", allowed: tuple[str, ...] = NAMES) -> str:
    return choose(spec, TYPES, default, allowed).name


def test_a_type_that_the_pod_names_comes_before_all_numbers():
    assert chosen(InstanceSpec(instance_type="large", vcpus=1, memory=1, gpus=1)) == "large"


def test_a_pod_that_asks_for_nothing_gets_the_default():
    assert chosen(InstanceSpec()) == "small"


@pytest.mark.parametrize("spec", [InstanceSpec(vcpus=8), InstanceSpec(memory=8192)])
def test_processors_or_memory_alone_do_not_size_a_machine(spec):
    assert chosen(spec) == "small"


def test_the_default_need_not_be_in_the_list():
    assert chosen(InstanceSpec(), allowed=("large",)) == "small"
    assert chosen(InstanceSpec(vcpus=1, memory=1), allowed=("large",)) == "large"


def test_a_search_by_halves_would_miss_the_type_that_fits():
    # By memory: small, wide, large. Eight processors has the one in the middle alone.
    assert chosen(InstanceSpec(vcpus=8, memory=2048)) == "wide"


def test_types_with_gpus_are_for_those_who_ask_for_gpus():
    assert chosen(InstanceSpec(vcpus=4, memory=1024)) == "wide"
    assert chosen(InstanceSpec(gpus=1)) == "gpu"


def test_the_price_decides_between_types_of_one_size():
    dear, cheap, unknown = (InstanceType(name, 2, 2048, price=price) for name, price in
                            (("a-dear", 2.0), ("b-cheap", 1.0), ("a-unknown", None)))  # fmt: skip
    assert choose(InstanceSpec(vcpus=1, memory=1), (dear, unknown, cheap), "x", ("a-dear", "b-cheap")).name == "b-cheap"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (InstanceSpec(vcpus=16, memory=1), r"no instance type found for the given vcpus \(16\) and memory \(1\)"),
        (InstanceSpec(gpus=2), r"no instance type found for the given GPUs \(2\), vCPUs \(0\), and memory \(0\)"),
    ],
)
def test_an_error_has_the_words_users_know_and_says_what_there_is(spec, words):
    with pytest.raises(ProviderError, match=words) as error:
        chosen(spec)
    assert error.value.fault is Fault.FATAL
    assert error.value.hint == (
        "there is: small (2 vCPUs, 2048 MiB), wide (8 vCPUs, 4096 MiB), large (4 vCPUs, 8192 MiB),"
        " gpu (4 vCPUs, 1024 MiB, 1 GPUs)"
    )


def test_a_type_outside_the_list_is_refused():
    with pytest.raises(ProviderError, match=r'^requested instance type \("gpu"\) is not part of supported') as error:
        chosen(InstanceSpec(instance_type="gpu"), allowed=("small", "large"))
    assert error.value.hint == "there is: small, large"


def test_an_empty_list_allows_the_default_alone():
    assert chosen(InstanceSpec(instance_type="small"), allowed=()) == "small"
    with pytest.raises(ProviderError, match=r'is not default \("small"\) and supported instance types list is empty'):
        chosen(InstanceSpec(instance_type="large"), allowed=())
    with pytest.raises(ProviderError, match="no instance type found"):
        chosen(InstanceSpec(vcpus=4, memory=1), allowed=())


SIZES = st.integers(0, 6)
SOME_TYPES = st.lists(st.tuples(SIZES, SIZES, SIZES), max_size=12).map(
    lambda sizes: [InstanceType(f"t{number}", *size) for number, size in enumerate(sizes)]
)


@given(SOME_TYPES, st.integers(1, 6), st.integers(1, 6), SIZES)
def test_the_smallest_type_that_fits_is_found_whenever_there_is_one(types, vcpus, memory, gpus):
    spec = InstanceSpec(vcpus=vcpus, memory=memory, gpus=gpus)
    fitting = [type for type in types if fits(type, spec)]
    try:
        found = choose(spec, types, "none", [type.name for type in types] or ["none"])
    except ProviderError:
        assert not fitting
        return
    assert found in fitting
    assert found.gpus >= gpus
    assert found.memory >= memory
    assert found.vcpus >= vcpus
    assert not [t for t in fitting if (t.gpus, t.memory, t.vcpus) < (found.gpus, found.memory, found.vcpus)]


def test_types_that_stand_in_keep_their_order_and_have_what_the_pod_asked_for():
    spec = InstanceSpec(vcpus=2, memory=4096)
    assert fallbacks(WIDE, spec, TYPES, ("gpu", "large", "small", "wide", "unknown", "large")) == (LARGE,)


def test_for_a_pod_that_named_its_type_only_types_stand_in_that_are_nowhere_smaller():
    assert fallbacks(SMALL, InstanceSpec(instance_type="small"), TYPES, ("large", "wide")) == (LARGE, WIDE)
    assert fallbacks(LARGE, InstanceSpec(instance_type="large"), TYPES, ("small", "wide")) == ()


def test_for_a_pod_that_asked_for_nothing_the_operators_list_counts():
    assert fallbacks(WIDE, InstanceSpec(), TYPES, ("small", "gpu")) == (SMALL,)


def test_the_type_changes_last_and_the_place_first():
    assert list(candidates(("a", "b"), ("x", "y"), Spot.PREFER)) == [
        Candidate("a", "x", True), Candidate("a", "y", True), Candidate("a", "x"), Candidate("a", "y"),
        Candidate("b", "x", True), Candidate("b", "y", True), Candidate("b", "x"), Candidate("b", "y"),
    ]  # fmt: skip


def test_without_places_the_cloud_chooses_one():
    assert list(candidates(("a",), (), Spot.NO)) == [Candidate("a")]
    assert list(candidates(("a",), ("x",), Spot.ONLY)) == [Candidate("a", "x", True)]


def test_a_candidate_reads_well():
    assert str(Candidate("a", "x", True)) == "a in x (spot)"
    assert str(Candidate("a")) == "a"


def test_spot_is_one_of_three_words():
    assert [Spot.parse(text, "USE_SPOT") for text in ("", " Prefer", "only")] == [Spot.NO, Spot.PREFER, Spot.ONLY]
    with pytest.raises(SettingError, match=r"^USE_SPOT: 'yes' is none of no, prefer, only$"):
        Spot.parse("yes", "USE_SPOT")
