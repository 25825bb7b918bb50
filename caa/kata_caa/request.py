"""What the runtime says of a pod in CreateVM's annotations, as values.

Source: cloud-api-adaptor `src/cloud-api-adaptor/pkg/util/cloud.go`, `pkg/initdata/initdata.go`.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kata_caa.errors import InvalidRequest, MalformedConfig
from kata_caa.forwarder.provision import read_initdata
from kata_caa.providers.api import InstanceSpec

_HYPERVISOR = "io.katacontainers.config.hypervisor."
_INITDATA = f"{_HYPERVISOR}cc_init_data"
_NAME = "io.kubernetes.cri.sandbox-name"
_NAMESPACE = "io.kubernetes.cri.sandbox-namespace"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ID_MAX = 128  # characters; it becomes a directory's name


@dataclass(frozen=True, slots=True)
class PodRequest:
    """A pod whose machine is wanted.

    Attributes:
        sandbox_id: The sandbox's id.
        name: The pod's name.
        namespace: Its Kubernetes namespace.
        netns: The path of its network namespace on this node.
        spec: How large its machine shall be.
        initdata: base64 of gzip of TOML; empty is none.
    """

    sandbox_id: str
    name: str
    namespace: str
    netns: str
    spec: InstanceSpec = InstanceSpec()
    initdata: str = ""


def read(sandbox_id: str, annotations: Mapping[str, str], netns: str) -> PodRequest:
    """Read a request. Numbers that are none count as 0, as upstream has it.

    Raises:
        InvalidRequest: The sandbox's id, or the pod's name or namespace, is missing or cannot be used, or initdata has
            not its form.
    """
    if not is_sandbox_id(sandbox_id):
        raise InvalidRequest(f"{sandbox_id!r:.140} is no sandbox id")
    name, namespace = pod_of(annotations)
    for value, key in ((name, _NAME), (namespace, _NAMESPACE)):
        if not value:
            raise InvalidRequest(f"annotation {key} is missing: it is not known whose machine this is")
    if not netns:
        raise InvalidRequest("networkNamespacePath is empty: a pod without a network of its own cannot be a peer pod")
    initdata = annotations.get(_INITDATA, "")
    if initdata:
        try:
            read_initdata(initdata.encode())
        except MalformedConfig as error:  # else it would be the machine that fails, minutes later and for nobody to see
            raise InvalidRequest(f"annotation {_INITDATA}: {error}") from error
    return PodRequest(
        sandbox_id,
        name,
        namespace,
        netns,
        InstanceSpec(
            instance_type=annotations.get(f"{_HYPERVISOR}machine_type", ""),
            vcpus=_number(annotations, "default_vcpus"),
            memory=_number(annotations, "default_memory"),
            gpus=_number(annotations, "default_gpus"),
            image=annotations.get(f"{_HYPERVISOR}image", ""),
        ),
        base64.b64encode(gzip.compress(initdata.encode(), mtime=0)).decode() if initdata else "",
    )


def pod_of(annotations: Mapping[str, str]) -> tuple[str, str]:
    """The pod's name and its namespace; empty where they are missing."""
    return _pod_name(annotations.get(_NAME, "")), annotations.get(_NAMESPACE, "")


def is_sandbox_id(text: str) -> bool:
    """Whether a text has the form of a sandbox's id, and can be a directory's name."""
    return len(text) <= _ID_MAX and _ID.fullmatch(text) is not None


def _pod_name(text: str) -> str:
    """The pod's name, of CRI-O's form too: `k8s_<pod>_<namespace>_<uid>_<attempt>`."""
    parts = text.split("_")
    return parts[1] if len(parts) > 1 and parts[0] == "k8s" else text


def _number(annotations: Mapping[str, str], key: str) -> int:
    text = annotations.get(_HYPERVISOR + key, "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) else 0
