"""What an adaptor is told of a pod whose machine it makes: nine annotations, whichever the pod has itself.

Source: kata `virtcontainers/remote.go`, `pkg/oci/utils.go` (addHypervisorInitdataOverrides).
"""

from __future__ import annotations

import base64
import binascii
import math
import tomllib
import zlib
from collections.abc import Mapping

from kata_py.config.model import Configuration
from kata_py.config.size import SandboxSize
from kata_py.sandbox.errors import InvalidArgument

_HYPERVISOR = "io.katacontainers.config.hypervisor."
_NAME = "io.kubernetes.cri.sandbox-name"
_NAMESPACE = "io.kubernetes.cri.sandbox-namespace"
_NAMES = (_NAME, "io.kubernetes.cri-o.SandboxName", "io.kubernetes.cri-o.KubeName")
_NAMESPACES = (_NAMESPACE, "io.kubernetes.cri-o.Namespace")
_ALONE = "default"  # the namespace of a container that belongs to no pod

INITDATA_MAX = 1 << 20  # bytes, decoded: what a cloud's user data holds is less by far


def request(configuration: Configuration, annotations: Mapping[str, str], sandbox_id: str) -> dict[str, str]:
    """The annotations that the adaptor gets.

    Args:
        configuration: With the pod's own annotations laid over it.
        annotations: The sandbox's.
        sandbox_id: The sandbox's id, in the place of a name for a container that belongs to no pod.

    Raises:
        InvalidArgument: The initdata cannot be read.
        ConfigurationError: The manager's word of the pod's size has not its form.
    """
    hypervisor = configuration.hypervisor
    size = SandboxSize.of(annotations) if configuration.runtime.static_sandbox_resource_mgmt else SandboxSize()
    return {
        _NAME: _first(annotations, _NAMES) or sandbox_id,
        _NAMESPACE: _first(annotations, _NAMESPACES) or _ALONE,
        f"{_HYPERVISOR}machine_type": hypervisor.machine_type,
        f"{_HYPERVISOR}image": hypervisor.remote_image,
        f"{_HYPERVISOR}default_vcpus": str(math.ceil(hypervisor.default_vcpus + size.vcpus)),
        f"{_HYPERVISOR}default_memory": str(hypervisor.default_memory + size.memory),
        f"{_HYPERVISOR}default_gpus": str(hypervisor.default_gpus),
        f"{_HYPERVISOR}default_gpu_model": hypervisor.default_gpu_model,
        f"{_HYPERVISOR}cc_init_data": _initdata(hypervisor.cc_init_data),
    }


def _first(annotations: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((annotations[name] for name in names if annotations.get(name)), "")


def _initdata(text: str) -> str:
    """The TOML inside base64 and gzip."""
    if not text:
        return ""
    try:
        inflate = zlib.decompressobj(wbits=31)  # of gzip
        data = inflate.decompress(base64.b64decode(text, validate=True), INITDATA_MAX)
        if inflate.unconsumed_tail:
            raise InvalidArgument(f"{_HYPERVISOR}cc_init_data: more than {INITDATA_MAX >> 20} MiB")
        if not inflate.eof:
            raise InvalidArgument(f"{_HYPERVISOR}cc_init_data: the gzip stream is cut short")
        decoded = data.decode()
        tomllib.loads(decoded)
    except (binascii.Error, zlib.error, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{_HYPERVISOR}cc_init_data: is not base64 of gzip of TOML: {error}") from None
    return decoded
