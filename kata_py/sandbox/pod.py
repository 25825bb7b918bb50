"""Which pod a container belongs to, and as what: how each manager says it in a spec's annotations.

On the start path: imports nothing that costs.
Source: kata `src/runtime/pkg/oci/utils.go`, whose order of managers is kept.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

# Key of the type, the type's value for a sandbox, key of the sandbox's id: containerd, CRI-O, dockershim.
_MANAGERS = (
    ("io.kubernetes.cri.container-type", "sandbox", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "sandbox", "io.kubernetes.cri-o.SandboxID"),
    ("io.kubernetes.docker.type", "podsandbox", "io.kubernetes.sandbox.id"),
)

_CRIO_NAMESPACES = "io.kubernetes.cri-o.NamespaceOptions"
_NODE = 2  # `runtime.v1.NamespaceMode` of the CRI


class Role(enum.Enum):
    """What a container is to its sandbox."""

    SINGLE = "single"  # alone, its own sandbox: no manager of pods is at work
    SANDBOX = "sandbox"  # the pod's first, which holds it together and does nothing else
    CONTAINER = "container"  # one of the pod's others


def membership(annotations: Mapping[str, object], container_id: str) -> tuple[Role, str]:
    """A container's role, and the id of the sandbox it belongs to.

    Raises:
        ValueError: The annotations contradict themselves; names the annotation.
    """
    for type_key, sandbox, id_key in _MANAGERS:
        match annotations.get(type_key):
            case None:
                continue
            case "container":
                sandbox_id = annotations.get(id_key)
                if not isinstance(sandbox_id, str) or not sandbox_id:
                    raise ValueError(f"a container of a pod, but no annotation {id_key}")
                return Role.CONTAINER, sandbox_id
            case value if value == sandbox:
                return Role.SANDBOX, container_id
            case value:
                raise ValueError(f"annotation {type_key} is {value!r}, expected {sandbox!r} or 'container'")
    return Role.SINGLE, container_id


def managed_by_crio(annotations: Mapping[str, object]) -> bool:
    """Whether CRI-O runs the pod; it learns of an out-of-memory kill by a file, not by an event."""
    return annotations.get("io.container.manager") == "cri-o"


def host_namespaces(annotations: Mapping[str, object]) -> frozenset[str]:
    """The kinds of namespaces that CRI-O was told to take of the host: of `ipc`, the spec does not say it."""
    import json

    try:
        options = json.loads(str(annotations.get(_CRIO_NAMESPACES, "{}")))
    except ValueError:
        return frozenset()
    return (
        frozenset(kind for kind, mode in options.items() if mode == _NODE) if isinstance(options, dict) else frozenset()
    )
