"""EC2 on this machine: a moto server, and in front of it a proxy in which calls fail, and which does what moto lacks.

moto does not honour ClientToken, and shows at once what was made. The proxy answers a repeated token as EC2 does, and
can hide what is new for a while.
"""

from __future__ import annotations

import http.client
import http.server
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlencode

import boto3.session
import pytest
from moto import backends
from moto.ec2.models import ec2_backends
from moto.ec2.models.core import TaggedEC2Resource
from moto.server import ThreadedMotoServer

from tests import ebs

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}

_INSTANCE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")
_IMAGE = re.compile(rb"<imageId>(ami-[0-9a-f]+)</imageId>")
_INTERFACE = re.compile(rb"<networkInterfaceId>(eni-[0-9a-f]+)</networkInterfaceId>")
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>'
    "</Error></Errors><RequestID>r</RequestID></Response>"
)


class Refusal(Exception):
    """Raised by what is done before a call: EC2's answer to it.

    Attributes:
        code: EC2's.
        message: EC2's.
        status: Of HTTP.
    """

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


Before = Callable[[str, Mapping[str, str]], None]


def _nothing(action: str, parameters: Mapping[str, str]) -> None:
    pass


@dataclass
class Ec2Server:
    """EC2 as the provider sees it.

    Attributes:
        url: Where the proxy serves.
        before: Done before each call, in another thread, with the action and its parameters. A Refusal is answered;
            any other exception cuts the connection.
        after: Done after each call; any exception cuts the connection in the place of the answer.
        times: Gives how often a call is served, as by a network that repeats it; the last answer counts.
        hidden: How many of the next calls that describe something find nothing.
        remembers: Whether a token whose machine has ended is still known, as EC2 does for a while.
        seen: The calls that came.
        api: A client of moto's own, without the proxy.
    """

    url: str
    api: EC2Client
    before: Before = _nothing
    after: Before = _nothing
    times: Callable[[str, Mapping[str, str]], int] = lambda action, parameters: 1
    hidden: int = 0
    remembers: bool = False
    seen: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    @property
    def actions(self) -> list[str]:
        """The names of the calls that came."""
        return [action for action, _ in self.seen]

    @cached_property
    def image(self) -> str:
        """An AMI that boots by UEFI."""
        return next(
            image["ImageId"] for image in self.api.describe_images()["Images"]
            if image.get("BootMode") == "uefi" and image["Architecture"] == "x86_64"
        )  # fmt: skip

    @cached_property
    def subnets(self) -> list[str]:
        """The default network's subnets, one per zone."""
        return [subnet["SubnetId"] for subnet in self.api.describe_subnets()["Subnets"]]

    @cached_property
    def group(self) -> str:
        """The default network's security group."""
        return self.api.describe_security_groups()["SecurityGroups"][0]["GroupId"]

    def objects(self) -> list[str]:
        """All that can be made for a machine and is there.

        First interfaces are left out: moto neither tags them nor removes them with the machine.
        """
        api = self.api
        live: FilterTypeDef = {
            "Name": "instance-state-name",
            "Values": ["pending", "running", "stopping", "stopped"],
        }
        return sorted(
            [
                *(
                    instance["InstanceId"]
                    for reservation in api.describe_instances(Filters=[live])["Reservations"]
                    for instance in reservation["Instances"]
                ),
                *(volume["VolumeId"] for volume in api.describe_volumes()["Volumes"]),
                *(
                    interface["NetworkInterfaceId"]
                    for interface in api.describe_network_interfaces()["NetworkInterfaces"]
                    if interface.get("Attachment", {}).get("DeviceIndex") != 0
                ),
                *(address["AllocationId"] for address in api.describe_addresses()["Addresses"]),
            ]
        )


@contextmanager
def ec2_server() -> Iterator[Ec2Server]:
    """Serve EC2, empty but for moto's default network and images."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with ExitStack() as stack:
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        address = moto.get_host_and_port()
        session = boto3.session.Session(region_name=REGION, **KEYS)
        api = stack.enter_context(closing(session.client("ec2", endpoint_url="http://{}:{}".format(*address))))
        proxy = stack.enter_context(_Proxy(("127.0.0.1", 0), address))
        proxy.ec2 = server = Ec2Server(f"http://127.0.0.1:{proxy.server_port}", api)
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, name="ec2-proxy")
        thread.start()
        stack.callback(thread.join)
        stack.callback(proxy.shutdown)
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setattr(TaggedEC2Resource, "get_tags", _tags_of)
        modules = tuple(backends.list_of_moto_modules())
        environment.setattr(backends, "list_of_moto_modules", lambda: modules)  # read from disk for each call
        environment.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", server.url)  # the check asks these too
        environment.setenv("AWS_ENDPOINT_URL_EBS", server.url)
        yield server


def _register(answer: Answer, parameters: Mapping[str, str]) -> None:
    """Give an image what moto does not take from the call."""
    found = _IMAGE.search(answer.body)
    assert found is not None
    image = ec2_backends[ebs.ACCOUNT][REGION].amis[found[1].decode()]
    image.architecture = parameters["Architecture"]
    prefix = "TagSpecification.1.Tag"
    count = sum(key.startswith(prefix) and key.endswith(".Key") for key in parameters)
    image.add_tags({parameters[f"{prefix}.{n}.Key"]: parameters[f"{prefix}.{n}.Value"] for n in range(1, count + 1)})


def _tags_of(resource: Any) -> list[dict[str, str]]:
    """As moto's, which looks for them among those of all objects: with hundreds, that takes minutes."""
    tags: Mapping[str, str] = resource.ec2_backend.tags.get(resource.id, {})
    return [{"resource_id": resource.id, "key": key, "value": value} for key, value in tags.copy().items()]


