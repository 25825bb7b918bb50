"""Pull secrets."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from kata_caa.k8s.secrets import auth_json


def secret(content: Any, key: str = ".dockerconfigjson") -> dict[str, str]:
    return {key: b64encode(json.dumps(content).encode()).decode()}


def test_credentials_of_all_secrets_are_joined_and_the_last_of_a_registry_counts():
    text = auth_json([
        secret({"auths": {"a.io": {"auth": "b25l"}, "b.io": {"auth": "b25l"}}}),
        secret({"b.io": {"auth": "dHdv"}}, ".dockercfg"),
    ])  # fmt: skip
    assert json.loads(text) == {"auths": {"a.io": {"auth": "b25l"}, "b.io": {"auth": "dHdv"}}}


def test_user_and_password_become_one():
    text = auth_json([secret({"auths": {"a.io": {"username": "me", "password": "x:y"}}})])
    assert json.loads(text)["auths"]["a.io"] == {"auth": b64encode(b"me:x:y").decode()}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"other": "eA=="},
        {".dockerconfigjson": "not base64!"},
        {".dockerconfigjson": "eA=="},
        secret({}),
        secret([]),
        secret({"auths": []}),
        secret({"auths": {"a.io": {}, "b.io": 3, "c.io": {"username": "me"}}}),
    ],
)
def test_what_is_no_credential_is_passed_over(data: dict[str, str]):
    assert auth_json([data]) == ""
