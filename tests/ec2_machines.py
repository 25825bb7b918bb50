"""A machine behind every instance of the tests' EC2: QEMU boots it from NVMe by UEFI, as EC2 does.

It has the instance's MAC address, gets the instance's address by DHCP, and asks the metadata service (IMDSv2) for its
user data. All of it is behind one bridge of the network namespace of the test: run such tests in a room.
"""

from __future__ import annotations

import base64
import http.server
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.moto import Ec2Server

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

BRIDGE, GATEWAY, NETWORK = "kpec2", "198.19.7.1", "198.19.7.0/24"
METADATA = "169.254.169.254"
MEMORY = 1024  # MiB
_FIRMWARE = Path("/usr/share/OVMF")
_TIMEOUT = 20  # seconds for a program, or for the end of one
_LIVE = ("pending", "running")


@dataclass
class Machine:
    """A machine that runs.

    Attributes:
        instance: Whose it is.
        console: What it says.
    """

    instance: str
    console: Path
    _open: ExitStack


@dataclass
class Machines:
    """The machines.

    Attributes:
        ec2: Whose instances they are.
        disk: What they boot, qcow2.
        top: For their files.
        subnet: Where instances are to be made, to be reached.
        group: A security group of its network.
        asked: What was asked of the metadata service, by whom: method and path, and the status of the answer.
    """

    ec2: Ec2Server
    disk: Path
    top: Path
    subnet: str
    group: str
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    running: dict[str, Machine] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tokens: set[str] = field(default_factory=set)
    _dhcp: subprocess.Popen[bytes] | None = None

    def follow(self, action: str, parameters: Mapping[str, str]) -> None:
        """Have a machine for each instance of the subnet that lives, and no other; to be called after each call."""
        if action in ("RunInstances", "TerminateInstances"):
            with self._lock:
                self._follow()

    def end(self) -> None:
        """End all."""
        with self._lock:
            for id in [*self.running]:
                self.running.pop(id)._open.close()

    def consoles(self) -> str:
        """What all of them have said."""
        return "\n".join(
            f"==> {path.name}\n{path.read_text(errors='replace')}" for path in sorted(self.top.glob("*.log"))
        )

    def user_data(self, address: str) -> bytes | None:
        """What the metadata service has for a machine."""
        for instance in self._instances():
            if instance["PrivateIpAddress"] == address:
                found = self.ec2.api.describe_instance_attribute(
                    Attribute="userData", InstanceId=instance["InstanceId"]
                )
                return base64.b64decode(found["UserData"]["Value"])
        return None

    def answer(self, address: str, method: str, path: str, headers: Message) -> tuple[int, bytes]:
        """What the metadata service answers; version 2 alone, as our machines have it.

        Source: Amazon EC2 user guide, "Use the Instance Metadata Service".
        """
        if (method, path) == ("PUT", "/latest/api/token"):
            if not headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdecimal():
                return 400, b""
            token = secrets.token_urlsafe(30)
            self._tokens.add(token)
            return 200, token.encode()
        if headers.get("X-aws-ec2-metadata-token") not in self._tokens:
            return 401, b""
        data = self.user_data(address) if (method, path) == ("GET", "/latest/user-data") else None
        return (404, b"") if data is None else (200, data)

    def _instances(self) -> list[InstanceTypeDef]:
        return [
            instance
            for page in self.ec2.api.get_paginator("describe_instances").paginate()
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
            if instance["State"]["Name"] in _LIVE and instance.get("SubnetId") == self.subnet
        ]

    def _follow(self) -> None:
        live = {instance["InstanceId"]: instance for instance in self._instances()}
        for id in self.running.keys() - live:
            self.running.pop(id)._open.close()
        hosts = [
            f"{instance['NetworkInterfaces'][0]['MacAddress']},{instance['PrivateIpAddress']}\n"
            for instance in live.values()
        ]
        (self.top / "hosts").write_text("".join(hosts))
        assert self._dhcp is not None
        self._dhcp.send_signal(signal.SIGHUP)
        for id in live.keys() - self.running:
            self.running[id] = self._boot(id, live[id]["NetworkInterfaces"][0]["MacAddress"])

    def _boot(self, id: str, mac: str) -> Machine:
        tap, console = f"kpe{id[-10:]}", self.top / f"{id}.log"
        disk, variables = self.top / f"{id}.qcow2", self.top / f"{id}.fd"
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(self.disk), str(disk), "2G")
        shutil.copyfile(_FIRMWARE / "OVMF_VARS_4M.fd", variables)
        with ExitStack() as stack:
            _run("ip", "tuntap", "add", tap, "mode", "tap")
            stack.callback(_run, "ip", "link", "delete", tap)
            _run("ip", "link", "set", tap, "master", BRIDGE, "up")
            line = [
                "qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-smp", "2", "-m", str(MEMORY),
                "-nodefaults", "-display", "none", "-serial", f"file:{console}", "-device", "virtio-rng-pci",
                "-smbios", "type=1,manufacturer=Amazon EC2,product=m6a.large",
                "-drive", f"if=pflash,format=raw,readonly=on,file={_FIRMWARE / 'OVMF_CODE_4M.fd'}",
                "-drive", f"if=pflash,format=raw,file={variables}",
                "-drive", f"if=none,id=root,format=qcow2,cache=unsafe,file={disk}",
                "-device", "nvme,drive=root,serial=vol0",
                "-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=net,mac={mac},romfile=",
            ]  # fmt: skip
            process = subprocess.Popen(line, start_new_session=True)
            stack.callback(_end, process)
            return Machine(id, console, stack.pop_all())