class _Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    ec2: Ec2Server

    def __init__(self, address: tuple[str, int], moto: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.moto = moto
        self.lock = threading.Lock()
        self.tokens: dict[str, tuple[str, Future[Answer]]] = {}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: _Proxy

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.body = body = self.rfile.read(int(self.headers["Content-Length"]))
        if call := ebs.call_of(self.command, self.path):
            self._do_ebs(call, body)
            return
        parameters = {key: values[0] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        action = parameters.get("Action", "")
        ec2 = self.server.ec2
        try:
            with self.server.lock:
                ec2.seen.append((action, parameters))
            ec2.before(action, parameters)
            for _ in range(ec2.times(action, parameters)):
                answer = self._served(action, parameters)
            if action == "RegisterImage" and answer.status == 200:
                _register(answer, parameters)
            ec2.after(action, parameters)
        except Refusal as refusal:
            text = _ERROR.format(code=refusal.code, message=refusal.message)
            self._answer(Answer(refusal.status, text.encode()))
        except Exception:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(answer)

    def _do_ebs(self, call: ebs.Call, body: bytes) -> None:
        ec2 = self.server.ec2
        try:
            with self.server.lock:
                ec2.seen.append((call.action, call.parameters))
            ec2.before(call.action, call.parameters)
            if cause := ebs.objection(call, self.headers, body, REGION):
                raise Refusal("ValidationException", cause)
            with closing(http.client.HTTPConnection(*self.server.moto, timeout=30)) as moto:
                moto.request(self.command, self.path, body, dict(self.headers))
                reply = moto.getresponse()
                answer, headers = Answer(reply.status, reply.read()), reply.getheaders()
            started = json.loads(answer.body)["SnapshotId"] if call.action == "StartSnapshot" else ""
            ebs.done(call, started, REGION)
            ec2.after(call.action, call.parameters)
        except Refusal as refusal:
            text = json.dumps({"message": refusal.message}).encode()
            self._answer(Answer(refusal.status, text), [("x-amzn-ErrorType", refusal.code)])
        except Exception:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(answer, [each for each in headers if each[0].lower().startswith("x-amz")])

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, answer: Answer, headers: Sequence[tuple[str, str]] = (("Content-Type", "text/xml"),)) -> None:
        try:
            self.send_response(answer.status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except ConnectionError:
            self.close_connection = True  # who asked has gone

    def _served(self, action: str, parameters: dict[str, str]) -> Answer:
        if action.startswith("Describe"):
            with self.server.lock:
                hide, self.server.ec2.hidden = self.server.ec2.hidden > 0, max(0, self.server.ec2.hidden - 1)
            if hide:
                parameters = {**parameters, "Filter.1.Value.1": "hidden"}
            return self._forwarded(parameters)
        token = parameters.get("ClientToken")
        if not token or parameters.get("DryRun") == "true":
            return self._forwarded(parameters)
        return self._once(f"{action} {token}", parameters)

    def _once(self, token: str, parameters: dict[str, str]) -> Answer:
        """Serve a call with a token once, and repeat the answer."""
        body = urlencode(sorted(parameters.items()))
        with self.server.lock:
            first = token not in self.server.tokens
            known, future = self.server.tokens.setdefault(token, (body, Future()))
        if not first and self._ended(future.result(timeout=30)):
            if self.server.ec2.remembers:
                raise Refusal("IdempotentInstanceTerminated")
            with self.server.lock:
                self.server.tokens.pop(token, None)
            return self._once(token, parameters)
        if known != body:
            raise Refusal("IdempotentParameterMismatch")
        if first:
            future.set_result(self._forwarded(parameters))
        answer = future.result(timeout=30)
        if answer.status != 200:  # what failed made nothing, so the token is free again
            with self.server.lock:
                self.server.tokens.pop(token, None)
        return answer

    def _ended(self, answer: Answer) -> bool:
        """Whether the machine of an answer has ended since, or another object is not there any more."""
        api = self.server.ec2.api
        if id := _INSTANCE.search(answer.body):
            (found,) = api.describe_instances(InstanceIds=[id[1].decode()])["Reservations"][0]["Instances"]
            return found["State"]["Name"] == "terminated"
        if id := _INTERFACE.search(answer.body):
            ids: FilterTypeDef = {"Name": "network-interface-id", "Values": [id[1].decode()]}
            return not api.describe_network_interfaces(Filters=[ids])["NetworkInterfaces"]
        return False

    def _forwarded(self, parameters: Mapping[str, str]) -> Answer:
        with closing(http.client.HTTPConnection(*self.server.moto, timeout=30)) as moto:
            names = ("Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Target", "User-Agent")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            as_it_came = "X-Amz-Target" in headers  # Service Quotas has JSON; EC2 has forms
            moto.request("POST", "/", self.body if as_it_came else urlencode(parameters).encode(), headers)
            answer = moto.getresponse()
            return Answer(answer.status, answer.read())
