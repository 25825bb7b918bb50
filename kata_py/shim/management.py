"""The shim's management API: HTTP at `/run/vc/sbs/<sandbox>/shim-monitor.sock`, for `kata-ctl`, monitors, drivers.

Paths, methods and forms are those of kata `src/runtime/pkg/containerd-shim-v2/shim_management.go`; a request that
cannot be read is 400, a method that a path has not 501, whatever else fails 500 with its words. Nothing here waits
for the Task service, or lets it wait.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

from kata_protos.csi_pb2 import VolumeStatsResponse
from kata_py.http import server
from kata_py.http.debug import PATHS, Debug
from kata_py.http.server import Answer, HttpError, Request
from kata_py.hypervisor.api import HypervisorError
from kata_py.resource.blocking import off_loop
from kata_py.resource.journal import undone
from kata_py.resource.proc import worker
from kata_py.resource.undo import KillProcess, RemoveFile
from kata_py.sandbox.durations import Durations
from kata_py.sandbox.errors import DeadlineExceeded, InvalidArgument, NotFound, SandboxError, Unimplemented
from kata_py.sandbox.parts import Parts
from kata_py.sandbox.sockets import SOCKET
from kata_py.shim import bundle, guest_exec, metrics, overhead
from kata_py.shim.guest_exec import GuestExec
from kata_py.shim.overhead import Overhead, Usage
from kata_py.storage import direct
from kata_py.storage.errors import StorageError

logger = logging.getLogger(__name__)

METRICS_TIMEOUT = 2.0  # seconds for the agent's part; kata-monitor waits three for all of it
CHECK_TIMEOUT = 3.0  # seconds in which a healthy agent has said so
RESIZE_TIMEOUT = 10.0  # seconds until the guest has seen that a disk is larger
RESIZE_PAUSE = 0.2  # seconds between questions: the guest does not tell when it has

LOG_LEVELS = ("debug", "info", "warning", "error")

Method = Callable[[Request], Awaitable[Answer]]


@asynccontextmanager
async def serving(parts: Parts, tasks: Durations, *, debug: bool = False) -> AsyncIterator[None]:
    """Serve a sandbox's management API while the context lasts. Without it, the sandbox runs all the same.

    Args:
        parts: What the sandbox is made of.
        tasks: How long the manager's calls took.
        debug: Whether the shim tells of itself.
    """
    record = parts.record
    path, noted = record.directory / SOCKET, Path(record.bundle) / bundle.MONITOR_ADDRESS
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(undone(record, RemoveFile(str(noted))))
            stack.enter_context(undone(record, RemoveFile(str(path))))
            await stack.enter_async_context(server.serving(str(path), Management(parts, tasks, debug=debug).answer))
            bundle.write(record.bundle, bundle.MONITOR_ADDRESS, f"unix://{path}")
        except OSError as error:
            logger.warning("no management API for sandbox %s: %s", record.id, error)
        yield


class Management:
    """Answers the requests for one sandbox.

    Args:
        parts: What the sandbox is made of.
        tasks: How long the manager's calls took.
        debug: Whether the shim tells of itself.
    """

    def __init__(self, parts: Parts, tasks: Durations, *, debug: bool = False) -> None:
        self._tasks = tasks
        self._agent = parts.agent
        self._vm = parts.vm
        self._disks = parts.disks
        self._containers = parts.files
        self._overhead = Overhead()
        self._record = parts.record
        self._agent_has_metrics = True
        of_itself = Debug().answer
        self._routes: Mapping[str, Mapping[str, Method]] = {
            "/agent-url": {"GET": self._agent_url},
            "/agent-check": {"GET": self._agent_check},
            "/metrics": {"GET": self._metrics},
            "/direct-volume/stats": {"GET": self._volume_stats},
            "/direct-volume/resize": {"POST": self._volume_resize},
            **{
                path: {"GET": partial(self._rules, ipv6=ipv6), "PUT": partial(self._set_rules, ipv6=ipv6)}
                for path, ipv6 in (("/iptables", False), ("/ip6tables", True))
            },
            "/policy": {"PUT": self._set_policy},
            "/exec": {"POST": self._exec},
            "/log-level": {"GET": self._log_level, "PUT": self._set_log_level},
            **({path: {"GET": of_itself} for path in PATHS} if debug else {}),
        }

    async def answer(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
            HttpError: It cannot be answered.
        """
        methods = self._routes.get(request.path)
        if methods is None:
            hint = "; /debug needs enable_pprof in [runtime]" if request.path in PATHS else ""
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path; there are: {', '.join(self._routes)}{hint}")
        method = methods.get(request.method)
        if method is None:
            cause = f"{request.path} has {', '.join(methods)} alone, not {request.method[:20]}"
            raise HttpError(HTTPStatus.NOT_IMPLEMENTED, cause)
        try:
            return await method(request)
        except (SandboxError, HypervisorError, StorageError, OSError) as error:
            logger.info("%s %s: %s", request.method, request.path, error)
            raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error

    async def _agent_url(self, request: Request) -> Answer:
        return Answer(str(self._vm.agent).encode())

    async def _agent_check(self, request: Request) -> Answer:
        await self._agent.check(CHECK_TIMEOUT)
        return Answer()

    async def _metrics(self, request: Request) -> Answer:
        programs = await off_loop(self._programs)
        text = await off_loop(metrics.of_programs, programs)
        async with asyncio.TaskGroup() as group:
            guest = group.create_task(self._agent_metrics(), name="the guest's figures")
            beyond = group.create_task(self._pod_overhead(programs), name="the pod's overhead")
        text += beyond.result() + self._tasks.text() + self._agent.durations.text() + guest.result()
        return Answer(text.encode(), metrics.CONTENT_TYPE)

    def _programs(self) -> dict[str, int]:
        """The processes that do the sandbox's work, by the names of their programs; blocks.

        For a machine elsewhere the shim stands: it is told of once, as what it is.
        """
        programs = {"shim": self._record.shim.pid}
        if self._vm.pid != self._record.shim.pid:
            programs["hypervisor"] = self._vm.pid
        for entry in self._record.undo:
            if isinstance(entry, KillProcess) and entry.name == "virtiofsd":
                programs.setdefault(entry.name, worker(entry.pid))
        return programs

    async def _pod_overhead(self, programs: Mapping[str, int]) -> str:
        """Empty where it cannot be known: of a machine that is elsewhere, or when the agent does not tell."""
        if "hypervisor" not in programs:
            return ""
        try:
            async with asyncio.timeout(METRICS_TIMEOUT):
                usages = [(id, await self._usage(id)) for id in tuple(self._containers)]
        except SandboxError as error:
            logger.info("no overhead is told: %s", error)
            return ""
        except TimeoutError:
            logger.info("no overhead is told: within %g s the agent does not say what all use", METRICS_TIMEOUT)
            return ""
        guest = {id: usage for id, usage in usages if usage is not None}
        return self._overhead.text(await off_loop(overhead.of_programs, programs), guest)

    async def _usage(self, container_id: str) -> Usage | None:
        try:
            usage = (await self._agent.stats_container(container_id)).cgroup_stats
        except (NotFound, InvalidArgument):  # it has ended; the latter is upstream's agent's
            return None
        return Usage(usage.cpu_stats.cpu_usage.total_usage / 1e9, usage.memory_stats.usage.usage)

    async def _agent_metrics(self) -> str:
        if not self._agent_has_metrics:
            return ""
        try:
            return await off_loop(metrics.of_agent, await self._agent.metrics(METRICS_TIMEOUT))
        except (NotFound, Unimplemented) as error:
            logger.warning("the agent has no metrics: %s", error)
            self._agent_has_metrics = False
        except SandboxError as error:  # what is known of the host is told all the same
            logger.log(logging.INFO if isinstance(error, DeadlineExceeded) else logging.WARNING, "metrics: %s", error)
        return ""

    async def _volume_stats(self, request: Request) -> Answer:
        path = unquote(request.query.get("path", ""))  # upstream's client encodes it twice
        if not path:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the parameter path is missing: the volume's device")
        _, guest = await self._volume(path)
        return Answer(_stats(await self._agent.volume_stats(guest)), server.JSON)

    async def _volume_resize(self, request: Request) -> Answer:
        try:
            wanted = json.loads(request.body)
            path, size = wanted["VolumePath"], wanted["Size"]
            if not isinstance(path, str) or type(size) is not int or not 0 < size < 1 << 63:
                raise ValueError("VolumePath is a string, Size a number of bytes")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            cause = f'expected {{"VolumePath": "/dev/...", "Size": BYTES}}: {error}'
            raise HttpError(HTTPStatus.BAD_REQUEST, cause) from None
        device, guest = await self._volume(path)
        await self._disks.grow(device, size)
        await self._resize_guest(guest, size)
        return Answer()

    async def _resize_guest(self, guest: str, size: int) -> None:
        """Let the guest's file system take its disk, once the guest has seen how large that is."""
        deadline = asyncio.get_running_loop().time() + RESIZE_TIMEOUT
        while True:
            try:
                return await self._agent.resize_volume(guest, size)
            except SandboxError as error:
                late = asyncio.get_running_loop().time() > deadline
                if late or type(error) is not SandboxError or "the host has to grow it first" not in str(error):
                    raise
            await asyncio.sleep(RESIZE_PAUSE)

    async def _volume(self, path: str) -> tuple[Path, str]:
        """A volume's disk, and where the guest has mounted it: by its device, or by the path that pods name it by.

        Raises:
            NotFound: This sandbox has no such volume.
        """
        volume = await off_loop(direct.find, Path(path))
        device = volume.device if volume else Path(path)
        guest = self._disks.mount_point(device)
        if guest is None:
            raise NotFound(f"sandbox {self._record.id} has no direct-assigned volume {path}")
        return device, guest

    async def _rules(self, request: Request, *, ipv6: bool) -> Answer:
        return Answer(await self._agent.packet_filter(ipv6=ipv6))

    async def _set_rules(self, request: Request, *, ipv6: bool) -> Answer:
        await self._agent.set_packet_filter(request.body, ipv6=ipv6)
        return Answer()

    async def _set_policy(self, request: Request) -> Answer:
        try:
            policy = request.body.decode()
        except UnicodeDecodeError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"a policy is text in UTF-8: {error}") from None
        if not policy.strip():
            raise HttpError(HTTPStatus.BAD_REQUEST, "the policy is empty")
        await self._agent.set_policy(policy)
        return Answer()

    async def _exec(self, request: Request) -> Answer:
        container_id = self._container(request.query.get("container", ""))
        try:
            args = json.loads(request.body)
            if not isinstance(args, list) or not args or not all(isinstance(each, str) for each in args):
                raise ValueError("it is no list of words")
        except (ValueError, RecursionError) as error:
            cause = f'expected ["PROGRAM", "ARGUMENT", ...]: {error}'
            raise HttpError(HTTPStatus.BAD_REQUEST, cause) from None
        fields = {"Connection": "Upgrade", "Upgrade": guest_exec.PROTOCOL}
        run = GuestExec(self._agent, container_id, args).run
        return Answer(status=HTTPStatus.SWITCHING_PROTOCOLS, fields=fields, stream=run)

    def _container(self, name: str) -> str:
        """A container's id, from that or the beginning of it.

        Raises:
            HttpError: There is none, or there are several.
        """
        found = [id for id in self._containers if id == name] or [id for id in self._containers if id.startswith(name)]
        if len(found) == 1 and name:
            return found[0]
        cause = f"{name!r} is the beginning of {len(found)} containers' ids, not of one: {', '.join(self._containers)}"
        raise HttpError(HTTPStatus.BAD_REQUEST, cause)

    async def _log_level(self, request: Request) -> Answer:
        return Answer(logging.getLevelName(logging.getLogger().level).lower().encode() + b"\n")

    async def _set_log_level(self, request: Request) -> Answer:
        level = request.body.decode(errors="replace").strip()
        if level not in LOG_LEVELS:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the level is one of {', '.join(LOG_LEVELS)}, not {level[:20]!r}")
        logging.getLogger().setLevel(level.upper())
        logger.info("from now on lines of level %s and above are logged", level)
        try:
            await self._agent.set_log_level(level)
        except SandboxError as error:  # another's agent, a policy that denies it, or none that answers
            return Answer(f"the agent in the guest logs as before: {error}\n".encode())
        return Answer()


def _stats(response: VolumeStatsResponse) -> bytes:
    """The form that storage drivers read: the fields by their names in the protocol, the unit as its number."""
    usage = [
        {"available": each.available, "total": each.total, "used": each.used, "unit": each.unit}
        for each in response.usage
    ]
    condition = response.volume_condition
    return json.dumps(
        {"usage": usage, "volume_condition": {"abnormal": condition.abnormal, "message": condition.message}}
    ).encode()
