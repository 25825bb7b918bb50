"""The adaptor's process for tests: started, ended, killed, started anew."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.conftest import REPOSITORY

TIMEOUT = 30.0  # seconds to start, or to end
_PROGRAM = "import sys; from kata_caa.command import main; sys.exit(main())"


class Adaptor:
    """A `cloud-api-adaptor`.

    Args:
        directory: For its socket, its pods and its log.
        arguments: Provider and flags.
        environ: Added to its environment.
        program: What Python runs.

    Attributes:
        socket: Where the runtime asks it.
        pods: Where each pod has a directory.
        log: What it writes.
    """

    def __init__(
        self, directory: Path, arguments: Sequence[str], environ: Mapping[str, str], program: str = _PROGRAM
    ) -> None:
        self.socket, self.pods = directory / "hypervisor.sock", directory / "pods"
        self.log = directory / "adaptor.log"
        self._notice = directory / "adaptor.notice"
        provider, *flags = arguments
        own = ["-socket", str(self.socket), "-pods-dir", str(self.pods)]
        self._line = [sys.executable, "-c", program, provider, *own, *flags]
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "drivers")])
        self._environ = {**os.environ, **environ, "PYTHONPATH": path}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it says that it serves, as a service manager does."""
        self._notice.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.setblocking(False)
            listener.bind(str(self._notice))
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._line, stdout=log, stderr=log, env={**self._environ, "NOTIFY_SOCKET": str(self._notice)}
                )
            told = asyncio.create_task(asyncio.get_running_loop().sock_recv(listener, 100))
            ended = asyncio.create_task(self._process.wait())
            try:
                await asyncio.wait([told, ended], timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
                assert told.done(), f"the adaptor does not serve: {self.log.read_text()[-2000:]}"
                assert told.result() == b"READY=1"
            finally:
                for task in (told, ended):
                    task.cancel()
                await asyncio.wait([told, ended])

    async def end(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal, and wait for its end."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(TIMEOUT):
            await self._process.wait()

    async def ended(self) -> int:
        """Wait until it has ended by itself; its status."""
        assert self._process is not None
        return await self._process.wait()

    async def again(self, number: int) -> None:
        """End it by a signal, and start it anew."""
        await self.end(number)
        await self.start()

    async def says(self, text: str, *, after: int = 0) -> None:
        """Wait until it has written a text, beyond so many bytes of its log."""
        async with asyncio.timeout(TIMEOUT):
            while text not in self.log.read_text(errors="replace")[after:]:  # noqa: ASYNC110 a file has no event
                await asyncio.sleep(0.05)
