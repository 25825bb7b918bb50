"""A machine that waits for a pod, as the adaptor talks to it."""

from __future__ import annotations

from typing import Final

from kata_caa import dialing
from kata_caa.dialing import Endpoint
from kata_caa.errors import InvalidRequest, ProxyError
from kata_protos.binding_pb2 import BindRequest, StateRequest
from kata_protos.binding_ttrpc import BindingClient
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

STATE_TIMEOUT: Final = 10.0  # seconds for an answer on a connection that stands
BIND_TIMEOUT: Final = 15.0  # seconds for a pod's files to be written: a few kilobytes


async def waits(endpoint: Endpoint) -> None:
    """See that the machine waits for a pod.

    Raises:
        OSError, TtrpcError: It was not reached, which may pass.
        ProxyError: It is the wrong one, takes us for the wrong one, or cannot wait for a pod.
    """
    async with Client(str(endpoint)) as client:
        await dialing.connect(endpoint, lambda: client.link)
        try:
            await BindingClient(client).State(StateRequest(), timeout=STATE_TIMEOUT)
        except StatusError as error:
            if error.code == Code.UNIMPLEMENTED:
                raise ProxyError(
                    f"{endpoint} does not wait for a pod: a warm pool needs an image with a forwarder of this project "
                    "that is no older"
                ) from error
            raise


async def bind(endpoint: Endpoint, user_data: str) -> None:
    """Make the machine a pod's.

    Args:
        endpoint: The machine.
        user_data: What a machine of the pod's own would have found when it booted.

    Raises:
        InvalidRequest: No machine would take the pod's user data.
        ProxyError: It could not be done, or it is not known whether it was.
    """
    try:
        async with Client(str(endpoint)) as client:
            await dialing.connect(endpoint, lambda: client.link)
            await BindingClient(client).Bind(BindRequest(user_data=user_data), timeout=BIND_TIMEOUT)
    except StatusError as error:
        if error.code == Code.INVALID_ARGUMENT:
            raise InvalidRequest(error.message) from error
        raise ProxyError(f"{endpoint} was not bound to the pod: {error}") from error
    except dialing.FAILURES as error:
        raise ProxyError(f"{endpoint} was not bound to the pod: {dialing.reason(error)}") from error
