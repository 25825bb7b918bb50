"""Status codes, spelt as gRPC spells them."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """How a call ended. Source: gRPC `codes/codes.go`, which ttrpc shares."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def of(cls, number: int) -> Code:
        """The code of that number; a number that gRPC does not know is `UNKNOWN`."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN
