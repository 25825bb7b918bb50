"""The guest's hooks, mounts given from one container to another, and the termination message."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import GUEST_SHARE, TIMEOUT, Pod, machine, sandbox_request
from tests.tasks import until

pytestmark = pytest.mark.root

NAME = "io.kubernetes.cri.container-name"
MESSAGE = "io.kubernetes.container.terminationMessagePath"


def _hook(share: Path, kind: str, script: str) -> None:
    hook = share / "hooks" / kind / "hook"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


@pytest_asyncio.fixture
async def hooked(top: Path, rootfs: Path) -> AsyncIterator[Pod]:
    """A pod whose guest has hooks that write down what they are given, and one that fails."""
    async with machine(top) as (vm, share), connect(vm.agent, timeout=TIMEOUT) as client:
        for kind in ("prestart", "poststart", "poststop"):
            _hook(share, kind, f"cat >{GUEST_SHARE}/{kind}.json; echo trouble; exit 3")
        calls = AgentClient(client)
        await calls.CreateSandbox(sandbox_request(guest_hook_path=f"{GUEST_SHARE}/hooks"), timeout=TIMEOUT)
        yield Pod(vm, client, calls, share, rootfs)


async def test_hooks_are_run_with_the_state_and_their_failures_logged(hooked: Pod) -> None:
    def state(kind: str) -> dict[str, object]:
        return json.loads((hooked.share / f"{kind}.json").read_text())  # type: ignore[no-any-return]

    await hooked.create("ctr", "sleep", "1000")
    assert (state("prestart")["id"], state("prestart")["status"]) == ("ctr", "created")
    assert not (hooked.share / "poststart.json").exists()
    await hooked.start("ctr")
    assert (state("poststart")["id"], state("poststart")["status"]) == ("ctr", "running")
    assert state("poststart")["pid"] == state("prestart")["pid"]
    assert not (hooked.share / "poststop.json").exists()
    await hooked.remove("ctr")
    assert (state("poststop")["status"], state("poststop")["pid"]) == ("stopped", 0)

    said = "\n".join(hooked.vm.console_tail())
    assert "prestart hook of ctr: trouble" in said
    assert "prestart/hook ended with status 3" in said
    assert "poststart/hook ended with status 3: trouble" in said
    assert "poststop/hook ended with status 3: trouble" in said
    assert not hooked.path("/run/kata-containers/ctr").exists()


async def test_a_removal_that_takes_too_long_is_told_and_goes_on(hooked: Pod) -> None:
    (hooked.share / "hooks" / "poststop" / "hook").write_text("#!/bin/sh\nexec sleep 9\n")
    await hooked.run("ctr", "sleep", "1000")

    with pytest.raises(StatusError, match="ETIME: container ctr is not gone after 1 s"):
        await hooked.remove("ctr", timeout=1)

    (waiting,) = hooked.processes()
    os.kill(waiting, signal.SIGKILL)
    await until(lambda: not hooked.path("/run/kata-containers/ctr").exists())


async def test_a_mount_of_one_container_is_given_to_another(pod: Pod) -> None:
    server = pod.request("server", "sleep", "1000")
    server.OCI.Annotations[NAME] = "files"
    server.OCI.Mounts.add(destination="/served", type="tmpfs", source="none")
    pod.unpack("server")
    await pod.calls.CreateContainer(server, timeout=TIMEOUT)
    await pod.start("server")
    await pod.shell("server", "echo news >/served/file; mkdir /served/deep; ls /served", "w")

    request = pod.request("ctr", "sh", "-c", "cat /mnt/files/file; grep -c /mnt/files /proc/self/mounts")
    wanted = agent.SharedMount(name="m", src_ctr="files", src_path="/served", dst_ctr="ctr", dst_path="/mnt/files")
    unknown = agent.SharedMount(name="n", src_ctr="nobody", src_path="/x", dst_ctr="ctr", dst_path="/y")
    request.shared_mounts.extend([unknown, wanted])
    pod.unpack("ctr")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)
    await pod.start("ctr")

    assert (await pod.outcome("ctr")).stdout == b"news\n1\n"
    assert "none is called nobody to share a mount with" in "\n".join(pod.vm.console_tail())
    assert "/served" not in pod.path("/proc/1/mounts").read_text()


async def test_the_termination_message_is_that_of_the_mounted_file(pod: Pod) -> None:
    (pod.share / "message").touch()
    request = pod.request("ctr", "sh", "-c", "echo it went wrong >/dev/termination-log")
    request.OCI.Annotations[MESSAGE] = "/dev/termination-log"
    source = f"{GUEST_SHARE}/message"
    request.OCI.Mounts.append(
        oci.Mount(destination="/dev/termination-log", type="bind", source=source, options=["bind"])
    )
    pod.unpack("ctr")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)
    await pod.start("ctr")
    await pod.wait("ctr")

    question = agent.GetDiagnosticDataRequest(log_type="termination_log", container_id="ctr")
    assert (await pod.calls.GetDiagnosticData(question, timeout=TIMEOUT)).data == "it went wrong\n"
    question.log_type = "core"
    with pytest.raises(StatusError, match="unknown log type 'core'") as refusal:
        await pod.calls.GetDiagnosticData(question, timeout=TIMEOUT)
    assert refusal.value.code is Code.INVALID_ARGUMENT
