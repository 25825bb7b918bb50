"""`make demo-remote`: a peer pod, from a real containerd to a machine that libvirt boots for it, shown step by step.

All of it is on this machine and private: libvirtd, adaptor, containerd, the registry that the machine pulls from.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from kata_py.node import kvm
from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import table
from tests import registry as registries
from tests.cri import client
from tests.cri.client import Cri, CriError
from tests.cri.pods import Container, Pod, Pods, begin
from tests.cri.proto import cri_pb2 as cri
from tests.libvirt import BASE, NETWORK, POOL, Libvirtd, libvirtd
from tools import oci_image
from tools.containerd import ContainerdError
from tools.cri import REFERENCE, CriContainerd
from tools.demo import left_behind
from tools.footprint import Footprint, without_new_parents
from tools.steps import DemoError, expect, show, step

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build"
PODVM = BUILD / "podvm"
OCI = {"x86_64": "amd64", "s390x": "s390x"}  # as images say of machines
SHIPPED = REPOSITORY / "configs" / "configuration-remote.toml"
LAUNCHER = Path(sys.executable).with_name("containerd-shim-kata-v2")
ADAPTOR = Path(sys.executable).with_name("cloud-api-adaptor")
HANDLER = "kata-remote"
NAME = "demo-pod"
RUNC = Path("/run/containerd/runc")  # where its shim keeps its containers
INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"
OURS = ("peerpod", "podvm", "kp-demo-", "kplv")  # beside those of the other demo

READY_TIMEOUT = 30.0  # seconds until the adaptor serves
END_TIMEOUT = 15.0  # and until it has ended
BOOT_TIMEOUT = 180.0  # seconds that a machine may take under emulation
GONE_TIMEOUT = 60.0  # seconds until nothing of a deleted pod is left


def main(machine: str = "") -> int:
    """Run the demo; 0 when every step did what it says and nothing is left behind.

    Args:
        machine: What the pod's machine is, x86_64 or s390x; empty is as this one.
    """
    machine = machine or platform.machine()
    if os.geteuid() != 0:
        print("make demo-remote needs root: it starts libvirtd, containerd and virtual machines", file=sys.stderr)
        return 1
    if machine not in OCI or not disk(machine).exists():
        print(f"there is no {disk(machine)}: run `make podvm MACHINE={machine}`", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    before = Footprint.take()
    began = time.monotonic()
    status = 0
    logs = BUILD / "demo-remote"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    try:
        tour(logs, machine)
    except KeyboardInterrupt:
        print("\ninterrupted; everything was cleaned up", file=sys.stderr)
        status = 130
    except (AssertionError, ContainerdError, CriError, DemoError, TimeoutError, subprocess.SubprocessError) as error:
        print(f"\nfailed: {error}\nlogs are in {logs.relative_to(REPOSITORY)}", file=sys.stderr)
        status = 1
    left = left_behind(before, also=OURS)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    if not left:
        step("nothing is left behind", f"{time.monotonic() - began:.0f} s in all")
    return status or (1 if left else 0)


def disk(machine: str) -> Path:
    """What machines boot."""
    return PODVM / machine / "podvm.qcow2"


def tour(logs: Path, machine: str) -> None:
    """The steps, each of which checks what it shows.

    Args:
        logs: A directory for the logs of all that is started.
        machine: What the pod's machine is.
    """
    with ExitStack() as stack:
        stack.enter_context(without_new_parents())
        stack.callback(_forget_runc)
        home = Path(tempfile.mkdtemp(prefix="kp-demo-", dir="/run"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        step("a private libvirtd, and the disk of `make podvm` as a volume of its pool")
        host = stack.enter_context(libvirtd())
        _shown(host, "vol-upload", "--pool", POOL, BASE, str(disk(machine)))
        adaptor = Adaptor(host, home, logs / "adaptor.log", machine)
        step("what the adaptor finds there, asked before it serves")
        show(adaptor.check())
        step("the adaptor serves", f"its log is {adaptor.log.relative_to(REPOSITORY)}")
        stack.enter_context(adaptor)
        step("a private containerd whose runtime class is kata-remote")
        containerd = CriContainerd(logs / "containerd", LAUNCHER, {HANDLER: _configuration(logs, adaptor.socket)})
        stack.enter_context(containerd)
        asyncio.run(_tour(host, adaptor, containerd, logs, machine))


class Adaptor:
    """A `cloud-api-adaptor libvirt` as a context manager; leaving it ends the process.

    Args:
        host: The libvirt host that machines are made on.
        home: A directory for its sockets and its pods; short.
        log: Its log.
        machine: What its machines are.
    """

    def __init__(self, host: Libvirtd, home: Path, log: Path, machine: str) -> None:
        self.socket, self.pods, self.log = home / "hypervisor.sock", home / "pods", log
        self._notice = home / "notice"
        kind = "qemu" if kvm.obstacle(machine, platform.machine()) else "kvm"
        cloud = ["-uri", host.uri, "-pool-name", POOL, "-network-name", NETWORK, "-vol-name", BASE]
        size = ["-domain-type", kind, "-firmware=", "-cpu", "2", "-memory", "1024", "-root-disk-size", "1"]
        if machine != platform.machine():
            size += ["-architecture", machine]
        node = ["-socket", str(self.socket), "-pods-dir", str(self.pods), "-host-interface", host.bridge]
        self._line = [str(ADAPTOR), "libvirt", *cloud, *size, *node, "-owner", "demo"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Adaptor:
        print(f"    $ {shlex.join(['cloud-api-adaptor', *self._line[1:]])}", flush=True)
        self.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.end()

    def check(self) -> str:
        """What `-check` says of the host."""
        line = [*self._line, "-check", "-log-level", "error"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=READY_TIMEOUT, check=False)
        expect(done.returncode == 0, f"-check: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start it, and wait until it says that it serves, as a service manager does.

        Raises:
            DemoError: It has ended, or does not serve in time.
        """
        self._notice.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, self.log.open("ab") as log:
            listener.bind(str(self._notice))
            listener.settimeout(0.1)
            environ = {**os.environ, "NOTIFY_SOCKET": str(self._notice)}
            self._process = subprocess.Popen(
                self._line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )
            deadline = time.monotonic() + READY_TIMEOUT
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    listener.recv(100)
                except TimeoutError:
                    continue
                return
        raise DemoError(f"the adaptor does not serve: {self.log.read_text()[-2000:]}")

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal; its machines run on."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _tour(host: Libvirtd, adaptor: Adaptor, containerd: CriContainerd, logs: Path, machine: str) -> None:
    before = _machines(host)
    async with (
        registries.serving(logs / "registry", host=f"{host.subnet}.1", encrypted=True) as registry,
        client.connected(containerd.address) as manager,
    ):
        step("a registry with an image, which the pod's machine will pull")
        image = await _image(registry, containerd, logs, machine)
        show(image)
        await client.serving(manager)
        neighbours = Pods(manager, REFERENCE, logs / "pods")
        async with neighbours.run("neighbour") as neighbour:
            step("a pod of the class kata-remote, through the CRI, as Kubernetes asks for it")
            async with _pod(manager, logs, _initdata(registry)) as pod:
                await _inside(host, adaptor, pod, neighbour, image, machine)
            step("the pod is deleted, and its machine with it")
            await _gone(host, adaptor, before)


