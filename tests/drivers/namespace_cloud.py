"""A cloud without machines: a real forwarder and a real agent in fresh namespaces of this host, one set per "machine".

It makes the whole path from manager through adaptor and tunnel to crun testable in seconds. Machines are processes of
their own that outlive the adaptor, as a cloud's do; what is known of them lies in files, which stand for the cloud's
own memory. Not for production: nothing here isolates anybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, ClassVar, Self

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import (
    OWNER_TAG,
    Finding,
    Instance,
    InstanceRequest,
    Owned,
    Target,
)
from kata_caa.settings import setting
from kata_py.resource.cgroup import hand_down
from kata_py.resource.file import replace
from kata_py.resource.process import kill, start_time
from kata_py.resource.undo import RemoveCgroup
from tests.drivers.namespace import Hierarchy, script

logger = logging.getLogger(__name__)

AGENT = "/run/kata-containers/agent.sock"
_RECORD = "instance.json"
_TIMEOUT = 20.0  # seconds


@dataclass(frozen=True)
class NamespaceCloudConfig:
    """Where the cloud is."""

    directory: str = setting("", "cloud-dir", "KATA_TEST_CLOUD_DIR", "where it remembers its machines")
    bridge: str = setting("kpcloud", "cloud-bridge", "KATA_TEST_CLOUD_BRIDGE", "what machines are connected to")
    network: str = setting("198.18.0.1/24", "cloud-network", "KATA_TEST_CLOUD_NETWORK", "the bridge's address")


class NamespaceCloud:
    """The provider; satisfies `kata_caa.providers.api.Provider` once it is entered."""

    config: ClassVar[type] = NamespaceCloudConfig

    def __init__(self, settings: NamespaceCloudConfig) -> None:
        self._settings = settings
        self._directory = Path(settings.directory)
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Machines run on."""

    async def create(self, request: InstanceRequest) -> Instance:
        """As `Provider.create`."""
        async with self._lock:  # addresses are given one by one
            return await asyncio.to_thread(self._create, request)

    async def delete(self, target: Target) -> None:
        """As `Provider.delete`."""
        await asyncio.to_thread(self._delete, target.sandbox_id)

    async def owned(self, owner: str) -> Sequence[Owned]:
        """As `Provider.owned`."""
        return [
            Owned("instance", content["id"], content["sandbox"], content["name"])
            for _, content in self._machines()
            if content["tags"].get(OWNER_TAG) == owner
        ]

    async def check(self) -> Sequence[Finding]:
        """As `Provider.check`."""
        there = self._directory.is_dir()
        return [Finding("cloud", there, str(self._directory) if there else "set KATA_TEST_CLOUD_DIR to a directory")]

    def _machines(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for home in sorted(self._directory.iterdir()):
            with suppress(FileNotFoundError):
                yield home, json.loads((home / _RECORD).read_text())

    def _create(self, request: InstanceRequest) -> Instance:
        known = {content["sandbox"]: (home, content) for home, content in self._machines()}
        if found := known.get(request.target.sandbox_id):
            home, content = found
            if content["pid"] and start_time(content["pid"]) == content["born"]:
                return Instance(content["id"], (content["address"],))
            self._delete(request.target.sandbox_id)
        bridge = ip_interface(self._settings.network)
        taken = {content["address"] for _, content in self._machines()} | {str(bridge.ip)}
        address = next(str(host) for host in bridge.network.hosts() if str(host) not in taken)
        home = self._directory / request.target.name
        content = {
            "id": f"ns-{request.target.name}", "sandbox": request.target.sandbox_id, "name": request.target.name,
            "address": address, "tags": dict(request.tags), "pid": 0, "born": 0,
        }  # fmt: skip
        try:
            home.mkdir()
            replace(str(home / _RECORD), json.dumps(content))
            (home / "user-data").write_text(request.user_data)
            child = self._boot(home, request.target.name, address)
            content |= {"pid": child, "born": start_time(child)}
            replace(str(home / _RECORD), json.dumps(content))
        except OSError as error:
            raise ProviderError(Fault.TRANSIENT, f"the machine cannot be made: {error}") from error
        return Instance(str(content["id"]), (address,))

    def _boot(self, home: Path, name: str, address: str) -> int:
        """Start a machine's processes and connect it; returns the process whose end is the machine's."""
        (home / "run").mkdir()
        hierarchies = Hierarchy.all()
        cgroups = [_cgroup(hierarchy, name) for hierarchy in hierarchies]
        inside = script(home / "run", [], hierarchies, cgroups)
        line = ["unshare", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        line += ["sh", "-euc", f"echo here >&0\nread go\n{inside}", "machine", "sh", "-euc", _machine(home)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environ.pop("NOTIFY_SOCKET", None)  # the adaptor's; crun would wait for containers that say they are ready
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, (home / "console").open("w") as console:
                child = subprocess.Popen(
                    line, stdin=theirs, stdout=console, stderr=console, start_new_session=True, env=environ
                )
            try:
                ours.settimeout(_TIMEOUT)
                if not ours.recv(16):  # before, its namespaces are this process's
                    raise OSError("the machine's namespaces cannot be made")
                self._connect(child.pid, address)
            except OSError:
                child.kill()
                child.wait()
                raise
            ours.sendall(b"go\n")
        child.returncode = 0  # it is nobody's child: the cloud's
        return child.pid

    def _connect(self, pid: int, address: str) -> None:
        """Connect a machine to the bridge."""
        link = f"kpm{address.rpartition('.')[2]}"
        prefix = ip_interface(self._settings.network).network.prefixlen
        gateway = ip_interface(self._settings.network).ip
        for words in (
            f"ip link add {link} type veth peer name eth0 netns {pid}",
            f"ip link set {link} master {self._settings.bridge} up",
            f"nsenter --net=/proc/{pid}/ns/net ip addr add {address}/{prefix} dev eth0",
            f"nsenter --net=/proc/{pid}/ns/net ip link set eth0 up",
            f"nsenter --net=/proc/{pid}/ns/net ip link set lo up",
            f"nsenter --net=/proc/{pid}/ns/net ip route add default via {gateway}",
        ):
            done = subprocess.run(words.split(), capture_output=True, text=True, timeout=_TIMEOUT, check=False)
            if done.returncode:
                raise OSError(f"{words}: {done.stderr.strip()}")

    def _delete(self, sandbox_id: str) -> None:
        for home, content in list(self._machines()):
            if content["sandbox"] != sandbox_id:
                continue
            console = (home / "console").read_text(errors="replace") if (home / "console").exists() else ""
            logger.info("the console of %s:\n%s", content["name"], console)
            if content["pid"]:
                kill(content["pid"], content["born"], 9, name="machine")
            for hierarchy in Hierarchy.all():
                RemoveCgroup(str(hierarchy.place / f"kata-cloud-{content['name']}")).perform()
            shutil.rmtree(home)


def _machine(home: Path) -> str:
    """What runs in a machine: as in a pod VM, but for what its kernel and its network need."""
    python = shlex.quote(sys.executable)
    return "\n".join([
        "mount -n -t tmpfs tmpfs /media && mkdir /media/cidata",
        f"cp {shlex.quote(str(home))}/user-data /media/cidata/user-data",
        "mkdir -p /run/kata-containers /run/netns",
        'mkdir /run/peerpod && cp "$KATA_TEST_REGISTRIES" /run/peerpod/registries.conf',
        f"{python} -c {_called('provision', 'main')} provision-files",
        f"(while :; do {python} -c {_called('boot', 'serve')} || sleep 1; done) &",
        f"exec {python} -m kata_agent --server-addr unix://{AGENT} --log debug",
    ])  # fmt: skip


def _called(module: str, name: str) -> str:
    program = f"from kata_caa.forwarder.{module} import {name}; sys.exit({name}())"
    return shlex.quote(f"import logging, sys; logging.basicConfig(level=logging.INFO); {program}")


def _cgroup(hierarchy: Hierarchy, name: str) -> Path:
    path = hierarchy.place / f"kata-cloud-{name}"
    path.mkdir()
    if hierarchy.is_whole:
        hand_down(hierarchy.place)
    elif "cpuset" in hierarchy.options.split(","):
        for value in ("cpuset.cpus", "cpuset.mems"):
            (path / value).write_text((hierarchy.place / value).read_text())
    return path
