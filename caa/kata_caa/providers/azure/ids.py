"""ARM's ids: `/subscriptions/S/resourceGroups/G/providers/N/kind/name[/kind/name]`, in which case does not count."""

from __future__ import annotations

from dataclasses import dataclass

from kata_caa.errors import AdaptorError


class MalformedId(AdaptorError):
    """A text is no id of a resource; names it."""


@dataclass(frozen=True, slots=True)
class ResourceId:
    """What an id says.

    Attributes:
        subscription: The subscription's id.
        group: The resource group.
        provider: `Microsoft.Compute`, `Microsoft.Network`.
        kind: `virtualMachines`; of a resource in another one `virtualNetworks/subnets`.
        names: One for each part of the kind.
    """

    subscription: str
    group: str
    provider: str
    kind: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The resource's own name."""
        return self.names[-1]

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        """Read an id.

        Raises:
            MalformedId: It has another form.
        """
        parts = text.strip().removesuffix("/").split("/")
        fixed = [part.lower() for part in parts[1:6:2]]
        if (
            len(parts) < 9
            or len(parts) % 2 == 0
            or parts[0]
            or not all(parts[1:])
            or fixed != ["subscriptions", "resourcegroups", "providers"]
        ):
            raise MalformedId(
                f"{text!r:.300} is no id of the form /subscriptions/…/resourceGroups/…/providers/…/<kind>/<name>"
            )
        return cls(parts[2], parts[4], parts[6], "/".join(parts[7::2]), tuple(parts[8::2]))