async def _inside(host: Libvirtd, adaptor: Adaptor, pod: Pod, neighbour: Pod, image: str, machine: str) -> None:
    for name in _machines(host):
        show(name)
    script = "echo hello from the machine; exec sleep 1000"
    container = await pod.run("sh", "-c", script, name="app", image=cri.ImageSpec(image=image))

    step("a container in it: its kernel is the machine's")
    kernel = await _said(container, "uname -srm")
    ours = f"{platform.system()} {platform.release()} {platform.machine()}"
    print(f"\n    host kernel   {ours}\n    guest kernel  {kernel}")
    expect(kernel != ours, "the container saw the host's kernel: it ran in no virtual machine")
    expect(kernel.endswith(machine), f"the container's machine is none of {machine}")

    step("its log, as Kubernetes reads it on this node")
    await container.wrote(b"hello from the machine\n")
    show(container.log_path.read_text())

    step("the machine has the pod's network: a neighbour on this node, and back")
    there = (await neighbour.status()).network.ip
    await _said(container, f"ip -4 -o address show eth0; ping -c 2 {there}")
    visitor = await neighbour.run("sleep", "1000", name="visitor")
    await _said(visitor, f"ping -c 2 {(await pod.status()).network.ip}")

    step("the adaptor is killed and started anew; the pod does not mind")
    await asyncio.to_thread(adaptor.end, signal.SIGKILL)
    await asyncio.to_thread(adaptor.start)
    await _said(container, "echo still here")

    step("where the pod's time went")
    print(table(Record.load(pod.id).timeline))


