"""The management API of running sandboxes, from the client's side."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from kata_py.cli.errors import CtlError, ShimError
from kata_py.sandbox import sockets
from kata_py.sandbox.sockets import ROOTS

CONNECT_TIMEOUT = 3.0  # seconds
ANSWER_TIMEOUT = 130.0  # seconds; the shim's own bound is 120


class Shim:
    """The shim of one sandbox.

    Args:
        sandbox_id: The sandbox's id.
        path: Of its management socket.
    """

    def __init__(self, sandbox_id: str, path: Path) -> None:
        self.sandbox_id = sandbox_id
        self._path = path

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        """Send a request and return the answer's body.

        Raises:
            ShimError: The shim cannot be reached, or answered with an error.
        """
        connection = _Connection(self._path)
        try:
            connection.request(method, target, body or None)
            answer = connection.getresponse()
            content = answer.read()
        except TimeoutError:
            raise ShimError(
                f"the shim of sandbox {self.sandbox_id} does not answer within {ANSWER_TIMEOUT:g} s",
                "look at its log: journalctl -t kata",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if answer.status != 200:
            text = content.decode(errors="replace").strip() or answer.reason
            raise ShimError(f"sandbox {self.sandbox_id}: {text}", status=answer.status)
        return content

    def upgraded(self, target: str, body: bytes, protocol: str) -> tuple[socket.socket, io.BufferedReader]:
        """Post a request that takes the connection over; returns that, and what reads from it.

        Args:
            target: Path and query, encoded.
            body: What is sent.
            protocol: What the connection is to speak from then on.

        Raises:
            ShimError: The shim cannot be reached, or does not agree.
        """
        connection = _Connection(self._path)
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
        try:
            connection.connect()
            reader = connection.sock.makefile("rb")
            connection.sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            status = int(reader.readline().split()[1])
            fields = http.client.parse_headers(reader)
            said = (
                b"" if status == HTTPStatus.SWITCHING_PROTOCOLS else reader.read(int(fields["Content-Length"] or "0"))
            )
        except (OSError, ValueError, IndexError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            connection.close()
            raise ShimError(f"sandbox {self.sandbox_id}: {said.decode(errors='replace').strip()}", status=status)
        return connection.sock, reader

    def _unreachable(self, error: Exception) -> ShimError:
        return ShimError(
            f"the shim of sandbox {self.sandbox_id} cannot be reached at {self._path}: {error}",
            "run it as root" if isinstance(error, PermissionError) else "is the pod still running? try: crictl pods",
        )


def find(name: str, roots: tuple[Path, ...] = ROOTS) -> Shim:
    """The shim of a running sandbox, by its id or the beginning of it, else by its pod's name.

    Args:
        name: One of these; a pod's is its `namespace/name`, or its name.
        roots: Where sandboxes' records and sockets are.

    Raises:
        CtlError: There is no such sandbox, or there are several.
        PermissionError: As `running`.
    """
    there = list(running(roots))
    found = [shim for shim in there if shim.sandbox_id.startswith(name)] or _of_pod(name, there, roots)
    exact = [shim for shim in found if shim.sandbox_id == name]
    match exact or found:
        case [shim]:
            return shim
        case []:
            places = " or ".join(map(str, roots))
            raise CtlError(
                f"no running sandbox {name!r}: nothing below {places} serves it",
                "list the pods of this node with their ids: crictl pods",
            )
        case several:
            ids = ", ".join(shim.sandbox_id for shim in several)
            raise CtlError(f"{name!r} may be any of {ids}", "give more of the id, or the pod's NAMESPACE/NAME")


def running(roots: tuple[Path, ...] = ROOTS) -> Iterator[Shim]:
    """The shims of all sandboxes that have a management socket.

    Raises:
        PermissionError: This user may not see all of them.
    """
    sockets.require_readable(roots)
    for sandbox_id, path in sockets.serving(roots).items():
        yield Shim(sandbox_id, path)


def _of_pod(name: str, shims: list[Shim], roots: tuple[Path, ...]) -> list[Shim]:
    """Those of some shims that serve a pod of a name."""
    from kata_py.diagnosis import evidence, overview

    ids = {each.id for each in overview.gather(roots) if evidence.matches(name, each.id, each.pod)}
    return [shim for shim in shims if shim.sandbox_id in ids]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT_TIMEOUT)
        self.sock.connect(str(self._path))
        self.sock.settimeout(ANSWER_TIMEOUT)
