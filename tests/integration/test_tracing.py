"""One trace per start of a pod, from the shim through the agent, at a real collector."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from kata_py.ttrpc.errors import StatusError
from tests import bundle
from tests.collector import Told, collecting, tree
from tests.integration.conftest import ON_NAMESPACES
from tests.manager import Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

RPC = "grpc.AgentService/"
CLOCK = f"{RPC}SetGuestDateTime"  # which the driver does not let the agent set
SOON = 9.0  # seconds that a pod of namespaces takes at most; one export alone may take ten


def traced(manager: Manager, endpoint: str, directory: Path) -> Manager:
    """The manager with pods that are traced to that endpoint."""
    config = directory / "traced.toml"
    text = manager.config.read_text().replace("[agent.kata]\n", "[agent.kata]\nenable_tracing = true\n")
    config.write_text(f'{text}enable_tracing = true\njaeger_endpoint = "{endpoint}"\n')
    return manager.using(config=config)


def inside(told: list[Told]) -> None:
    """No span begins before its parent, or ends after it."""
    by_id = {each.span.span_id: each for each in told}
    for each in told:
        around = by_id.get(each.span.parent_span_id)
        if around is not None and around.name != "pod start" and not each.name.startswith("boot: "):
            assert around.span.start_time_unix_nano <= each.span.start_time_unix_nano, (str(each), str(around))
            assert around.span.end_time_unix_nano >= each.span.end_time_unix_nano, (str(each), str(around))


async def test_a_pods_start_is_one_trace_of_the_shims_stages_and_the_agents_steps(
    manager: Manager, driver: str, tmp_path: Path
) -> None:
    with collecting() as collector:
        pods = traced(manager, collector.url, tmp_path)
        spec = bundle.in_pod(bundle.spec("pod", pods.rootfs, bundle.process(["sleep", "9"])), "pod", sandbox=True)
        async with pods.container("pod", spec=spec) as pod:
            await pod.start()
            start = await asyncio.to_thread(collector.until, "pod start")
            spec = bundle.in_pod(bundle.spec("app", pods.rootfs, bundle.process(["sleep", "9"])), "pod")
            async with pods.container("app", spec=spec) as app:
                await app.start()
                later = (await asyncio.to_thread(collector.until, "container start"))[len(start) :]
    parents = tree(start)
    expected = {
        "kata: pod start": "",
        "kata: request": "kata: pod start",
        **{f"kata: {stage}": "kata: request" for stage in ("plan", "share", "machine", "agent", "sandbox", "create")},
        f"kata: {driver}": "kata: machine",
        "kata-agent: boot: imports": "kata: agent",
        f"kata: {RPC}CreateSandbox": "kata: sandbox",
        f"kata-agent: {RPC}CreateSandbox": f"kata: {RPC}CreateSandbox",
        "kata-agent: storage virtio-fs": f"kata-agent: {RPC}CreateSandbox",
        f"kata: {RPC}CreateContainer": "kata: create",
        f"kata-agent: {RPC}CreateContainer": f"kata: {RPC}CreateContainer",
        "kata-agent: crun create": f"kata-agent: {RPC}CreateContainer",
        "kata: start": "kata: pod start",
        f"kata: {RPC}StartContainer": "kata: start",
        f"kata-agent: {RPC}StartContainer": f"kata: {RPC}StartContainer",
        "kata-agent: crun start": f"kata-agent: {RPC}StartContainer",
    }
    assert {name: parents.get(name) for name in expected} == expected
    assert [name for name, parent in parents.items() if not parent] == ["kata: pod start"]
    assert tree([*start, *later])["kata: container start"] == "kata: pod start"
    assert tree(later)["kata-agent: crun create"] == f"kata-agent: {RPC}CreateContainer"
    assert len({each.span.trace_id for each in (*start, *later)}) == 1
    assert {each.resource["sandbox_id"] for each in start} == {"pod"}
    assert {each.name for each in start if each.failed} <= {CLOCK}
    inside(start)
    inside(later)


@ON_NAMESPACES
async def test_a_start_that_fails_in_the_guest_is_told_up_to_the_step_that_failed(
    manager: Manager, tmp_path: Path
) -> None:
    with collecting() as collector:
        pods = traced(manager, collector.url, tmp_path)
        with pytest.raises(StatusError, match="no-such-program"):
            async with pods.container("failing", "no-such-program"):
                raise AssertionError("it was created")
        told = await asyncio.to_thread(collector.until, "pod start")
    failed = {str(each) for each in told if each.failed and each.name != CLOCK}
    both = {f"{service}: {RPC}CreateContainer" for service in ("kata", "kata-agent")}
    assert failed == {"kata: pod start", "kata: request", "kata: create", *both, "kata-agent: crun create"}
    [step] = [each for each in told if each.name == "crun create"]
    assert "no-such-program" in step.span.status.message


@ON_NAMESPACES
@pytest.mark.parametrize("fault", ["down", "silent"])
async def test_a_collector_that_takes_nothing_harms_no_pod(manager: Manager, tmp_path: Path, fault: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if fault == "silent" else 9
        pods = traced(manager, f"http://127.0.0.1:{port}", tmp_path)
        async with asyncio.timeout(SOON), pods.container("unheard", "sleep", "9") as pod:
            await pod.start()
            assert await pod.run("echo", "unharmed") == (0, b"unharmed\n")
