from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from kata_agent.errors import NotFound
from kata_agent.log_port import line_of
from kata_agent.rpc.boundary import answering
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no such exec"), Code.NOT_FOUND),
        (OSError(5, "Input/output error"), Code.INTERNAL),
        (OverflowError("signed integer is greater than maximum"), Code.INTERNAL),
        (StatusError(Code.OUT_OF_RANGE, "said so"), Code.OUT_OF_RANGE),
    ],
)
async def test_every_error_of_a_handler_becomes_a_status_that_hosts_know(error: Exception, code: Code) -> None:
    async def handler(_request: None, _context: Context) -> None:
        raise error

    with pytest.raises(StatusError) as caught:
        await answering(handler)(None, Context("grpc.AgentService", "SignalProcess"))

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("request_", "ids"),
    [
        (SimpleNamespace(container_id="c1", exec_id="e1"), {"container-id": "c1", "exec-id": "e1"}),
        (SimpleNamespace(container_id="c1", exec_id=""), {"container-id": "c1"}),
        (SimpleNamespace(), {}),
    ],
)
async def test_lines_logged_for_a_call_name_its_container_and_process(
    request_: SimpleNamespace, ids: dict[str, str]
) -> None:
    async def handler(_request: SimpleNamespace, _context: Context) -> bytes:
        return line_of(logging.makeLogRecord({"name": "kata_agent.x", "levelno": logging.INFO, "msg": "hello"}))

    line = json.loads(await answering(handler)(request_, Context("grpc.AgentService", "SignalProcess")))

    assert {key: value for key, value in line.items() if key.endswith("-id")} == ids
