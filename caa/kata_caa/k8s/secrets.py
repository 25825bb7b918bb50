"""What a pod's pull secrets say of its registries, as one containers-auth.json(5). Pure.

Source: cloud-api-adaptor `pkg/adaptor/k8sops/node.go`; Kubernetes' secret types `kubernetes.io/dockerconfigjson` and
`kubernetes.io/dockercfg`.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any

_CONFIG = ".dockerconfigjson"
_OLD_CONFIG = ".dockercfg"


def auth_json(secrets: Iterable[Mapping[str, str]]) -> str:
    """The credentials of all secrets; of one registry the last counts. Empty if there is none.

    What is no credential is passed over: the image may be had without it, and if not, the pull says so.

    Args:
        secrets: The `data` of each: base64 by key.
    """
    auths: dict[str, dict[str, str]] = {}
    for data in secrets:
        for registry, entry in _registries(data).items():
            if credential := _credential(entry):
                auths[registry] = {"auth": credential}
    return json.dumps({"auths": auths}) if auths else ""


def _registries(data: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        if _CONFIG in data:
            found = json.loads(b64decode(data[_CONFIG]))["auths"]
        elif _OLD_CONFIG in data:
            found = json.loads(b64decode(data[_OLD_CONFIG]))
        else:
            return {}
    except (binascii.Error, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _credential(entry: object) -> str:
    if not isinstance(entry, dict):
        return ""
    auth, user, password = (entry.get(key) for key in ("auth", "username", "password"))
    if isinstance(auth, str) and auth:
        return auth
    if isinstance(user, str) and isinstance(password, str):
        return b64encode(f"{user}:{password}".encode()).decode()
    return ""
