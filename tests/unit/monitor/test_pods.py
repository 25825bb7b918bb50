"""The pods' names, from a runtime of ours that is asked as the real ones are."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from kata_protos import cri_pb2 as cri
from kata_py.monitor import pods
from kata_py.monitor.pods import Pods
from tests.monitor import monitoring
from tests.unit.monitor.conftest import Shims

_sockets = itertools.count(1)


class Runtime:
    """A runtime that has pods."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.pods: list[cri.PodSandbox] = []
        self.asked: list[cri.ListPodSandboxRequest] = []
        self.refusal = ""

    def add(self, id: str, name: str) -> None:
        metadata = cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default")
        self.pods.append(cri.PodSandbox(id=id, metadata=metadata))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._list, cri.ListPodSandboxRequest.FromString, cri.ListPodSandboxResponse.SerializeToString
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", {"ListPodSandbox": handler}),)
        )
        server.add_insecure_port(f"unix:{self.socket}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def _list(
        self, request: cri.ListPodSandboxRequest, context: grpc.aio.ServicerContext
    ) -> cri.ListPodSandboxResponse:
        self.asked.append(request)
        if self.refusal:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, self.refusal)
        return cri.ListPodSandboxResponse(items=self.pods)


@pytest.fixture
def runtime(short_tmp: Path) -> Runtime:
    return Runtime(short_tmp / f"cri{next(_sockets)}.sock")


def named(name: str) -> dict[str, str]:
    return {"cri_uid": f"uid-{name}", "cri_name": name, "cri_namespace": "default"}


async def test_sandboxes_have_the_names_of_their_pods(runtime: Runtime, shims: Shims) -> None:
    runtime.add("aa", 'na"me')
    await shims.add("aa", "kata_shim_fds 1\n")
    await shims.add("bb", "kata_shim_fds 2\n")
    async with runtime.serving(), monitoring(shims.root, runtime=runtime.socket) as monitor:
        for target in ("/metrics?filter_family=kata_shim_fds", "/metrics?sandbox=aa"):
            assert (
                'kata_shim_fds{sandbox_id="aa",cri_uid="uid-na\\"me",cri_name="na\\"me",cri_namespace="default"} 1\n'
            ) in (await monitor.get(target)).text
        assert (await monitor.get("/metrics?sandbox=bb")).text == 'kata_shim_fds{sandbox_id="bb"} 2\n'


async def test_the_runtime_is_asked_for_what_is_not_known_alone(runtime: Runtime) -> None:
    runtime.add("aa", "first")
    known = Pods(runtime.socket)
    async with runtime.serving():
        assert await known.labels(["aa"]) == {"aa": named("first")}
        assert await known.labels(["aa"]) == {"aa": named("first")}
        assert [request.filter.state.state for request in runtime.asked] == [cri.SANDBOX_READY]
        runtime.add("bb", "second")
        assert await known.labels(["bb", "aa"]) == {"aa": named("first"), "bb": named("second")}
        assert await known.labels(["bb"]) == {"bb": named("second")}
    assert len(runtime.asked) == 2


async def test_names_stay_while_the_runtime_is_away_and_it_is_said_once(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.add("aa", "first")
    known = Pods(runtime.socket)
    assert await known.labels(["aa"]) == {}
    async with runtime.serving():
        assert await known.labels(["aa"]) == {"aa": named("first")}
    for _ in range(3):
        assert await known.labels(["aa", "bb"]) == {"aa": named("first")}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert all(f"names of their pods: {runtime.socket}: UNAVAILABLE" in message for message in told)


async def test_a_runtime_that_refuses_or_hangs_holds_up_nothing_but_names(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.refusal = "unknown service runtime.v1.RuntimeService"
    known = Pods(runtime.socket)
    async with runtime.serving():
        assert await known.labels(["aa"]) == {}
    assert "UNIMPLEMENTED: unknown service runtime.v1.RuntimeService" in caplog.text
    monkeypatch.setattr(pods, "TIMEOUT", 0.05)

    runtime.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(runtime.socket))
        hanging.listen()
        assert await known.labels(["aa"]) == {}
    assert f"{runtime.socket}: DEADLINE_EXCEEDED" in caplog.text
