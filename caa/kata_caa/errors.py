"""What can go wrong in the adaptor. Statuses are made of these in `kata_caa.service` alone."""

from __future__ import annotations

import enum


class AdaptorError(Exception):
    """Root of all errors of the adaptor."""


class SettingError(AdaptorError):
    """A flag or an environment variable cannot be used; names it."""


class InvalidRequest(AdaptorError):
    """The runtime asked for what cannot be: names the field."""


class UnknownSandbox(AdaptorError):
    """There is no sandbox of that id."""


class SandboxExists(AdaptorError):
    """There is a sandbox of that id already."""


class MalformedConfig(AdaptorError):
    """A text of the pod VM (apf.json, user data, initdata) does not have its form; names the place in it."""


class DiskError(AdaptorError):
    """A pod VM's disk cannot be uploaded as it is: says why, and what to do."""


class TlsError(AdaptorError):
    """Keys or certificates cannot be used: names the file, and what to do next."""


class ProxyError(AdaptorError):
    """The agent in a pod VM cannot be reached: says where, what was met last, and how long it was tried."""


class ForwarderError(AdaptorError):
    """The forwarder in a pod VM cannot do its part: says at which stage, and what it waited for."""


class TunnelError(AdaptorError):
    """A pod's network cannot be read, or its tunnel not be made; names the namespace and what is missing in it."""


class Fault(enum.Enum):
    """What kind of failure a cloud's answer is: whether trying again helps, and when.

    FATAL needs a person (a wrong image, no permission); QUOTA needs other machines to go or a person; CAPACITY
    another type or zone, or later; THROTTLE the same later; TRANSIENT the same again.
    """

    FATAL = "fatal"
    QUOTA = "quota"
    CAPACITY = "capacity"
    THROTTLE = "throttle"
    TRANSIENT = "transient"


class ProviderError(AdaptorError):
    """A cloud could not do what it was asked for.

    Attributes:
        fault: What kind of failure it is.
        cause: In words a pod's user understands.
        code: The cloud's own code of it (`InsufficientInstanceCapacity`); may be empty.
        hint: What to do next; may be empty.
    """

    def __init__(self, fault: Fault, cause: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(cause)
        self.fault = fault
        self.cause = cause
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.cause} [{self.code}]" if self.code else self.cause
        return f"{text} ({self.hint})" if self.hint else text
