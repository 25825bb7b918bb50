"""The calls that CRI-O makes: what is sent over a connection to a shim, and how its answers are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from kata_protos import cgroups_v1_pb2, cgroups_v2_pb2
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.ttrpc import address
from kata_py.ttrpc.client import connect

CONNECT_TIMEOUT = 10.0  # seconds
HANG = 60.0  # seconds after which a call that CRI-O would wait for without end counts as hung
METADATA = {"containerd-namespace-ttrpc": "default"}
SPECS = "types.containerd.io/opencontainers/runtime-spec/1/"

_M = TypeVar("_M", bound=Message)


class CrioError(Exception):
    """What the kubelet would be told."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent: the start of a launcher, or a call over a connection.

    Attributes:
        connection: Its number, in the order in which connections were made; 0 for a start.
        method: The method's name; empty for a start.
        request: The request as JSON; for a start its argv, env, cwd and the bundle's entries.
    """

    connection: int
    method: str
    request: dict[str, Any]


class Task:
    """One connection. Calls have no deadline, as CRI-O's have none; one that takes too long fails the test."""

    def __init__(self, client: Any, stack: AsyncExitStack, number: int, sent: list[Sent]) -> None:
        self._calls = TaskClient(client)
        self._stack, self._number, self._sent = stack, number, sent

    @classmethod
    async def connect(cls, printed: str, number: int, sent: list[Sent]) -> Task:
        stack = AsyncExitStack()
        client = await stack.enter_async_context(connect(address.parse(printed), timeout=CONNECT_TIMEOUT))
        return cls(client, stack, number, sent)

    async def close(self) -> None:
        await self._stack.aclose()

    async def call(self, method: str, request: Message, response: type[_M], *, unbounded: bool = False) -> _M:
        self._sent.append(Sent(self._number, method, {f.name: _plain(value) for f, value in request.ListFields()}))
        async with asyncio.timeout(None if unbounded else HANG):
            answer = await getattr(self._calls, method)(request, metadata=METADATA)
        assert isinstance(answer, response)
        return answer

    async def empty(self, method: str, request: Message) -> None:
        await self.call(method, request, Message)  # type: ignore[type-abstract]


def as_any(kind: str, value: Mapping[str, Any]) -> AnyMessage:
    return AnyMessage(type_url=f"{SPECS}{kind}", value=json.dumps(value).encode())


def _plain(value: Any) -> Any:
    if not isinstance(value, AnyMessage):
        return value
    content = json.loads(value.value) if value.type_url.startswith(SPECS) else value.value.hex()
    return {"type_url": value.type_url, "value": content}


def decoded(stats: AnyMessage) -> tuple[int, int, int]:
    if stats.type_url == "io.containerd.cgroups.v1.Metrics":
        v1 = cgroups_v1_pb2.Metrics.FromString(stats.value)
        _there(v1, "memory", "cpu", "pids")
        _there(v1.memory, "usage", "swap", "kernel", "kernel_tcp")
        _there(v1.cpu, "usage", "throttling")
        return v1.cpu.usage.total, v1.memory.usage.usage, v1.pids.current
    v2 = cgroups_v2_pb2.Metrics.FromString(stats.value)
    _there(v2, "memory", "cpu", "pids")
    return v2.cpu.usage_usec * 1000, v2.memory.usage, v2.pids.current


def _there(message: Message, *fields: str) -> None:
    for name in fields:
        if not message.HasField(name):
            raise CrioError(f"CRI-O has crashed: {message.DESCRIPTOR.full_name}.{name} is nil")
