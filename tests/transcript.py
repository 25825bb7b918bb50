"""Plays what a host says to an agent: a file of calls in their order, each with the answer that the host needs.

A line of a transcript is one step, a JSON object:

- `call`, `request`, `timeout`: the method's name, its message as protobuf's JSON, the host's deadline in seconds.
- `expect`: part of the answer, or a list of answers that the host puts up with; `{"code": …, "text": …}` is an error
  with that status and a part of its message that the host looks for. Without it any answer but an error is right;
  null is a field that is empty.
- `retry`: as the host does while it gets a certain answer: `{"times": …, "pause": …, "while": …}`.
- `background`: a name under which the call goes on while the next steps are taken; `join` waits for it.
- `repeat`: the call is made again until its answer is as expected, what came before is put together: `{"data": …}`.
- `host`: something the test does on the host's side, by name.
- `note`: for people.

Lines that begin with `#` and empty ones are skipped.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from kata_protos import agent_pb2, health_pb2
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.health_ttrpc import HealthClient
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import ConnectionClosed, StatusError

DATA = Path(__file__).parent / "data" / "hosts"
PATIENCE = 30.0  # seconds for a call that its host gives none
HostAction = Callable[[], Awaitable[None]]


class Mismatch(AssertionError):
    """An answer that the host would not have understood."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line.

    Attributes:
        line: Its number.
        content: What it says.
    """

    line: int
    content: Mapping[str, Any]

    def __str__(self) -> str:
        return f"line {self.line}: {self.content.get('call') or self.content}"


def load(path: Path) -> list[Step]:
    """Read a transcript.

    Raises:
        ValueError: A line is no JSON.
    """
    lines = enumerate(path.read_text().splitlines(), 1)
    return [Step(number, json.loads(line)) for number, line in lines if line.strip() and not line.startswith("#")]


class Player:
    """Plays transcripts over one connection.

    Args:
        client: The connection.
        actions: What the test does on the host's side, by name.

    Attributes:
        refused: Set when a call is about to be made again.
    """

    def __init__(self, client: Client, actions: Mapping[str, HostAction]) -> None:
        self._stubs = {"Health": HealthClient(client), "AgentService": AgentClient(client)}
        self._actions = actions
        self._background: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self.refused = asyncio.Event()

    async def play(self, steps: Sequence[Step]) -> None:
        """Take all steps.

        Raises:
            Mismatch: An answer was not what the host needs.
        """
        try:
            for step in steps:
                await self._take(step)
            left = sorted(self._background)
            if left:
                raise Mismatch(f"calls that nothing waits for: {left}")
        finally:
            for task in self._background.values():
                task.cancel()
            await asyncio.gather(*self._background.values(), return_exceptions=True)

    async def _take(self, step: Step) -> None:
        content = step.content
        if "host" in content:
            await self._actions[content["host"]]()
        elif "join" in content:
            async with asyncio.timeout(PATIENCE):
                self._compare(step, await self._background.pop(content["join"]))
        elif "background" in content:
            self._background[content["background"]] = asyncio.create_task(self._call(content), name=str(step))
            await asyncio.sleep(0)
        elif "repeat" in content:
            self._compare(step, await self._gather(content))
        else:
            self._compare(step, await self._retried(content))

    async def _retried(self, content: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._call(content)
        retry = content.get("retry", {"times": 0})
        for _ in range(retry["times"]):
            if not _holds(answer, retry["while"]):
                break
            self.refused.set()
            await asyncio.sleep(retry["pause"])
            answer = await self._call(content)
        return answer

    async def _gather(self, content: Mapping[str, Any]) -> dict[str, Any]:
        data = b""
        while piece := base64.b64decode((answer := await self._call(content)).get("data", "")):
            data += piece
        return answer | {"data": data.decode()}

    async def _call(self, content: Mapping[str, Any]) -> dict[str, Any]:
        method = content["call"]
        service, module = ("Health", health_pb2) if method in ("Check", "Version") else ("AgentService", agent_pb2)
        described = module.DESCRIPTOR.services_by_name[service].methods_by_name[method]
        request: Message = getattr(module, described.input_type.name)()
        ParseDict(content.get("request", {}), request)
        timeout = content.get("timeout")
        try:
            answer = await getattr(self._stubs[service], method)(request, timeout=timeout)
        except StatusError as error:
            return {"code": error.code.name, "text": error.message}
        except ConnectionClosed as error:
            return {"code": "CLOSED", "text": str(error)}
        return MessageToDict(answer, preserving_proto_field_name=True)

    def _compare(self, step: Step, answer: dict[str, Any]) -> None:
        expected = step.content.get("expect", {})
        accepted = expected if isinstance(expected, list) else [expected]
        if not any(_holds(answer, each) for each in accepted):
            raise Mismatch(f"{step}: {answer} where the host needs {expected}")


def _holds(answer: object, expected: object) -> bool:
    """Whether an answer has all that is expected; what else it has does not matter, but for an error."""
    if isinstance(expected, dict):
        if not isinstance(answer, dict) or ("code" in answer) != ("code" in expected):
            return False
        return all(
            value.lower() in str(answer.get("text", "")).lower() if name == "text" else _holds(answer.get(name), value)
            for name, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(answer, list) and all(any(_holds(each, value) for each in answer) for value in expected)
    return answer == expected
