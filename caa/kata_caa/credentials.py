"""What machines' forwarders prove themselves with, as those who have machines made get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kata_caa import apf


@dataclass(frozen=True, slots=True)
class Issued:
    """What a new machine is given to prove itself with.

    Attributes:
        material: With what it is dialled; kept with its pod.
        config: Key, certificate, whom to trust and how; the rest of the value is empty.
    """

    material: str
    config: apf.ForwarderConfig


class Credentials(Protocol):
    """Makes what a machine's forwarder proves itself with."""

    def issue(self, name: str) -> Issued:
        """For a machine of that name. Blocks for some milliseconds.

        Raises:
            AdaptorError: There is nothing to make it with.
        """
