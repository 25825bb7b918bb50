"""A libvirtd for tests: its own directories, sockets, pool and network, and gone with all it started.

It runs in a mount and a PID namespace of its own, so that libvirt's fixed paths (/etc/libvirt, /var/lib/libvirt …) are
private directories. Its bridge and dnsmasq are in the network namespace of the test: run such tests in a room.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

POOL, NETWORK = "pods", "pods"
BASE = "podvm-base.qcow2"
START_TIMEOUT = 60.0  # seconds; a first start asks each QEMU what it can do
PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt")
EMULATORS = ("qemu-system-x86_64", "qemu-system-s390x")
TOOLS = ("qemu-img", "sh", "bash", "env", "ip", "tc", "sed", "busybox", "cat", "nsenter", "unshare")

# The first process of the namespace takes orphans in: a QEMU that is not reaped never seems to end.
INIT = """
import ctypes, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
mount = ctypes.CDLL(None, use_errno=True).mount
for source, target in zip(sys.argv[1::2], sys.argv[2::2]):
    assert mount(source.encode(), target.encode(), None, 4096, None) == 0, target
print("ready", flush=True)
while True:
    signal.pause()
"""

QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
"""
LIBVIRTD_CONF = """
unix_sock_dir = "{top}/sock"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:{top}/libvirtd.log"
"""
POOL_XML = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
NETWORK_XML = """
<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>{name}</name><forward mode='nat'/><bridge name='{bridge}' stp='off' delay='0'/>
  <ip address='{subnet}.1' netmask='255.255.255.0'><dhcp><range start='{subnet}.10' end='{subnet}.250'/></dhcp></ip>
  <dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options>
</network>
"""

# What a guest would do, done for one that cannot: asks for a lease for each interface of a machine that has started.
GIVING_HOOK = """#!/bin/sh
[ "$2" = started ] || exit 0
for mac in $(sed -n "s/.*<mac address='\\(.*\\)'.*/\\1/p"); do
    ip link add kpg$$ address "$mac" type veth peer name kpp$$
    ip link set kpp$$ master @BRIDGE@ up
    ip link set kpg$$ up
    busybox udhcpc -i kpg$$ -n -q -f -s /bin/true -t 10 -T 1 > /dev/null 2>&1
    ip link del kpg$$
done
"""


