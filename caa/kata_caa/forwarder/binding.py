"""A machine that was started before its pod: it waits to be told whose it is.

Whoever the adaptor is, by its certificate, hands it the user data that a machine of the pod's own would have found;
from then on it is like one. It is told once: a machine that may have been told is never another pod's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kata_caa import apf, userdata
from kata_caa.apf import ForwarderConfig
from kata_caa.errors import AdaptorError, MalformedConfig
from kata_caa.forwarder import provision
from kata_caa.userdata import File
from kata_protos import binding_pb2 as messages
from kata_protos.binding_ttrpc import BindingService
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT: Final = 10.0  # seconds
_CLOSE_TIMEOUT: Final = 5.0  # seconds for the answer to be sent


async def wait(
    listener: socket.socket, tls: ssl.SSLContext | None, stop: asyncio.Event, *, root: Path = Path("/")
) -> ForwarderConfig | None:
    """Serve until the machine is a pod's; returns what the forwarder is to do then, or None if told to stop.

    Args:
        listener: Where; it stays open, so that whoever connects next waits for the forwarder.
        tls: How; None is without TLS.
        stop: Set when there is no more to wait for.
        root: Where `/run` is.
    """
    binding = Binding(root)
    server = Server()
    server.add(binding)
    loop = asyncio.get_running_loop()
    accepting = await loop.create_server(
        server.accept,
        sock=listener.dup(),
        ssl=tls,
        ssl_handshake_timeout=_HANDSHAKE_TIMEOUT if tls is not None else None,
    )
    stopping = asyncio.create_task(stop.wait(), name="told to stop")
    bound = asyncio.create_task(binding.bound.wait(), name="bound to a pod")
    try:
        await asyncio.wait([stopping, bound], return_when=asyncio.FIRST_COMPLETED)
        return binding.config
    finally:
        stopping.cancel()
        bound.cancel()
        accepting.close()
        server.close()
        await server.wait_closed(_CLOSE_TIMEOUT)


class Binding(BindingService):
    """Makes the machine a pod's.

    Args:
        root: Where `/run` is.

    Attributes:
        config: What the forwarder is to do; None until it is known.
        bound: Set when it is known.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._taken = False
        self.config: ForwarderConfig | None = None
        self.bound = asyncio.Event()

    async def State(self, request: messages.StateRequest, context: Context) -> messages.StateResponse:
        """It waits, as long as this is served at all."""
        return messages.StateResponse(version=_version())

    async def Bind(self, request: messages.BindRequest, context: Context) -> messages.BindResponse:
        """Write the files of the user data, and let the forwarder begin."""
        if self._taken:
            raise StatusError(Code.FAILED_PRECONDITION, "this machine is a pod's already")
        try:
            files = userdata.parse(request.user_data)
            config = _config(files)
        except MalformedConfig as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"the pod's user data: {error}") from error
        self._taken = True  # of what follows a part may be done when it fails
        try:
            await asyncio.to_thread(_write, files, self._root)
        except MalformedConfig as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"the pod's user data: {error}") from error
        except AdaptorError as error:
            raise StatusError(Code.INTERNAL, f"the pod's files: {error}") from error
        logger.info("this machine is that of pod %s/%s now", config.pod_namespace, config.pod_name)
        self.config = config
        self.bound.set()
        return messages.BindResponse()


def _config(files: Iterable[File]) -> ForwarderConfig:
    for path, content in files:
        if path == userdata.APF:
            config = apf.load(content)
            if config.unbound:
                raise MalformedConfig(f"{path} is that of a machine without a pod")
            return config
    raise MalformedConfig(f"there is no {userdata.APF} in it")


def _write(files: tuple[File, ...], root: Path) -> None:
    """Replace what the boot has written in want of a pod's."""
    for name in provision.INITDATA_KEYS:
        with suppress(FileNotFoundError):
            (root / userdata.DIRECTORY.lstrip("/") / name).unlink()
    provision.write(files, root=root)
    provision.write_initdata(root=root)


def _version() -> str:
    try:
        return version("kata-py")
    except PackageNotFoundError:  # a guest carries code, and no package
        return ""
