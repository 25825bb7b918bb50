from __future__ import annotations

import pytest

from kata_py.network.errors import NetworkError
from kata_py.network.model import Model


@pytest.mark.parametrize(
    ("name", "model"),
    [("", Model.TCFILTER), ("default", Model.TCFILTER), ("tcfilter", Model.TCFILTER), ("macvtap", Model.MACVTAP),
     ("none", Model.NONE)],
)  # fmt: skip
def test_a_model_is_found_by_the_configurations_name(name: str, model: Model) -> None:
    assert Model.named(name) is model


def test_a_model_of_another_runtime_is_refused_with_those_there_are() -> None:
    with pytest.raises(NetworkError, match="internetworking_model 'l3forwarding'; there is: default, tcfilter, macvt"):
        Model.named("l3forwarding")
