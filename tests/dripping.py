"""A registry that has one image and gives its layers piece by piece, as the test lets them pass.

Source: OCI distribution specification 1.0, "Pulling manifests", "Pulling blobs".
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from kata_py.netlink.thread import in_thread
from kata_py.resource import mount
from tests.registry import digest_of, write_layout

_TLS = b"\x16"  # how a client begins that tries TLS first
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class DrippingRegistry:
    """A registry that listens; made by `dripping`.

    Attributes:
        reference: The image.
        asked: How often a layer was asked for.
        passed: Pieces that were given.
    """

    def __init__(self, layout: Path, address: str, layers: frozenset[str], piece: int) -> None:
        self.reference = f"{address}/lib/slow:1"
        self.asked = 0
        self.passed = 0
        self._blobs = layout / "blobs" / "sha256"
        self._address = address
        self._layers = layers
        self._piece = piece
        self._allowed = asyncio.Semaphore(0)
        index = json.loads((layout / "index.json").read_bytes())
        self._manifest = index["manifests"][0]["digest"]

    @property
    def configuration(self) -> str:
        """As `tests.registry.Registry.configuration`."""
        return f'[[registry]]\nlocation = "{self._address}"\ninsecure = true\n'

    def let(self, pieces: int) -> None:
        """Let so many pieces pass from now on."""
        for _ in range(pieces):
            self._allowed.release()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        try:
            while (first := await reader.readexactly(1)) != _TLS:
                request = first + await reader.readuntil(b"\r\n\r\n")
                await self._answer(request.split()[1].decode(), request.startswith(b"HEAD"), writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, is_head: bool, writer: asyncio.StreamWriter) -> None:
        kind, _, name = path.rpartition("/")
        digest = (self._manifest if kind.endswith("/manifests") else name).removeprefix("sha256:")
        body = (self._blobs / digest).read_bytes() if digest else b"{}"
        media_type = _MANIFEST if kind.endswith("/manifests") else "application/octet-stream"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Docker-Content-Digest: sha256:{digest}\r\n\r\n".encode())
        if is_head:
            return
        if digest not in self._layers:
            writer.write(body)
            return
        self.asked += 1
        for start in range(0, len(body), self._piece):
            await self._allowed.acquire()
            writer.write(body[start : start + self._piece])
            await writer.drain()
            self.passed += 1


@asynccontextmanager
async def dripping(
    directory: Path, layers: Sequence[tuple[bytes, str]], *, netns: Path, piece: int
) -> AsyncIterator[DrippingRegistry]:
    """Serve an image on the loopback of a network namespace.

    Args:
        directory: For its files; it is made.
        layers: As for `write_layout`.
        netns: The namespace.
        piece: Bytes of a layer that pass at a time.
    """
    write_layout(directory, layers)
    listener = in_thread("network namespace", lambda: _listening(netns))
    address = "{}:{}".format(*listener.getsockname())
    names = frozenset(digest_of(layer).removeprefix("sha256:") for layer in layers)
    registry = DrippingRegistry(directory, address, names, piece)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await registry.serve(reader, writer)

    server = await asyncio.start_server(accept, sock=listener)
    try:
        yield registry
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _listening(netns: Path) -> socket.socket:
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mount.setns(descriptor, mount.CLONE_NEWNET, str(netns))
    finally:
        os.close(descriptor)
    return socket.create_server(("127.0.0.1", 0))
