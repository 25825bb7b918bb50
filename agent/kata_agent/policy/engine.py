"""One policy, its state, and its decisions."""

from __future__ import annotations

import json
import logging
from typing import NamedTuple

from kata_agent.errors import AgentError, InvalidArgument, PermissionDenied, Unimplemented
from kata_agent.policy import patch
from kata_agent.policy.document import Json

_LOG = logging.getLogger(__name__)

# Limits of upstream's: longer texts are not what a person or genpolicy has written.
_LINE_LIMIT = 64 << 10  # bytes
_TEXT_LIMIT = 16 << 20  # bytes
_LINES_LIMIT = 200_000

_PACKAGE = "data.agent_policy"
_LENIENT = "AllowRequestsFailingPolicy"


class _Answer(NamedTuple):
    values: list[Json]  # none where the rule is undefined
    prints: str


class Engine:
    """A policy in force. It belongs to the thread that makes it: the evaluator lets no other one near.

    Args:
        text: The policy, in Rego of version 0 unless it imports `rego.v1`.

    Raises:
        InvalidArgument: The text is no policy.
        Unimplemented: This guest has no evaluator.
    """

    def __init__(self, text: str) -> None:
        try:
            import regorus
        except ImportError as error:
            raise Unimplemented("this guest has no policy engine: its image was built without regorus") from error
        _check_limits(text)
        self._engine = regorus.Engine()
        self._engine.set_rego_v0(True)
        self._engine.set_gather_prints(True)
        self._state: Json = {"pstate": {}}
        self._engine.add_data_json(json.dumps(self._state))
        try:
            self._engine.add_policy("agent_policy", text)
            self._lenient = self._evaluate(_LENIENT, {}).values == [True]
        except BaseException as error:
            raise InvalidArgument(f"not a policy: {_brief(error)}") from error
        if self._lenient:
            _LOG.warning("the policy has %s: what it denies is allowed", _LENIENT)

    def check(self, kind: str, document: Json) -> None:
        """Decide on a request.

        Args:
            kind: Name of its message, which is its rule's.
            document: What the rule sees as `input`.

        Raises:
            PermissionDenied: It is denied.
            AgentError: The policy has no such rule, or evaluating it failed.
        """
        try:
            answer = self._evaluate(kind, document)
        except BaseException as error:  # also the evaluator's panics: what is not decided is not allowed
            raise AgentError(f"{kind}: internal error: the policy cannot be evaluated: {_brief(error)}") from error
        if not answer.values:
            if self._lenient:
                return
            raise AgentError(f"{kind}: internal error: the policy has no such rule")
        if not self._is_allowed(kind, answer.values[0]):
            if not self._lenient:
                raise PermissionDenied(f"{kind} is blocked by policy: {answer.prints}")
            _LOG.warning("policy: %s is denied, and allowed by %s", kind, _LENIENT)

    def _is_allowed(self, kind: str, value: Json) -> bool:
        if isinstance(value, bool):
            return value
        allowed = value.get("allowed") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(allowed, bool):
            raise AgentError(f"{kind}: internal error: the policy's rule is neither a boolean nor a decision")
        if allowed and value.get("ops") is not None:
            self._patch(kind, value["ops"])
        return allowed

    def _patch(self, kind: str, operations: Json) -> None:
        try:
            state = patch.applied(self._state, operations)
            self._engine.clear_data()
            self._engine.add_data_json(json.dumps(state))
        except BaseException as error:
            self._engine.clear_data()
            self._engine.add_data_json(json.dumps(self._state))
            raise AgentError(f"{kind}: internal error: the policy's state: {_brief(error)}") from error
        self._state = state

    def _evaluate(self, rule: str, document: Json) -> _Answer:
        self._engine.set_input_json(json.dumps(document))
        result = json.loads(self._engine.eval_query_as_json(f"{_PACKAGE}.{rule}"))
        values = [expression["value"] for each in result.get("result", []) for expression in each["expressions"]]
        return _Answer(values, " ".join(self._engine.take_prints()))


def _check_limits(text: str) -> None:
    lines = text.encode(errors="replace").split(b"\n")
    if len(lines) > _LINES_LIMIT or len(text) > _TEXT_LIMIT or max(map(len, lines)) > _LINE_LIMIT:
        raise InvalidArgument("not a policy: it is longer than policies are")


def _brief(error: BaseException) -> str:
    """The evaluator's words, without its stack."""
    return str(error).partition("\n\nStack backtrace")[0].strip()
