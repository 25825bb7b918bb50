"""A private containerd that serves the CRI, as a node's does: pods, a network for them, streams.

What it does to the machine besides its own directory is undone when it ends: the pods' bridge, rules for published
ports, the switch for forwarding.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kata_py.resource.mount import mount_points
from tools.containerd import RUNTIME, PrivateContainerd

PAUSE = "docker.io/library/kata-py-pause:latest"
CNI_PLUGINS = Path("/usr/lib/cni")  # Debian package containernetworking-plugins
BRIDGE = "kata-py-cri0"
SUBNET = "10.210.0.0/24"
GATEWAY = "10.210.0.1"
REFERENCE = "runc"  # a handler without our shim

# Like the pause program: waits for a signal, and for the orphans that a shared pid namespace brings it.
_PAUSE_COMMAND = ("/bin/sh", "-c", "trap exit TERM INT; while :; do sleep 86400 & wait; done")

COMMAND_TIMEOUT = 30.0  # seconds

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")

_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{directory}/containerd.sock"
[debug]
level = "{level}"
[plugins."io.containerd.internal.v1.opt"]
path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stats_collect_period = 1
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{directory}/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "{default}"
"""

_HANDLER = """\
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "{runtime}"
privileged_without_host_devices = true
pod_annotations = ["io.katacontainers.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
ConfigPath = "{config}"
"""

# The reference: what a case shows with it, it shall show with us.
_REFERENCE_HANDLER = """\
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
"""


class CriContainerd(PrivateContainerd):
    """A running containerd with its CRI plug-in; see `PrivateContainerd`.

    Args:
        directory: Where all of it lives; made when missing.
        launcher: The shim's program.
        handlers: `configuration.toml` of each runtime handler; the first is the default.
        env: Added to containerd's environment, and so to the shim's.
    """

    namespace = "k8s.io"

    def __init__(
        self, directory: Path, launcher: Path, handlers: Mapping[str, Path], *, env: Mapping[str, str] | None = None
    ) -> None:
        self._handlers = {name: path.absolute() for name, path in handlers.items()}
        super().__init__(directory, launcher, next(iter(self._handlers.values())), env=env)
        self._networks = self.directory / "cni"

    def is_own(self, line: str) -> bool:
        """Whether a line of a footprint is its own, and not a pod's.

        It may have been restarted, and the portmap plug-in keeps its chains from the first published port on.
        """
        if "CNI-DN-" in line:  # a pod's
            return False
        return line.startswith(f"processes: {self.pid} ") or "CNI-HOSTPORT-" in line

    def fetch(self, address: str) -> str:
        """The page that a pod serves at its address, without the end of its last line."""
        with urllib.request.urlopen(f"http://{address}/", timeout=COMMAND_TIMEOUT) as answer:
            page: bytes = answer.read()
        return page.decode().rstrip("\n")

    def _config(self) -> str:
        default = next(iter(self._handlers))
        head = _CONFIG.format(
            directory=self.directory, level="debug", pause=PAUSE, plugins=CNI_PLUGINS, default=default
        )  # fmt: skip
        handlers = (_HANDLER.format(name=name, runtime=RUNTIME, config=path) for name, path in self._handlers.items())
        return head + "".join(handlers) + _REFERENCE_HANDLER.format(name=REFERENCE)

    def _prepare(self, stack: ExitStack) -> None:
        stack.callback(self._unmount_networks)
        stack.enter_context(_forwarding())
        stack.enter_context(_rules())
        stack.enter_context(_bridge())
        path = self._networks / "net.d" / "10-kata-py.conflist"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._network_list(), indent=1))

    def _network_list(self) -> dict[str, object]:
        """The pods' network. Source: CNI specification 1.0, plug-ins bridge, host-local and portmap."""
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": SUBNET, "gateway": GATEWAY}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self._networks / "addresses"),
        }
        bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        return {"cniVersion": "0.4.0", "name": "kata-py", "plugins": [bridge, portmap]}

    def _import_images(self) -> None:
        super()._import_images()
        self._import_image(PAUSE, _PAUSE_COMMAND)

    def _unmount_networks(self) -> None:
        """Let the network namespaces go that pods have left."""
        for place in mount_points():
            if Path(place).is_relative_to(self.directory):
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


@contextmanager
def _bridge() -> Iterator[None]:
    """The pods' bridge is there from the beginning: it is not a pod that leaves it behind."""
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        yield
    finally:
        _run("ip", "link", "delete", BRIDGE)


@contextmanager
def _forwarding() -> Iterator[None]:
    """The bridge plug-in lets the machine forward; afterwards it does as before."""
    before = _FORWARD.read_text()
    try:
        yield
    finally:
        _FORWARD.write_text(before)


@contextmanager
def _rules() -> Iterator[None]:
    """The portmap plug-in keeps its chains for the next pod; afterwards those are gone that were not there before."""
    before = _chains()
    try:
        yield
    finally:
        new = _chains() - before
        for rule in _run("iptables", "--table", "nat", "--list-rules").splitlines():
            words = shlex.split(rule)
            if words[0] == "-A" and words[1] not in new and words[-1] in new:
                _run("iptables", "--table", "nat", "--delete", *words[1:])
        for option in ("--flush", "--delete-chain"):
            for chain in sorted(new):
                _run("iptables", "--table", "nat", option, chain)


def _chains() -> set[str]:
    rules = (rule.split() for rule in _run("iptables", "--table", "nat", "--list-rules").splitlines())
    return {words[1] for words in rules if words[0] == "-N"}


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT).stdout