@asynccontextmanager
async def _pod(manager: Cri, logs: Path, initdata: str) -> AsyncIterator[Pod]:
    """The peer pod; its machine may take longer to boot than the CRI's calls commonly do."""
    config = Pods(manager, HANDLER, logs / "pods").config(NAME, annotations={INITDATA: initdata})
    request = cri.RunPodSandboxRequest(config=config, runtime_handler=HANDLER)
    pod = await begin(manager, request, BOOT_TIMEOUT)
    try:
        yield pod
    finally:
        await pod.end()


async def _image(registry: registries.Registry, containerd: CriContainerd, logs: Path, machine: str) -> str:
    """Put an image into the registry, and let containerd know one of this node's by the same name; returns it."""
    root = logs / "rootfs"
    await asyncio.to_thread(_rootfs, root, machine)
    image = await registry.push("demo/busybox:1", registries.layer_of(root), architecture=OCI[machine])
    archive = logs / "image.tar"
    await asyncio.to_thread(oci_image.build, archive, image)
    await asyncio.to_thread(containerd.ctr, "images", "import", str(archive))
    return image


def _rootfs(directory: Path, machine: str) -> None:
    directory.mkdir()
    oci_image.rootfs(directory)
    if machine != platform.machine():  # all applets are links to it; the disk's build has one for its machines
        busybox = PODVM / machine / "cache" / machine / "root/usr/bin/busybox"
        (directory / "bin/busybox").write_bytes(busybox.read_bytes())


def _initdata(registry: registries.Registry) -> str:
    """What lets the pod's machine trust the registry's certificate."""
    certificate = json.dumps((registry.directory / "certificate").read_text())
    hub = f"[image]\nextra_root_certificates = [{certificate}]\n"
    text = f'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"cdh.toml" = \'\'\'\n{hub}\'\'\'\n"aa.toml" = ""\n'
    return base64.b64encode(gzip.compress(text.encode())).decode()


def _configuration(logs: Path, socket: Path) -> Path:
    """The shipped configuration, but for the socket, and for who pulls: no snapshotter tells."""
    changes = {
        "[hypervisor.remote]\n": f'[hypervisor.remote]\nremote_hypervisor_socket = "{socket}"\n',
        "[runtime]\n": "[runtime]\nexperimental_force_guest_pull = true\n",
    }
    text = SHIPPED.read_text()
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    path = logs / "configuration.toml"
    path.write_text(text)
    return path


def _machines(host: Libvirtd) -> list[str]:
    """What libvirt has of machines: domains, and volumes of its pool."""
    domains = [f"domain {name}" for name in host.virsh("list", "--all", "--name").split()]
    return domains + [f"volume {line.split()[0]}" for line in host.virsh("vol-list", POOL).splitlines() if line]


async def _gone(host: Libvirtd, adaptor: Adaptor, before: list[str]) -> None:
    """Wait until nothing of the pod is left in libvirt, or on the adaptor's records."""
    async with asyncio.timeout(GONE_TIMEOUT):
        while _machines(host) != before or any(adaptor.pods.iterdir()):  # noqa: ASYNC110 volumes have no event
            await asyncio.sleep(0.2)
    for name in before:
        show(name)


def _forget_runc() -> None:
    """The neighbour's runtime leaves its empty directories behind."""
    for path in (RUNC / CriContainerd.namespace, RUNC):
        with suppress(OSError):  # not empty, or never made
            path.rmdir()


def _shown(host: Libvirtd, *arguments: str) -> None:
    print(f"    $ virsh {shlex.join(arguments)}", flush=True)
    show(host.virsh(*arguments))


async def _said(container: Container, script: str) -> str:
    show(f"$ {script}")
    outcome = await container.exec("sh", "-c", script)
    said = outcome.stdout.decode().rstrip("\n")
    show(said)
    expect(outcome.code == 0, f"{script} ended with {outcome.code}: {outcome.stderr.decode(errors='replace')}")
    return said


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
