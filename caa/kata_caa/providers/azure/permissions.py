"""What the adaptor may do in Azure, as Azure itself sums it up, held against what it has to do.

Source: Azure's REST reference, "Permissions - List For Resource Group" and "List For Resource" (2022-04-01), and
"Understand Azure role definitions": an action is allowed by a grant that names it and does not take it out again;
`*` stands for anything. Deny assignments and a role's conditions are not in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from azure.core.rest import HttpRequest

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.azure.client import Arm
from kata_caa.providers.azure.errors import translated

_VERSION = "2022-04-01"
_PAGES = 100  # more are an error of whoever answers


@dataclass(frozen=True, slots=True)
class Grant:
    """What one role gives.

    Attributes:
        actions: Patterns of actions that it has.
        not_actions: Patterns of those that it has not.
    """

    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Whether it gives an action."""
        return any(_fits(each, action) for each in self.actions) and not any(
            _fits(each, action) for each in self.not_actions
        )


def lacking(grants: Sequence[Grant], actions: Iterable[str]) -> list[str]:
    """The actions that no grant gives."""
    return [action for action in actions if not any(grant.allows(action) for grant in grants)]


async def grants(arm: Arm, scope: str) -> list[Grant]:
    """All that the adaptor is given on a resource or resource group.

    Args:
        arm: Whose credentials are used.
        scope: Its id.

    Raises:
        ProviderError: Azure does not tell; the right to ask is one of its own.
    """
    found: list[Grant] = []
    url = f"{scope}/providers/Microsoft.Authorization/permissions?api-version={_VERSION}"
    stage = "asking for the adaptor's permissions"
    for _ in range(_PAGES):
        with translated(stage):
            answer = await arm.compute.send_request(HttpRequest("GET", url))
            answer.raise_for_status()
            page: object = answer.json()
        if not isinstance(page, dict) or not isinstance(page.get("value"), list):
            raise ProviderError(Fault.TRANSIENT, f"{stage}: the answer cannot be read")
        found += [
            Grant(_texts(each.get("actions")), _texts(each.get("notActions")))
            for each in page["value"]
            if isinstance(each, dict)
        ]
        if not (url := page.get("nextLink") or ""):
            return found
    raise ProviderError(Fault.TRANSIENT, f"{stage}: the answer has no end")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _fits(pattern: str, action: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE) is not None
