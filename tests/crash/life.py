"""A pod's life as CRI-O leads it, as far as it goes: created, started, more plugged in, stopped and deleted."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from kata_py.sandbox.record import ROOT, State
from kata_py.ttrpc.errors import TtrpcError
from tests import bundle as bundles
from tests.crash.node import Node
from tests.crash.programs import Programs
from tests.manager import Container, Manager, Streams
from tests.tasks import until

_TIMEOUT = 40.0  # seconds
_LATE = "late"  # the link that comes when the pod runs


class LifeEnds(Exception):
    """A program did not do what it was asked for."""


class Life:
    """One pod with two containers.

    Args:
        id: Its id; that of the second container begins with it.
        node: Where it lives.
        manager: Whose it is.
        programs: What runs the shim's programs.

    Attributes:
        bundles: Those made so far, by their containers' ids, the pod's own first.
    """

    def __init__(self, id: str, node: Node, manager: Manager, programs: Programs) -> None:
        self.id, self.node, self.manager, self.programs = id, node, manager, programs
        self.bundles: dict[str, Path] = {}

    def lead(self) -> list[str]:
        """Lead it to its end, or until it is cut short; gives what hung."""
        try:
            asyncio.run(self._lead())
        except (TtrpcError, LifeEnds):
            pass
        except TimeoutError:
            return [f"hung in {self.programs.notes.phase}"]
        return []

    def forget(self) -> None:
        """Remove what is the manager's."""
        for path in self.bundles.values():
            shutil.rmtree(path)
        self.node.remove_link(_LATE)

    async def _lead(self) -> None:
        async with asyncio.timeout(_TIMEOUT):
            self._enter("create")
            async with self._container(self.id) as pod:
                await pod.create()
                self._enter("start")
                await pod.start()
                self._enter("hot-plug")
                async with self._container(f"{self.id}-app") as app:
                    await app.create()
                    await app.start()
                    await app.update({"memory": {"limit": 64 << 20}})
                    self.node.add_link(_LATE, "10.2.0.2/24")
                    await until(self._late_is_plugged_in)
                    self._enter("stop")

    @asynccontextmanager
    async def _container(self, id: str) -> AsyncIterator[Container]:
        """A container with a shim to ask; at last it is stopped, deleted, and the shim told so, as far as that goes."""
        bundle = self.bundles[id] = self._bundle(id)
        program = "start" if id == self.id else "join"
        status, said = self.programs.start(program, self.manager.command(id)[1:], bundle)
        if status:
            raise LifeEnds(said)
        streams = Streams(self.manager.directory / "fifo", id, stdin=False, terminal=False)
        await streams.open()
        container = Container(self.manager, id, bundle, said, streams)
        try:
            await container.connect()
            yield container
        finally:
            with suppress(TtrpcError):
                await container.kill(all=True)
                await container.wait()
            if id == self.id:
                self._enter("delete")
            with suppress(TtrpcError):
                await container.delete()
            with suppress(TtrpcError):
                await container.shutdown()
            await container.disconnect()
            streams.close()

    def _bundle(self, id: str) -> Path:
        process = bundles.process(["sleep", "100000"])
        spec = bundles.in_pod(bundles.spec(id, self.manager.rootfs, process), self.id, sandbox=id == self.id)
        [namespace] = [each for each in spec["linux"]["namespaces"] if each["type"] == "network"]
        namespace["path"] = str(self.node.netns)
        return bundles.write(self.manager.directory / "bundles" / id, spec)

    def _late_is_plugged_in(self) -> bool:
        try:
            content = json.loads((ROOT / self.id / "record.json").read_bytes())
        except FileNotFoundError:
            raise LifeEnds("the sandbox is gone") from None
        if content["state"] != State.RUNNING or self.programs.notes.dead:
            raise LifeEnds("the sandbox ends, or nobody is left to go on")
        return [entry.get("name") for entry in content["undo"]].count("nic") == 2

    def _enter(self, phase: str) -> None:
        self.programs.notes.enter(phase)
