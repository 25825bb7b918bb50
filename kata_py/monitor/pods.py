"""Which pods the sandboxes are, as the CRI's runtime says: containerd or CRI-O, by gRPC.

A pod's name does not change, so the runtime is asked only when there is a sandbox that it has not told of yet, and what
it told stays known while it is away. Source: k8s.io/cri-api `pkg/apis/runtime/v1/api.proto`; kata
`src/runtime/pkg/kata-monitor/cri.go`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import grpc

from kata_protos import cri_pb2 as cri
from kata_py.monitor.errors import PodsError

logger = logging.getLogger(__name__)

LIST = "/runtime.v1.RuntimeService/ListPodSandbox"
TIMEOUT = 2.0  # seconds; less than a shim is given, which is asked meanwhile
_OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),  # as the kubelet
    ("grpc.use_local_subchannel_pool", 1),  # else the next call waits as long as gRPC does after a failed one
]


class Pods:
    """The pods of a runtime.

    Args:
        socket: Where it serves the CRI.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._known: dict[str, Mapping[str, str]] = {}
        self._trouble = ""

    async def labels(self, sandboxes: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """The labels that name the pods of these sandboxes, which are all that there are; of those that are known."""
        self._known = {id: labels for id, labels in self._known.items() if id in sandboxes}
        if any(id not in self._known for id in sandboxes):
            trouble = ""
            try:
                told = await self._told()
            except PodsError as error:
                trouble = str(error)
                if trouble != self._trouble:
                    logger.warning("sandboxes go without the names of their pods: %s", error)
            else:
                self._known |= {id: labels for id, labels in told.items() if id in sandboxes}
            self._trouble = trouble
        return self._known

    async def _told(self) -> dict[str, Mapping[str, str]]:
        ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(state=ready))
        try:
            async with grpc.aio.insecure_channel(f"unix:{self._socket}", options=_OPTIONS) as channel:
                call = channel.unary_unary(
                    LIST,
                    request_serializer=cri.ListPodSandboxRequest.SerializeToString,
                    response_deserializer=cri.ListPodSandboxResponse.FromString,
                )
                response = await call(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise PodsError(f"{self._socket}: {error.code().name}: {error.details()}") from error
        return {
            pod.id: {
                "cri_uid": pod.metadata.uid,
                "cri_name": pod.metadata.name,
                "cri_namespace": pod.metadata.namespace,
            }
            for pod in response.items
        }
