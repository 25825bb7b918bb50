"""Azure's error codes as kinds of failure."""

from __future__ import annotations

import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ODataV4Format,
    ServiceRequestError,
)

from kata_caa.errors import Fault
from kata_caa.providers.azure.errors import TABLE, translate


def answer(code: str, message: str = "words", status: int = 400, details: list[dict[str, str]] | None = None):
    error = HttpResponseError(message)
    error.status_code = status
    if code:
        error.error = ODataV4Format({"code": code, "message": message, "details": details or []})
    return error


@pytest.mark.parametrize("code", TABLE)
def test_each_code_has_a_kind_words_and_a_hint(code: str):
    error = translate(answer(code), "making the machine")
    assert error.fault is TABLE[code].fault
    assert error.code == code
    assert error.cause.startswith("making the machine: ")
    assert error.hint
    assert not error.cause.endswith(".")


def test_there_are_at_least_forty_codes_and_every_kind():
    assert len(TABLE) >= 40
    assert {meaning.fault for meaning in TABLE.values()} == set(Fault)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("SkuNotAvailable", Fault.CAPACITY), ("ZonalAllocationFailed", Fault.CAPACITY),
        ("QuotaExceeded", Fault.QUOTA), ("SubnetIsFull", Fault.QUOTA), ("TooManyRequests", Fault.THROTTLE),
        ("RetryableError", Fault.TRANSIENT), ("AuthorizationFailed", Fault.FATAL), ("ImageNotFound", Fault.FATAL),
    ],
)  # fmt: skip
def test_the_kind_tells_what_helps(code: str, fault: Fault):
    assert translate(answer(code), "x").fault is fault


@pytest.mark.parametrize(
    ("code", "words", "fault"),
    [
        ("OperationNotAllowed", "results in exceeding approved Total Regional Cores quota", Fault.QUOTA),
        ("OperationNotAllowed", "Disk d is attached to VM v", Fault.TRANSIENT),
        ("OperationNotAllowed", "something else", Fault.FATAL),
    ],
)
def test_one_code_for_different_things_is_told_apart_by_its_words(code: str, words: str, fault: Fault):
    assert translate(answer(code, words, 409), "x").fault is fault


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (500, Fault.TRANSIENT), (503, Fault.TRANSIENT), (408, Fault.TRANSIENT), (429, Fault.THROTTLE),
        (400, Fault.FATAL), (401, Fault.FATAL), (403, Fault.FATAL), (409, Fault.FATAL),
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", ["NeverHeardOf", ""])
def test_an_unknown_code_is_judged_by_its_status(code: str, status: int, fault: Fault):
    assert translate(answer(code, status=status), "x").fault is fault


def test_a_code_that_says_nothing_gives_way_to_its_detail():
    error = answer("DeploymentFailed", details=[{"code": "SkuNotAvailable", "message": "none left"}])
    assert (translate(error, "x").code, translate(error, "x").fault) == ("SkuNotAvailable", Fault.CAPACITY)


def test_long_words_are_cut_and_stand_on_one_line():
    cause = translate(answer("BadRequest", "a\n" * 1000), "x").cause
    assert len(cause) < 400
    assert "\n" not in cause


def test_no_answer_at_all_is_a_matter_of_time_and_anything_else_is_not():
    assert translate(ServiceRequestError("refused"), "x").fault is Fault.TRANSIENT
    assert translate(AzureError("?"), "x").fault is Fault.FATAL


def test_a_token_that_cannot_be_had_tells_of_the_credentials():
    error = translate(ClientAuthenticationError("AADSTS7000215: Invalid client secret provided."), "x")
    assert error.fault is Fault.FATAL
    assert "credentials" in error.cause
    assert "AADSTS7000215" in error.cause
    assert "AZURE_CLIENT_SECRET" in error.hint
