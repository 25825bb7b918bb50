"""What the forwarder changes in the calls that it passes on: two of them, which it decodes; no other.

Source: cloud-api-adaptor `pkg/forwarder/interceptor/interceptor.go`.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

from kata_caa.errors import ForwarderError
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    from kata_protos import agent_pb2

logger = logging.getLogger(__name__)

AGENT: Final = "grpc.AgentService"
HOOKED: Final = ((AGENT, "CreateContainer"), (AGENT, "CreateSandbox"))
"""The calls that it sees."""

TARGET_PATH: Final = "io.confidentialcontainers.org.peerpodvolumes.target_path"
CLOUD_VOLUMES: Final = "io.confidentialcontainers.org.cloud_volumes"

_MOUNT_TIMEOUT: Final = 180.0  # seconds for a device to be mounted where a container wants it


class Interceptor:
    """The hook of a splice.

    Args:
        namespace: Path of the network namespace that containers join.
        mount_timeout: Seconds for a device to be mounted where a container wants it.
    """

    def __init__(self, namespace: str, mount_timeout: float = _MOUNT_TIMEOUT) -> None:
        self._namespace = namespace
        self._mount_timeout = mount_timeout

    async def __call__(self, service: str, method: str, payload: bytes) -> bytes | None:
        """The request as it goes on to the agent; None leaves it as it is.

        Raises:
            StatusError: It cannot go on: it is malformed, or asks for what there is not.
        """
        # Loaded at the first call: it costs more than all the rest of this process's start.
        from google.protobuf.message import DecodeError

        from kata_protos import agent_pb2

        try:
            if method == "CreateSandbox":
                return _without_dns(agent_pb2.CreateSandboxRequest.FromString(payload))
            return await self._create_container(agent_pb2.CreateContainerRequest.FromString(payload))
        except DecodeError as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"{method}: the request cannot be decoded: {error}") from None

    async def _create_container(self, request: agent_pb2.CreateContainerRequest) -> bytes:
        spec = request.OCI
        if spec.Annotations.get(CLOUD_VOLUMES):
            raise StatusError(
                Code.UNIMPLEMENTED,
                f"container {request.container_id}: disks of the cloud ({CLOUD_VOLUMES}) cannot be mounted by this "
                "pod VM; use volumes of another kind",
            )
        self._join_namespace(request)
        awaited = {path.strip() for path in spec.Annotations.get(TARGET_PATH, "").split(",")} - {""}
        for mount in spec.Mounts:
            if mount.type == "bind":
                _make_source(mount.source)
            if mount.source in awaited:
                await self._wait_mounted(request.container_id, mount.source)
        logger.info("container %s is created in %s", request.container_id, self._namespace)
        return request.SerializeToString()

    def _join_namespace(self, request: agent_pb2.CreateContainerRequest) -> None:
        namespaces = request.OCI.Linux.Namespaces
        for namespace in namespaces:
            if namespace.Type == "network":
                namespace.Path = self._namespace
                return
        namespaces.add(Type="network", Path=self._namespace)

    async def _wait_mounted(self, container_id: str, path: str) -> None:
        from kata_caa.forwarder import mounts

        logger.info("container %s waits for a device at %s", container_id, path)
        try:
            await mounts.wait_mounted(path, self._mount_timeout)
        except ForwarderError as error:
            raise StatusError(Code.DEADLINE_EXCEEDED, f"container {container_id}: {error}") from error


def _without_dns(request: agent_pb2.CreateSandboxRequest) -> bytes | None:
    """The VM resolves names by its own cloud's servers, and must go on doing so."""
    if not request.dns:
        return None
    del request.dns[:]
    return request.SerializeToString()


def _make_source(path: str) -> None:
    if not os.path.isabs(path) or os.path.lexists(path):  # noqa: PTH117 pathlib is more to load
        return
    try:
        os.makedirs(path, 0o755)  # noqa: PTH103
    except OSError as error:
        # The agent will say so, should the mount need it.
        logger.warning("the source %s of a bind mount cannot be made: %s", path, error.strerror)
