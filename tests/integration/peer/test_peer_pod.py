"""A peer pod's whole life, from manager to crun in a machine elsewhere, and back to nothing."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from kata_py.http import client as http
from kata_py.sandbox.record import ROOT
from kata_py.ttrpc.errors import StatusError
from tests.adaptor import Adaptor
from tests.integration.peer.pods import Cloud, container, network, pod, running, spec
from tests.integration.test_management import rego
from tests.manager import Manager

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("nothing_left")]

INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"
RESTARTS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])


async def test_containers_run_in_a_machine_elsewhere(peers: Manager, image: str, cloud: Cloud) -> None:
    with network() as net:
        async with (
            pod(peers, "peer", net) as first,
            container(peers, "peer", "app", image, "sh", "-c", "echo out; echo err >&2; exec sleep 1000") as app,
        ):
            assert cloud.machines == ["podvm-peer-peer"]
            await app.io.until(b"out\n")
            await app.io.until(b"err\n", "stderr")
            assert await app.run("echo", "hello") == (0, b"hello\n")
            assert await app.run("sh", "-c", "exit 7") == (7, b"")
            code, links = await app.run("ip", "-o", "addr", "show", "eth0")
            assert net.address.encode() in links
            assert code == 0
            assert first.pid == app.pid  # the shim's: no process of this node is the machine
            for each in (first, app):
                usage = await each.usage()
                assert min(usage.memory, usage.cpu_time, usage.processes) > 0, each.id
            socket = str(ROOT / "peer" / "shim-monitor.sock")
            figures = (await http.get(socket, "/metrics", timeout=20, limit=1 << 20)).body
            assert b"kata_shim_threads" in figures
            assert b"kata_hypervisor_" not in figures  # nor are the shim's figures the machine's
            await app.kill(signal.SIGKILL)
            assert (await app.wait()).status == 137


async def test_a_peer_pod_and_one_of_this_node_reach_each_other(peers: Manager, image: str) -> None:
    with network() as net, network() as other:
        async with pod(peers, "peer", net), container(peers, "peer", "app", image, "sleep", "1000") as app:
            code, said = await app.run("ping", "-c", "3", "-W", "2", other.address)
            assert code == 0, said
            other.namespace.run("ping", "-c", "3", "-W", "2", net.address)
            serving = await app.exec("sh", "-c", "echo from the machine | nc -l -p 8080")
            await serving.start()
            answer = ""
            async with asyncio.timeout(20):
                while "from the machine" not in answer:  # until it listens
                    done = await asyncio.to_thread(
                        subprocess.run,
                        ["nsenter", f"--net={other.namespace.path}", "busybox", "nc", "-w", "2", net.address, "8080"],
                        capture_output=True, text=True, timeout=10, check=False,
                    )  # fmt: skip
                    answer = done.stdout
            await serving.wait()
            await serving.delete()


@RESTARTS
async def test_a_running_exec_and_a_log_that_is_followed_lose_nothing_when_the_adaptor_is_started_anew(
    peers: Manager, image: str, adaptor: Adaptor, number: int
) -> None:
    count = 40_000
    script = f"read go; i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done; read end"
    data = os.urandom(4 << 20)
    with network() as net:
        async with (
            pod(peers, "peer", net),
            container(peers, "peer", "app", image, "sh", "-c", script, stdin=True) as app,
        ):
            digest = await app.exec("sha256sum", stdin=True)
            await digest.start()
            feeding = asyncio.create_task(digest.io.write(data))
            await app.io.write(b"go\n")
            await app.io.until(b"line 100\n")
            await adaptor.again(number)
            async with asyncio.timeout(60):
                await feeding
                await digest.close_stdin()
                assert (await digest.wait(timeout=60)).status == 0
            assert digest.io.output().split()[0].decode() == hashlib.sha256(data).hexdigest()
            await digest.delete()
            await app.io.until(b"line %d\n" % (count - 1), timeout=60)
            assert app.io.output() == b"".join(b"line %d\n" % i for i in range(count))
            assert await app.run("echo", "after") == (0, b"after\n")


@RESTARTS
async def test_a_pod_that_starts_while_the_adaptor_is_started_anew_runs(
    peers: Manager, image: str, adaptor: Adaptor, cloud: Cloud, number: int
) -> None:
    with network() as net:
        seen = len(adaptor.log.read_bytes())
        async with peers.container("peer", spec=spec("peer", path=net.namespace.path), create=False) as first:
            creating = asyncio.create_task(first.create())
            await adaptor.says("runs as ns-podvm-peer-peer", after=seen)
            await adaptor.again(number)
            first.pid = await creating
            await first.start()
            async with container(peers, "peer", "app", image, "sleep", "1000") as app:
                assert await app.run("echo", "here") == (0, b"here\n")
            assert cloud.machines == ["podvm-peer-peer"]


async def test_a_pod_that_is_deleted_while_there_is_no_adaptor_is_deleted_by_the_next(
    peers: Manager, adaptor: Adaptor, cloud: Cloud
) -> None:
    with network() as net:
        async with pod(peers, "peer", net):
            await adaptor.end(signal.SIGKILL)
            restarting = asyncio.create_task(adaptor.start())
        await restarting
    await cloud.gone()


async def test_the_policy_of_a_pods_initdata_holds_from_the_first_call_on(peers: Manager, image: str) -> None:
    policy = rego(ExecProcess=False)
    text = f'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"policy.rego" = {json.dumps(policy)}\n'
    with network() as net:
        content = spec("peer", path=net.namespace.path)
        content["annotations"][INITDATA] = base64.b64encode(gzip.compress(text.encode())).decode()
        async with (
            running(peers, content, "peer"),
            container(peers, "peer", "app", image, "sh", "-c", "echo out; exec sleep 1000") as app,
        ):
            await app.io.until(b"out\n")
            process = await app.exec("true")
            with pytest.raises(StatusError, match="ExecProcessRequest is blocked by policy"):
                await process.start()
            await process.delete()
            await app.kill(signal.SIGKILL)
            assert (await app.wait()).status == 137


async def test_an_image_that_there_is_not_is_told(peers: Manager, image: str) -> None:
    with network() as net:
        async with pod(peers, "peer", net):
            with pytest.raises(StatusError, match=r"busybox:10: the registry has no such image"):
                async with running(peers, spec("app", "true", pod="peer", image=f"{image}0"), "app"):
                    raise AssertionError("it runs")


async def test_a_pod_without_a_network_of_its_own_is_refused_and_leaves_nothing(peers: Manager, cloud: Cloud) -> None:
    with pytest.raises(StatusError, match="a pod with hostNetwork has no tunnel"):
        async with running(peers, spec("peer", path=Path("/proc/self/ns/net")), "peer"):
            raise AssertionError("it runs")
    assert cloud.machines == []


async def test_a_machine_that_dies_ends_its_pod(peers: Manager, image: str, cloud: Cloud) -> None:
    with network() as net:
        async with pod(peers, "peer", net) as first:
            content = json.loads((cloud.directory / "podvm-peer-peer" / "instance.json").read_text())
            os.kill(content["pid"], signal.SIGKILL)
            assert (await first.wait(timeout=60)).status == 255
    assert not (ROOT / "peer").exists()