@dataclass
class Libvirtd:
    """A running libvirtd.

    Attributes:
        top: Its directory; `pool` below holds the volumes.
        bridge: Its network's.
        subnet: Its network's addresses begin so.
    """

    top: Path
    bridge: str
    subnet: str
    _init: int
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"qemu:///system?socket={self.top}/sock/libvirt-sock"

    @property
    def pool(self) -> Path:
        return self.top / "pool"

    def virsh(self, *arguments: str, check: bool = True) -> str:
        """virsh(1); gives what it prints."""
        done = subprocess.run(
            ["virsh", "-q", "-c", self.uri, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=60, start_new_session=True,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"virsh {' '.join(arguments)}: {done.stdout}"
        return done.stdout.strip()

    def define(self, kind: str, xml: str) -> None:
        """Define an object by its XML: `net-define`, `pool-define`, `define`."""
        path = self.top / f"{kind}.xml"
        path.write_text(xml)
        self.virsh(kind, str(path))

    def base(self, name: str = BASE, size: str = "64M", fmt: str = "qcow2") -> None:
        """An empty image in the pool."""
        self.virsh("vol-create-as", POOL, name, size, "--format", fmt)

    def log(self) -> str:
        """What it logged."""
        path = self.top / "libvirtd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it (again); returns when it answers."""
        path = f"{self.top}/bin:/usr/sbin:/sbin"
        self._spawn("libvirtd", {"PATH": path})
        deadline = time.monotonic() + START_TIMEOUT
        while subprocess.run(["virsh", "-q", "-c", self.uri, "version"], capture_output=True).returncode:
            assert time.monotonic() < deadline, f"libvirtd did not answer in {START_TIMEOUT} s: {self.log()}"
            assert self._children["libvirtd"].poll() is None, f"libvirtd ended: {self.log()}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        child = self._children["libvirtd"]
        (pid,) = map(int, Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split())
        os.kill(pid, number)

    def kill(self) -> None:
        """Kill it; its machines go on."""
        self.signal(signal.SIGKILL)
        self._children["libvirtd"].wait(10)

    def run(self, *argv: str) -> None:
        """Run a program with its view of the file system."""
        subprocess.run(["nsenter", f"--target={self._init}", "--mount", *argv], check=True, timeout=20)

    def _spawn(self, program: str, environment: Mapping[str, str] | None = None) -> None:
        line = ["nsenter", f"--target={self._init}", "--mount", "--pid", f"/usr/sbin/{program}"]
        line += ["-f", str(self.top / f"{program}.conf"), "-p", str(self.top / f"{program}.pid")]
        with (self.top / f"{program}.out").open("ab") as out:
            # A session of its own: what interrupts the test must not end it before its networks are undone.
            self._children[program] = subprocess.Popen(
                line, env={**os.environ, **(environment or {})}, stdout=out, stderr=out, start_new_session=True
            )

    def start_virtlogd(self) -> None:
        """Start virtlogd, which libvirtd needs; returns when it listens."""
        self._spawn("virtlogd")
        _listens(self.top / "run/virtlogd-sock")


def _listens(path: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
                return
            except OSError:
                assert time.monotonic() < deadline, f"nobody listens at {path}"
                time.sleep(0.02)


@contextmanager
def libvirtd(*, hook: str = "") -> Iterator[Libvirtd]:
    """Run one, with a pool and a NAT network that gives addresses, and an empty base image.

    Args:
        hook: A script that is told of each machine's start, /etc/libvirt/hooks/qemu.
    """
    with ExitStack() as stack:
        number = next(n for n in itertools.count() if not Path(f"/sys/class/net/kplv{n}").exists())
        bridge, subnet = f"kplv{number}", f"192.168.{200 + number}"
        top = Path(tempfile.mkdtemp(prefix="kp-lv-", dir="/tmp"))
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        for name in ("etc", "lib", "cache", "log", "run", "pool", "bin", "sock"):
            (top / name).mkdir()
        (top / "etc/qemu.conf").write_text(QEMU_CONF)
        (top / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(top=top))
        (top / "virtlogd.conf").touch()
        for tool in (*EMULATORS, *TOOLS):  # of all QEMUs of the host, these are asked what they can do
            if found := shutil.which(tool):
                (top / "bin" / tool).symlink_to(found)
        if hook:
            (top / "etc/hooks").mkdir()
            (top / "etc/hooks/qemu").write_text(hook.replace("@BRIDGE@", bridge))
            (top / "etc/hooks/qemu").chmod(0o755)
        for place in PLACES:
            Path(place).mkdir(parents=True, exist_ok=True)
        holder = stack.enter_context(_namespaces(top))
        daemon = Libvirtd(top, bridge, subnet, holder)
        stack.callback(_end, daemon)
        daemon.start_virtlogd()
        daemon.start()
        daemon.define("pool-define", POOL_XML.format(name=POOL, path=daemon.pool))
        daemon.virsh("pool-start", POOL)
        daemon.define("net-define", NETWORK_XML.format(name=NETWORK, bridge=bridge, subnet=subnet))
        daemon.virsh("net-start", NETWORK)
        daemon.base()
        yield daemon


@contextmanager
def _namespaces(top: Path) -> Iterator[int]:
    binds: Sequence[str] = [
        part
        for name, place in zip(("etc", "lib", "cache", "log", "run"), PLACES, strict=True)
        for part in (f"{top}/{name}", place)
    ]
    line = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    line += [sys.executable, "-S", "-c", INIT, *binds]
    with subprocess.Popen(line, stdout=subprocess.PIPE, start_new_session=True) as holder:
        try:
            out: IO[bytes] | None = holder.stdout
            assert out is not None
            assert out.readline() == b"ready\n"
            (init,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            yield int(init)
        finally:
            holder.kill()


def _end(daemon: Libvirtd) -> None:
    for name in daemon.virsh("list", "--name", check=False).split():
        daemon.virsh("destroy", name, check=False)
    daemon.virsh("net-destroy", NETWORK, check=False)
    for child in daemon._children.values():
        child.kill()
        child.wait()
