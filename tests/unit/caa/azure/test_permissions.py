"""What a role of Azure's allows."""

from __future__ import annotations

import pytest

from kata_caa.providers.azure.permissions import Grant, lacking

DELETE = "Microsoft.Compute/virtualMachines/delete"


@pytest.mark.parametrize(
    ("actions", "taken", "allowed"),
    [
        (("*",), (), True),
        (("microsoft.compute/virtualmachines/DELETE",), (), True),
        (("Microsoft.Compute/*",), (), True),
        (("*/delete",), (), True),
        (("Microsoft.Compute/virtualMachines",), (), False),
        (("Microsoft.Compute/virtualMachines/delete/action",), (), False),
        (("Microsoft.Compute/virtualMachines.delete",), (), False),
        (("MicrosoftxCompute/*", "[a-zA-Z.]*/?"), (), False),
        (("*",), ("*/delete",), False),
        (("*",), ("*/write",), True),
        ((), (), False),
    ],
)
def test_an_action_is_allowed_that_a_grant_names_and_does_not_take_out(
    actions: tuple[str, ...], taken: tuple[str, ...], allowed: bool
):
    assert Grant(actions, taken).allows(DELETE) is allowed


def test_what_one_grant_takes_out_another_may_give():
    assert lacking([Grant(("*",), ("*/delete",)), Grant((DELETE,))], [DELETE]) == []
    assert lacking([], [DELETE]) == [DELETE]
