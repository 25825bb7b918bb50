"""Connections to pod VMs: one attempt, what its failure means, and how long to wait for the next one.

Source: cloud-api-adaptor `pkg/adaptor/proxy/proxy.go`; avast/retry-go v4; tcp(7).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from kata_caa.errors import ProxyError
from kata_protos.health_pb2 import CheckRequest, HealthCheckResponse
from kata_protos.health_ttrpc import HealthClient
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import ConnectionClosed, TtrpcError

ATTEMPT_TIMEOUT: Final = 5.0
"""Seconds for a connection to stand, TLS included: a machine that boots does not answer at all."""

CHECK_TIMEOUT: Final = 60.0
"""Seconds for the agent to answer on a connection that stands; then another one is tried."""

PAUSE_FIRST: Final = 0.2  # seconds after the first failure; doubled for each further one
PAUSE_MAX: Final = 5.0
JITTER: Final = 0.1  # seconds at most, so that the pods of a node do not dial all at once

# A machine that is gone says nothing: a connection ends when nothing was acknowledged for a minute. Not sooner, as the
# time counts also while a machine takes no more bytes.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),  # milliseconds; it goes before a count of probes
)

# TLS's own words for a connection that was cut, or a peer that cannot just now; all others are for good.
_PASSING: Final = frozenset(
    {"UNEXPECTED_EOF_WHILE_READING", "TLSV1_ALERT_INTERNAL_ERROR", "TLSV1_ALERT_USER_CANCELLED"}
)

Failure = OSError | TtrpcError
"""What may pass by itself, so that trying again helps."""

FAILURES: Final = (OSError, TtrpcError)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the forwarder in a pod VM listens.

    Attributes:
        host: An address of the machine.
        port: TCP port.
        server_name: The name that its certificate must have; for people also without TLS.
        context: None is without TLS.
    """

    host: str
    port: int
    server_name: str
    context: ssl.SSLContext | None = field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"pod VM {self.server_name} at {host}:{self.port}"


def pauses() -> Iterator[float]:
    """Seconds to wait after each failure in turn, without end."""
    pause = PAUSE_FIRST
    while True:
        yield pause + random.uniform(0, JITTER)
        pause = min(2 * pause, PAUSE_MAX)


async def connect(endpoint: Endpoint, factory: Callable[[], asyncio.BaseProtocol]) -> None:
    """Connect a protocol, once.

    Args:
        endpoint: Where to.
        factory: Makes the protocol.

    Raises:
        OSError: It could not be reached, which may pass.
        ProxyError: It is the wrong one, or takes us for the wrong one.
    """
    context = endpoint.context
    try:
        async with asyncio.timeout(ATTEMPT_TIMEOUT):
            transport, _ = await asyncio.get_running_loop().create_connection(
                factory,
                endpoint.host,
                endpoint.port,
                ssl=context,
                server_hostname=endpoint.server_name if context is not None else None,
            )
    except TimeoutError:
        raise TimeoutError(f"no connection within {ATTEMPT_TIMEOUT:g} s") from None
    except OSError as error:
        if (refusal := refused(endpoint, error)) is not None:
            raise refusal from error
        raise
    sock = transport.get_extra_info("socket")
    for level, option, value in _KEEP_ALIVE:
        sock.setsockopt(level, option, value)


async def probe(endpoint: Endpoint, note: Callable[[str], None]) -> None:
    """Ask the agent, once, whether it serves.

    Args:
        endpoint: Where to.
        note: Told how far it has come.

    Raises:
        OSError, TtrpcError: It was not reached, or does not serve, which may pass.
        ProxyError: It is the wrong one, or takes us for the wrong one.
    """
    async with Client(str(endpoint)) as client:
        await connect(endpoint, lambda: client.link)
        note("it takes connections, but its agent has not answered")
        try:
            answer = await HealthClient(client).Check(CheckRequest(), timeout=CHECK_TIMEOUT)
        except ConnectionClosed as error:
            # In TLS 1.3 a server looks at our certificate when our side is done already.
            if (refusal := refused(endpoint, error.__cause__)) is not None:
                raise refusal from error
            # Python's servers, in the place of an alert, just hang up on whom they do not trust.
            raise ConnectionClosed(
                f"it hung up before its agent answered, as it does also if it does not take our certificate: {error}"
            ) from error
    if answer.status == HealthCheckResponse.NOT_SERVING:
        raise TtrpcError("its agent does not serve yet")


def refused(endpoint: Endpoint, error: BaseException | None) -> ProxyError | None:
    """The error to give up with; None if the failure may pass."""
    match error:
        case ssl.SSLCertVerificationError():
            return ProxyError(
                f"the certificate of {endpoint} is wrong: {error.verify_message}; another machine may have its address "
                "now: delete the pod"
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return None
        case ssl.SSLError() if error.reason not in _PASSING:
            reason = (error.reason or str(error)).lower().replace("_", " ")
            return ProxyError(
                f"no TLS with {endpoint}: {reason}; compare the adaptor's -ca-cert-file, -cert-file, -tls-min-version, "
                "-tls-cipher-suites and -disable-tls with what the pod VM was started with"
            )
    return None


def reason(error: Failure) -> str:
    """A failure in a few words."""
    number = error.errno if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    if number is not None and number > 0:
        return os.strerror(number)  # asyncio's own words repeat the address and leave out the cause
    return str(error) or type(error).__name__
