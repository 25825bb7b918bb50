"""The adaptor's services: what the runtime, and whoever looks for a pod's machine, may ask. Statuses are made here.

Source: kata `protocols/hypervisor/hypervisor.proto`; cloud-api-adaptor `pkg/adaptor/cloud/cloud.go`,
`proto/podvminfo/podvminfo.proto`, `pkg/adaptor/vminfo/service.go`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from kata_caa import request as pod_request
from kata_caa.errors import AdaptorError, Fault, InvalidRequest, ProviderError, SandboxExists, UnknownSandbox
from kata_caa.peer import Late
from kata_caa.pods import Pods
from kata_protos import hypervisor_pb2 as hv
from kata_protos import podvminfo_pb2 as info
from kata_protos.hypervisor_ttrpc import HypervisorService
from kata_protos.podvminfo_ttrpc import PodVMInfoService
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

AHEAD = 2.0  # seconds before its deadline, or a tenth of the time, that a caller is told why it waits in vain

VERSION = "0.0.0"  # as upstream's adaptor says, whichever it is

_P = ParamSpec("_P")
_R = TypeVar("_R")

_CODES: tuple[tuple[type[AdaptorError], Code], ...] = (
    (InvalidRequest, Code.INVALID_ARGUMENT),
    (UnknownSandbox, Code.NOT_FOUND),
    (SandboxExists, Code.ALREADY_EXISTS),
    (Late, Code.DEADLINE_EXCEEDED),
)
_FAULTS = {
    Fault.FATAL: Code.FAILED_PRECONDITION,
    Fault.QUOTA: Code.RESOURCE_EXHAUSTED,
    Fault.CAPACITY: Code.RESOURCE_EXHAUSTED,
    # Not UNAVAILABLE: it would say that we are not there, and the runtime would ask again.
    Fault.THROTTLE: Code.ABORTED,
    Fault.TRANSIENT: Code.ABORTED,
}


def code_of(error: AdaptorError) -> Code:
    """The status code that says best what an error means."""
    if isinstance(error, ProviderError):
        return _FAULTS[error.fault]
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.UNKNOWN)


def _answered(handler: Callable[_P, Awaitable[_R]]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    @functools.wraps(handler)
    async def answer(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(*args, **kwargs)
        except AdaptorError as error:
            logger.info("%s: %s", handler.__name__, error)
            raise StatusError(code_of(error), str(error)) from error
        except Exception as error:
            logger.exception("%s: not expected", handler.__name__)
            raise StatusError(Code.INTERNAL, f"{handler.__name__}: {type(error).__name__}: {error}") from error

    return answer


class RemoteHypervisor(HypervisorService):
    """What the runtime asks for.

    Args:
        pods: The node's peer pods.
    """

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    @_answered
    async def CreateVM(self, request: hv.CreateVMRequest, context: Context) -> hv.CreateVMResponse:
        """Announce a pod. Nothing is made yet."""
        try:
            asked = pod_request.read(request.id, request.annotations, request.networkNamespacePath)
        except InvalidRequest as error:
            name, namespace = pod_request.pod_of(request.annotations)
            if name and namespace:
                await self._pods.refused(namespace, name, error)
            raise
        socket = await self._pods.create(asked)
        logger.info("sandbox %s is pod %s/%s", request.id, asked.namespace, asked.name)
        return hv.CreateVMResponse(agentSocketPath=str(socket))

    @_answered
    async def StartVM(self, request: hv.StartVMRequest, context: Context) -> hv.StartVMResponse:
        """Have its machine run; answers once the agent does. Asked again, the same start is waited for.

        If it takes longer than the caller waits, the caller is told at which stage it is, a little before it goes.
        """
        context.cancel_if_abandoned()
        left = context.remaining()
        await self._pods.start(request.id, None if left is None else left - min(AHEAD, left / 10))
        return hv.StartVMResponse()

    @_answered
    async def StopVM(self, request: hv.StopVMRequest, context: Context) -> hv.StopVMResponse:
        """Delete its machine; answers once that is on record, as one of upstream's runtimes waits but a second."""
        await self._pods.stop(request.id)
        return hv.StopVMResponse()

    @_answered
    async def Version(self, request: hv.VersionRequest, context: Context) -> hv.VersionResponse:
        """The service's version."""
        return hv.VersionResponse(version=VERSION)


class PodVMInfo(PodVMInfoService):
    """Which machine a pod has.

    Args:
        pods: The node's peer pods.
    """

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    @_answered
    async def GetInfo(self, request: info.GetInfoRequest, context: Context) -> info.GetInfoResponse:
        """The cloud's id of a pod's machine, waited for if so asked; no longer than the caller does."""
        context.cancel_if_abandoned()
        return info.GetInfoResponse(
            VMID=await self._pods.instance_id(request.PodNamespace, request.PodName, wait=request.Wait)
        )
