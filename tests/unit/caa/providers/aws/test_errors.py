"""EC2's error codes."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from kata_caa.errors import Fault
from kata_caa.providers.aws.errors import TABLE, is_busy, is_missing, meaning, translate


def answer(code: str, message: str = "", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "RunInstances"
    )


def test_at_least_forty_codes_are_known_and_each_has_words():
    assert len(TABLE) >= 40
    for code, known in TABLE.items():
        assert known.words, code
        assert known.words[-1] not in ".!", code
        assert known.hint or code.startswith(("Invalid", "Validation", "Unsupported")), code


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("InsufficientInstanceCapacity", Fault.CAPACITY),
        ("Unsupported", Fault.CAPACITY),
        ("InsufficientFreeAddressesInSubnet", Fault.CAPACITY),
        ("VcpuLimitExceeded", Fault.QUOTA),
        ("InstanceLimitExceeded", Fault.QUOTA),
        ("MaxSpotInstanceCountExceeded", Fault.QUOTA),
        ("RequestLimitExceeded", Fault.THROTTLE),
        ("InternalError", Fault.TRANSIENT),
        ("UnauthorizedOperation", Fault.FATAL),
        ("InvalidAMIID.NotFound", Fault.FATAL),
        ("InvalidParameterCombination", Fault.FATAL),
    ],
)
def test_a_code_has_its_kind(code, fault):
    error = translate(answer(code, "in EC2's words", 500 if code == "InsufficientInstanceCapacity" else 400))
    assert (error.fault, error.code) == (fault, code)
    assert error.hint or code == "InvalidParameterCombination"


@pytest.mark.parametrize(("status", "fault"), [(500, Fault.TRANSIENT), (503, Fault.TRANSIENT), (400, Fault.FATAL)])
def test_an_unknown_code_passes_only_where_the_trouble_is_the_clouds_own(status, fault):
    error = translate(answer("BrandNew", "something new", status))
    assert (error.fault, error.cause, error.code) == (fault, "something new", "BrandNew")


def test_ec2s_words_are_kept_in_one_line_of_bounded_length():
    error = translate(answer("InvalidSubnet", "line\n  line " + "x" * 1000))
    assert error.cause.startswith("the subnet cannot be used: line line xxx")
    assert len(error.cause) < 350


@pytest.mark.parametrize("code", ["InvalidParameterCombination", "InvalidParameterValue", "UnsupportedOperation"])
def test_a_machine_that_cannot_be_confidential_is_explained(code):
    error = translate(answer(code, "The CPU option AmdSevSnp is not supported for t3.small"))
    assert error.fault is Fault.FATAL
    assert "cannot be confidential (AMD SEV-SNP)" in error.cause
    assert "DISABLECVM=true" in error.hint


def test_where_another_zone_may_have_it_it_is_tried():
    assert meaning("Unsupported", "AmdSevSnp is not supported in this zone").fault is Fault.CAPACITY


def test_a_state_reason_is_a_code_too():
    assert meaning("Server.InsufficientInstanceCapacity").fault is Fault.CAPACITY
    assert meaning("Client.VolumeLimitExceeded").fault is Fault.QUOTA


@pytest.mark.parametrize(
    ("raised", "fault", "words"),
    [
        (EndpointConnectionError(endpoint_url="http://x"), Fault.TRANSIENT, "the cloud does not answer"),
        (ReadTimeoutError(endpoint_url="http://x"), Fault.TRANSIENT, "the cloud does not answer"),
        (ResponseParserError("no XML"), Fault.TRANSIENT, "the cloud does not answer: no XML"),
        (NoCredentialsError(), Fault.FATAL, "AWS_ACCESS_KEY_ID"),
        (NoRegionError(), Fault.FATAL, "AWS_REGION"),
        (ProfileNotFound(profile="p"), Fault.FATAL, "profile"),
        (ParamValidationError(report="Unknown parameter"), Fault.FATAL, "Unknown parameter"),
    ],
)
def test_errors_without_an_answer_have_a_kind(raised, fault, words):
    error = translate(raised)
    assert error.fault is fault
    assert words in str(error)


def test_what_is_not_there_or_still_busy_is_known():
    assert is_missing(meaning("InvalidInstanceID.NotFound"))
    assert not is_missing(meaning("InvalidInstanceID.Malformed"))
    assert is_busy(meaning("VolumeInUse"))
    assert not is_busy(meaning("UnauthorizedOperation"))
