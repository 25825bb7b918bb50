"""A cloud in files: that in memory (`tests.drivers.cloud`), but one that outlives a killed adaptor.

Its machines are records only, at addresses of which all are this host's; whoever serves there is every machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from kata_caa.providers.api import Finding, Instance, InstanceRequest, Owned, Target
from kata_caa.settings import setting
from kata_py.resource.file import replace
from tests.drivers.cloud import Calls, MemoryConfig, MemoryProvider, MemoryStore, Thing
from tests.drivers.faults import Faults, faults_of_environment


@dataclass
class FileStore(MemoryStore):
    """What is in the cloud, whoever made it.

    Attributes:
        directory: Where it remembers its objects, one in a file.
    """

    directory: Path = field(default_factory=Path)

    async def make(self, kind: str, request: InstanceRequest) -> Thing:
        """As `MemoryStore.make`."""
        await asyncio.sleep(0)
        with self.call(f"make {kind}"):
            things = list(self._all())
            for thing in things:
                if (thing.kind, thing.token) == (kind, request.token):
                    return thing
            taken = {thing.id for thing in things}
            id = next(id for number in itertools.count(1) if (id := f"{kind}-{number}") not in taken)
            thing = Thing(kind, id, request.target.name, request.token, request.tags)
            self.put(thing)
        await asyncio.sleep(0)
        return thing

    async def list(self, tag: str, value: str) -> list[Thing]:
        """As `MemoryStore.list`."""
        await asyncio.sleep(0)
        with self.call(f"list by {tag}"):
            return [thing for thing in self._all() if (tag, value) in thing.tags]

    async def remove(self, id: str) -> None:
        """As `MemoryStore.remove`."""
        await asyncio.sleep(0)
        with self.call(f"remove {id.partition('-')[0]}"):
            self.drop(id)

    def put(self, thing: Thing) -> None:
        """Have an object."""
        replace(str(self.directory / thing.id), json.dumps(asdict(thing)))

    def drop(self, id: str) -> None:
        """Have it no more."""
        (self.directory / id).unlink(missing_ok=True)

    def ids(self) -> Sequence[str]:
        """All objects."""
        return sorted(thing.id for thing in self._all())

    def sandboxes(self, tag: str) -> Sequence[str]:
        """Whose they are, by a tag."""
        return sorted({dict(thing.tags)[tag] for thing in self._all()})

    def _all(self) -> Iterator[Thing]:
        for path in sorted(self.directory.iterdir()):
            if path.suffix == ".new":
                continue  # somebody who was killed did not get it done
            with suppress(FileNotFoundError):  # somebody else removes it meanwhile
                content = json.loads(path.read_text())
                yield Thing(**{**content, "tags": tuple((key, value) for key, value in content["tags"])})


@dataclass(frozen=True)
class FileCloudConfig:
    """Where the cloud is."""

    directory: str = setting("", "cloud-dir", "KATA_TEST_CLOUD_DIR", "where it remembers its objects")
    image: str = setting("image-1", "cloud-image", "KATA_TEST_CLOUD_IMAGE", "what machines boot; it has image-1 alone")


class FileCloud:
    """The provider, of which any call can go wrong; satisfies `kata_caa.providers.api.Provider` once it is entered."""

    config: ClassVar[type] = FileCloudConfig

    def __init__(self, settings: FileCloudConfig) -> None:
        self._faults: Faults = faults_of_environment()
        calls = Calls(self._faults.before, self._faults.after)
        store = FileStore(directory=Path(settings.directory), calls=calls)
        self._cloud = MemoryProvider(MemoryConfig(settings.image), store)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Machines run on."""

    async def create(self, request: InstanceRequest) -> Instance:
        """As `Provider.create`."""
        return await self._faults.around("create", lambda: self._cloud.create(request))

    async def delete(self, target: Target) -> None:
        """As `Provider.delete`."""
        await self._faults.around("delete", lambda: self._cloud.delete(target))

    async def owned(self, owner: str) -> Sequence[Owned]:
        """As `Provider.owned`."""
        return await self._faults.around("owned", lambda: self._cloud.owned(owner))

    async def check(self) -> Sequence[Finding]:
        """As `Provider.check`."""
        return await self._cloud.check()