@contextmanager
def machines(ec2: Ec2Server, disk: Path, top: Path) -> Iterator[Machines]:
    """Have machines for a server's instances, as long as the context lasts.

    Args:
        ec2: The server.
        disk: What machines boot, qcow2.
        top: For their files.
    """
    vpc = ec2.api.create_vpc(CidrBlock=NETWORK)["Vpc"]["VpcId"]
    subnet = ec2.api.create_subnet(VpcId=vpc, CidrBlock=NETWORK)["Subnet"]["SubnetId"]
    (group,) = ec2.api.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
    found = Machines(ec2, disk, top, subnet, group["GroupId"])
    with ExitStack() as stack:
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(_run, "ip", "link", "delete", BRIDGE)
        for address in (f"{GATEWAY}/24", f"{METADATA}/32"):
            _run("ip", "addr", "add", address, "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        stack.enter_context(_metadata(found))
        found._dhcp = _dhcp(top)
        stack.callback(_end, found._dhcp)
        stack.callback(found.end)
        ec2.after = found.follow
        yield found


def _dhcp(top: Path) -> subprocess.Popen[bytes]:
    """Give each machine the address of its instance."""
    (top / "hosts").touch()
    line = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=0",
        f"--interface={BRIDGE}", "--bind-dynamic", "--dhcp-authoritative", "--no-ping",
        f"--dhcp-range={NETWORK.partition('/')[0]},static", f"--dhcp-option=option:router,{GATEWAY}",
        f"--dhcp-hostsfile={top / 'hosts'}", f"--dhcp-leasefile={top / 'leases'}",
        f"--log-facility={top / 'dnsmasq.log'}",
    ]  # fmt: skip
    return subprocess.Popen(line, start_new_session=True)


@contextmanager
def _metadata(machines: Machines) -> Iterator[None]:
    """Serve what an instance may know of itself."""
    with http.server.ThreadingHTTPServer((METADATA, 80), partial(_Metadata, machines)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="metadata")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Metadata(http.server.BaseHTTPRequestHandler):
    def __init__(self, machines: Machines, *arguments: object) -> None:
        self._machines = machines
        super().__init__(*arguments)  # type: ignore[arg-type] # as the server has them

    def do_PUT(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        status, body = self._machines.answer(self.client_address[0], self.command, self.path, self.headers)
        self._machines.asked.append((self.client_address[0], f"{self.command} {self.path}", status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _run(*line: str) -> None:
    done = subprocess.run(line, capture_output=True, text=True, timeout=_TIMEOUT)
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(_TIMEOUT)
