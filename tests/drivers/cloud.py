"""A cloud in memory: what the interface of providers means, in a page.

Its objects outlive a provider, as a real cloud's do. Everything that a provider asks of it is a call, and a test can
have its say before and after each.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG, Finding, Instance, InstanceRequest, Owned, Target
from kata_caa.settings import setting


@dataclass(frozen=True)
class MemoryConfig:
    """The settings."""

    image: str = setting("image-1", "image", "MEMORY_IMAGE", "what machines boot")


@dataclass(frozen=True)
class Thing:
    """An object in the cloud."""

    kind: str
    id: str
    name: str
    token: str
    tags: tuple[tuple[str, str], ...]


@dataclass
class Calls:
    """What a test does around the calls to a cloud; either may raise."""

    before: Callable[[str], None] = lambda call: None
    after: Callable[[str], None] = lambda call: None


@dataclass
class MemoryStore:
    """What is in the cloud, whoever made it."""

    images: tuple[str, ...] = ("image-1",)
    things: dict[str, Thing] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """A call to the cloud."""
        self.calls.before(name)
        yield
        self.calls.after(name)

    async def make(self, kind: str, request: InstanceRequest) -> Thing:
        """Make an object; again with the same token and kind gives the one that is there."""
        await asyncio.sleep(0)
        with self.call(f"make {kind}"):
            for thing in self.things.values():
                if (thing.kind, thing.token) == (kind, request.token):
                    return thing
            thing = Thing(kind, f"{kind}-{next(self.numbers)}", request.target.name, request.token, request.tags)
            self.things[thing.id] = thing
        await asyncio.sleep(0)
        return thing

    async def list(self, tag: str, value: str) -> list[Thing]:
        """Objects that bear a tag."""
        await asyncio.sleep(0)
        with self.call("list"):
            return [thing for thing in self.things.values() if (tag, value) in thing.tags]

    async def remove(self, id: str) -> None:
        """Delete an object."""
        await asyncio.sleep(0)
        with self.call("remove"):
            self.things.pop(id, None)


class MemoryProvider:
    """The provider; satisfies `kata_caa.providers.api.Provider`."""

    config: ClassVar[type] = MemoryConfig

    def __init__(self, config: MemoryConfig, store: MemoryStore) -> None:
        self._config = config
        self._store = store

    @classmethod
    @asynccontextmanager
    async def open(cls, config: MemoryConfig, store: MemoryStore) -> AsyncIterator[MemoryProvider]:
        yield cls(config, store)

    async def create(self, request: InstanceRequest) -> Instance:
        image = request.spec.image or self._config.image
        try:
            if image not in self._store.images:
                raise ProviderError(Fault.FATAL, f"there is no image {image}", hint="set MEMORY_IMAGE")
            await self._store.make("disk", request)
            made = await self._store.make("instance", request)
        except OSError as error:
            raise ProviderError(Fault.TRANSIENT, str(error)) from error
        return Instance(made.id, (f"192.0.2.{made.id.rpartition('-')[2]}",))

    async def delete(self, target: Target) -> None:
        try:
            for thing in await self._store.list(SANDBOX_TAG, target.sandbox_id):
                await self._store.remove(thing.id)
        except OSError as error:
            raise ProviderError(Fault.TRANSIENT, str(error)) from error

    async def owned(self, owner: str) -> Sequence[Owned]:
        try:
            things = await self._store.list(OWNER_TAG, owner)
        except OSError as error:
            raise ProviderError(Fault.TRANSIENT, str(error)) from error
        return [Owned(thing.kind, thing.id, dict(thing.tags)[SANDBOX_TAG], thing.name) for thing in things]

    async def check(self) -> Sequence[Finding]:
        found = self._config.image in self._store.images
        return [Finding(f"image {self._config.image}", found, "" if found else "set MEMORY_IMAGE")]
