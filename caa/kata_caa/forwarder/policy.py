"""The policy that a pod's initdata brings, put in force before anybody can ask the agent for anything.

In upstream's image the agent is started when user data is there, and finds the file itself. Ours runs from the boot on,
also in a machine that waits for its pod, so it is told. Source: confidential-containers/trustee `kbs/docs/initdata.md`.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from kata_caa.errors import ForwarderError
from kata_caa.forwarder.service import AGENT_TIMEOUT
from kata_py.ttrpc.address import Address
from kata_py.ttrpc.errors import TtrpcError

logger = logging.getLogger(__name__)

_MARK: Final = ".policy-in-force"  # beside the file; the agent may refuse it a second time, as it says itself
_RETRY: Final = 0.1  # seconds between two attempts to reach the agent
_TIMEOUT: Final = 60.0  # seconds for the agent to load its evaluator, and the policy


async def enforce(agent: Address, policy: Path, *, agent_timeout: float = AGENT_TIMEOUT) -> None:
    """Have the agent take the policy, once; nothing is done if there is none.

    Args:
        agent: Where it listens.
        policy: The file.
        agent_timeout: Seconds for the agent to take a connection.

    Raises:
        ForwarderError: It is not in force, so nothing may be served.
    """
    text = await asyncio.to_thread(_pending, policy)
    if text is None:
        return
    # Loaded for those who bring a policy: it costs time of the boot.
    from kata_protos import agent_pb2
    from kata_py.ttrpc.client import connect

    request = agent_pb2.SetPolicyRequest(policy=text).SerializeToString()
    try:
        async with connect(agent, timeout=agent_timeout, retry=_RETRY) as client:
            await client.call("grpc.AgentService", "SetPolicy", request, timeout=_TIMEOUT)
    except TtrpcError as error:
        raise ForwarderError(
            f"the pod's policy is not in force, and without it nothing is served: {error}; look at policy.rego of its "
            "initdata"
        ) from error
    await asyncio.to_thread(policy.with_name(_MARK).touch)
    logger.info("the pod's policy is in force")


def _pending(policy: Path) -> str | None:
    """The policy's text; None if there is none, or the agent has it."""
    try:
        text = policy.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ForwarderError(f"the pod's policy {policy} cannot be read: {error}") from error
    return None if policy.with_name(_MARK).exists() else text
