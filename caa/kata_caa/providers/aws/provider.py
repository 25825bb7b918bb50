"""Pod VMs on Amazon EC2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final

from kata_caa.errors import Fault, ProviderError
from kata_caa.faults import CALLS, CHOICES, RetryPolicy, retrying
from kata_caa.providers.api import (
    OWNER_TAG,
    SANDBOX_TAG,
    Finding,
    Instance,
    InstanceRequest,
    InstanceSpec,
    Owned,
    Provider,
    Target,
)
from kata_caa.providers.aws import inventory, launch, metadata
from kata_caa.providers.aws.check import check
from kata_caa.providers.aws.client import Ec2, open_ec2
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.errors import ENDED, meaning
from kata_caa.providers.aws.image import Image, describe_image
from kata_caa.providers.aws.network import SecondInterface, add_interface
from kata_caa.providers.aws.offers import Offer, describe_types, ways
from kata_caa.providers.aws.store import AwsImages
from kata_caa.selection import Candidate, Spot, exhausted

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef, ReservationResponseTypeDef, RunInstancesRequestTypeDef

logger = logging.getLogger(__name__)

_REFUSED: Final = frozenset({Fault.FATAL, Fault.CAPACITY, Fault.QUOTA, Fault.THROTTLE})
"""After these answers nothing was made, for certain; after others it may have been."""

_ENDED_STATES: Final = frozenset({"shutting-down", "terminated"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast EC2 is asked again while something is waited for, of which it sends no event.

    Attributes:
        first: Seconds before the first time; doubled from time to time.
        most: Seconds that it grows to.
    """

    first: float = 0.5
    most: float = 5.0

    def waits(self) -> Iterator[float]:
        """The waits one after the other, without end."""
        wait = self.first
        while True:
            yield wait
            wait = min(2 * wait, self.most)


class Aws(AbstractAsyncContextManager[Provider]):
    """Opens EC2: the entry point `aws`.

    Args:
        config: What is set.
        fetch: Reads the node's metadata, for what is not set.
        policy: When single calls are tried again.
        pace: How fast EC2 is asked again while something is waited for.

    Attributes:
        config: The dataclass of its settings.
    """

    config: ClassVar[type] = AwsConfig

    def __init__(
        self,
        config: AwsConfig,
        *,
        fetch: metadata.Fetch = metadata.fetch,
        policy: RetryPolicy = CALLS,
        pace: Pace | None = None,
    ) -> None:
        self._config = config
        self._fetch = fetch
        self._policy = policy
        self._pace = pace or Pace()
        self._stack = AsyncExitStack()

    def images(self) -> AwsImages:
        """The account's AMIs as a place of images."""
        return AwsImages(self._config, self._fetch, self._pace.waits)

    async def __aenter__(self) -> AwsProvider:
        """Make a client. Image and types are looked up when they are first needed, so that a check can tell of them.

        Raises:
            ProviderError: There is no region, or no such profile.
            SettingError: A setting has no such value.
        """
        spot = self._config.spot()
        config = await metadata.complete(self._config, self._fetch)
        ec2 = await self._stack.enter_async_context(open_ec2(config, self._policy))
        return AwsProvider(config, ec2, spot, self._pace)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the calls under way, and close the connections."""
        await self._stack.aclose()


class AwsProvider(Provider):
    """Makes and deletes machines. Made by `Aws`.

    Args:
        config: What is set, without gaps.
        ec2: The API.
        spot: Whether spot machines are wanted.
        pace: How fast EC2 is asked again.
        choices: When a round over all candidates is tried again.
    """

    def __init__(self, config: AwsConfig, ec2: Ec2, spot: Spot, pace: Pace, choices: RetryPolicy = CHOICES) -> None:
        self._config = config
        self._ec2 = ec2
        self._spot = spot
        self._pace = pace
        self._choices = choices
        self._offers: dict[str, Offer] = {}
        self._images: dict[str, Image] = {}
        self._sandboxes: dict[str, tuple[asyncio.Lock, int]] = {}  # who works on one, in turn, and how many want to
        self._opened = asyncio.get_running_loop().time()
        self._made: dict[str, float] = {}  # when something may have been made for a sandbox last

    async def create(self, request: InstanceRequest) -> Instance:
        """Make a machine, of the first candidate that EC2 has capacity for.

        Raises:
            ProviderError: It cannot be made; what was made is found by its tags.
        """
        launch.bounded(request.user_data)  # too long is told before anything is looked up
        async with self._alone(request.target.sandbox_id):
            candidates = await self._candidates(request.spec)
            image = await self._image_of(request.spec)
            before = await self._made_before(request, candidates)
            return await self._reachable(request, before or await self._chosen(request, candidates, image))

    async def delete(self, target: Target) -> None:
        """Delete what bears the sandbox's tag, and the instance if its id is known.

        EC2 may take seconds to show what was made. So nothing that may have been made within `AWS_SETTLE_TIME`,
        by this process or before it began, counts as gone because it is not seen.

        Raises:
            ProviderError: Something is still there, or may not be removed.
        """
        sandbox = target.sandbox_id
        if not sandbox and not inventory.is_instance_id(target.instance_id):
            return  # an empty tag would name nobody's objects
        left: list[inventory.Thing] = []
        try:
            async with asyncio.timeout(self._config.delete_timeout), self._alone(sandbox):
                left = await self._sweep(target)
                waits = self._pace.waits()
                kinds: Sequence[str] = inventory.KINDS
                while True:
                    if left:
                        await inventory.remove(self._ec2, left)
                        # The machine itself always: it may come to be seen later than what it holds.
                        kinds = tuple(dict.fromkeys((inventory.INSTANCE, *(thing.kind for thing in left))))
                        await asyncio.sleep(next(waits))
                    elif kinds != inventory.KINDS:
                        kinds = inventory.KINDS
                    elif (unsettled := self._settled(sandbox) - asyncio.get_running_loop().time()) > 0:
                        await asyncio.sleep(min(unsettled, next(waits)))
                    else:
                        break
                    left = await self._left(target, kinds)
        except TimeoutError as error:
            raise ProviderError(
                Fault.TRANSIENT,
                f"deleting {target.name}: still there after {self._config.delete_timeout:.0f} s:"
                f" {', '.join(map(str, left)) or 'EC2 did not answer'}",
            ) from error
        self._made.pop(sandbox, None)

    async def owned(self, owner: str) -> Sequence[Owned]:
        """All that bears the owner's tag.

        Raises:
            ProviderError: It cannot be listed.
        """
        if not owner:
            return []
        things = await inventory.look(self._ec2, inventory.tagged(OWNER_TAG, owner), inventory.KINDS)
        return [thing.owned() for thing in things]

    async def check(self) -> Sequence[Finding]:
        """Look whether machines can be made; nothing is changed."""
        return await check(self._ec2, self._config, self._spot)

    @asynccontextmanager
    async def _alone(self, sandbox: str) -> AsyncIterator[None]:
        """Wait until nothing else is done for a sandbox, calls of cancelled creations among it."""
        lock, users = self._sandboxes.get(sandbox, (asyncio.Lock(), 0))
        self._sandboxes[sandbox] = lock, users + 1
        try:
            async with lock:
                await self._ec2.quiet(sandbox)
                yield
        finally:
            lock, users = self._sandboxes.pop(sandbox)
            if users > 1:
                self._sandboxes[sandbox] = lock, users - 1

    async def resolve(self, spec: InstanceSpec) -> InstanceSpec:
        """The type that is tried first, and the image; with a launch template, that says it all."""
        first, *_ = await self._candidates(spec)
        return InstanceSpec(
            instance_type=first.instance_type, image=self._image_id(spec), multi_nic=spec.multi_nic
        )  # fmt: skip

    # Section: making

    def _image_id(self, spec: InstanceSpec) -> str:
        return self._config.image if self._config.use_launch_template else spec.image or self._config.image

    async def _image_of(self, spec: InstanceSpec) -> Image | None:
        """What a pod's machine boots, or with a launch template, what its root disk is measured by."""
        config = self._config
        if config.use_launch_template and config.root_volume_size <= 0:
            return None
        id = self._image_id(spec)
        if id not in self._images:
            image = await describe_image(self._ec2, id)
            if id != config.image:
                return image  # pods name any number of them
            self._images[id] = image
        return self._images[id]

    async def _candidates(self, spec: InstanceSpec) -> list[Candidate]:
        """All candidates for a pod, in order."""
        if self._config.use_launch_template:
            return [Candidate("")]
        if not self._offers:
            self._offers = await describe_types(self._ec2, self._config.types())
        return ways(self._config, self._offers, self._spot, spec)

    async def _made_before(self, request: InstanceRequest, ways: Sequence[Candidate]) -> InstanceTypeDef | None:
        """The machine that an earlier try with the same token made, whichever candidate it took."""
        tokens = {token for way in ways for token in launch.tokens_of(request, way)}
        sandbox = inventory.tagged(SANDBOX_TAG, request.target.sandbox_id)
        for instance in await inventory.live_instances(self._ec2, sandbox):
            if instance.get("ClientToken") in tokens:
                return instance
        return None

    async def _chosen(
        self, request: InstanceRequest, ways: Sequence[Candidate], image: Image | None
    ) -> InstanceTypeDef:
        """A machine of the first candidate that EC2 has; quotas are waited for a little."""
        name = request.target.name
        return await retrying(
            lambda: self._round(request, ways, image),
            self._choices,
            stage=f"making {name}",
            noticed=lambda error, wait: logger.warning("making %s: %s; again in %.0f s", name, error, wait),
        )

    async def _round(self, request: InstanceRequest, ways: Sequence[Candidate], image: Image | None) -> InstanceTypeDef:
        """Try one candidate after the other; only capacity and quotas make another one worth trying."""
        refused: list[tuple[Candidate, ProviderError]] = []
        for way in ways:
            try:
                return await self._start(request, way, image)
            except ProviderError as error:
                if error.fault not in (Fault.CAPACITY, Fault.QUOTA):
                    raise
                logger.info("%s: no %s: %s", request.target.name, way, error)
                refused.append((way, error))
        raise exhausted(refused)

    async def _start(self, request: InstanceRequest, way: Candidate, image: Image | None) -> InstanceTypeDef:
        """Make a machine of one candidate."""
        stage = f"starting {way}" if way.instance_type else "starting from the launch template"
        for token in launch.tokens_of(request, way):
            call = launch.run_instances(self._config, request, way, image, token)
            try:
                answer = await self._run(stage, request.target.sandbox_id, call)
            except ProviderError as error:
                if error.code != ENDED:
                    raise
                continue
            if answer["Instances"][0].get("State", {}).get("Name") not in _ENDED_STATES:
                return answer["Instances"][0]
        raise meaning(ENDED)

    async def _run(self, stage: str, sandbox: str, call: RunInstancesRequestTypeDef) -> ReservationResponseTypeDef:
        certain = sandbox not in self._made  # whether nothing was made, should this fail

        async def attempt() -> ReservationResponseTypeDef:
            nonlocal certain
            self._note(sandbox)
            try:
                return await self._ec2.once(lambda: self._ec2.api.run_instances(**call), group=sandbox)
            except ProviderError as error:
                certain = certain and error.fault in _REFUSED
                raise

        try:
            answer = await self._ec2.retrying(stage, attempt)
        except ProviderError:
            if certain:
                del self._made[sandbox]
            raise
        self._note(sandbox)
        return answer

    async def _reachable(self, request: InstanceRequest, instance: InstanceTypeDef) -> Instance:
        """Wait for the machine's addresses, and add the interface that could not be made with it."""
        config, id = self._config, instance.get("InstanceId", "")
        private = _private(instance)
        by_hand = not config.use_launch_template
        if config.use_public_ip and by_hand:
            instance = await self._until(id, lambda seen: bool(_is_running(seen) and _public(seen)), "an address")
            private = _private(instance)
        elif not private:
            instance = await self._until(id, lambda seen: bool(_private(seen)), "an address")
            private = _private(instance)
        apart = config.use_public_ip or len(private) < 2  # an earlier try may have come no further than to attach it
        if request.spec.multi_nic and by_hand and apart:
            self._note(request.target.sandbox_id)
            second = await add_interface(self._ec2, self._second(request, instance))
            self._note(request.target.sandbox_id)
            private = (*private[:1], second)
        addresses = (_public(instance), *private[1:]) if config.use_public_ip and by_hand else private
        logger.info("%s is %s, %s", request.target.name, id, instance.get("InstanceType", ""))
        return Instance(id, addresses, instance.get("InstanceType", ""))

    def _second(self, request: InstanceRequest, instance: InstanceTypeDef) -> SecondInterface:
        return SecondInterface(
            request.target.sandbox_id,
            instance.get("InstanceId", ""),
            instance.get("SubnetId", ""),
            self._config.security_groups,
            launch.tags_of(self._config, request),
            launch.token_of(request, "second interface", instance.get("InstanceId", "")),
        )

    async def _until(self, id: str, ready: Callable[[InstanceTypeDef], bool], what: str) -> InstanceTypeDef:
        """Wait until an instance has something."""
        state = "not to be seen"
        waits = self._pace.waits()
        describe = partial(self._ec2.api.describe_instances, Filters=[inventory.by_instance(id)])
        try:
            async with asyncio.timeout(self._config.running_timeout):
                while True:
                    answer = await self._ec2.call(f"looking at {id}", describe)
                    for reservation in answer["Reservations"]:
                        for instance in reservation.get("Instances", []):
                            state = instance.get("State", {}).get("Name", "")
                            if state in _ENDED_STATES:
                                raise _ended(id, instance)
                            if ready(instance):
                                return instance
                    await asyncio.sleep(next(waits))
        except TimeoutError as error:
            raise ProviderError(
                Fault.TRANSIENT,
                f"{id} had not {what} within {self._config.running_timeout:.0f} s: it is {state}",
            ) from error

    # Section: deleting

    async def _sweep(self, target: Target) -> list[inventory.Thing]:
        """What there is at first: the sandbox's, and the instance whose id is known with its public addresses."""
        left = await self._left(target, inventory.KINDS)
        for thing in left:
            if thing.kind == inventory.INSTANCE and not thing.sandbox_id:  # made by another adaptor, without our tags
                known = {other.id for other in left}
                found = await inventory.look(self._ec2, inventory.by_instance(thing.id), [inventory.ADDRESS])
                return [*left, *(address for address in found if address.id not in known)]
        return left

    async def _left(self, target: Target, kinds: Sequence[str]) -> list[inventory.Thing]:
        left: list[inventory.Thing] = []
        if target.sandbox_id:
            left = await inventory.look(self._ec2, inventory.tagged(SANDBOX_TAG, target.sandbox_id), kinds)
        id = target.instance_id
        if inventory.INSTANCE in kinds and inventory.is_instance_id(id) and id not in {thing.id for thing in left}:
            left += await inventory.look(self._ec2, inventory.by_instance(id), [inventory.INSTANCE])
        return left

    def _note(self, sandbox: str) -> None:
        self._made[sandbox] = asyncio.get_running_loop().time()

    def _settled(self, sandbox: str) -> float:
        """When EC2 shows all that was made for a sandbox, in the loop's time."""
        return self._made.get(sandbox, self._opened) + self._config.settle_time


def _private(instance: InstanceTypeDef) -> tuple[str, ...]:
    """The private addresses, in the interfaces' order."""
    interfaces = sorted(
        instance.get("NetworkInterfaces", []), key=lambda one: one.get("Attachment", {}).get("DeviceIndex", 0)
    )
    found = tuple(filter(None, (interface.get("PrivateIpAddress", "") for interface in interfaces)))
    return found or tuple(filter(None, (instance.get("PrivateIpAddress", ""),)))


def _public(instance: InstanceTypeDef) -> str:
    """The first interface's public address; empty has none (yet)."""
    for interface in instance.get("NetworkInterfaces", []):
        if interface.get("Attachment", {}).get("DeviceIndex", 0) == 0:
            return interface.get("Association", {}).get("PublicIp", "")
    return ""


def _is_running(instance: InstanceTypeDef) -> bool:
    return instance.get("State", {}).get("Name") == "running"


def _ended(id: str, instance: InstanceTypeDef) -> ProviderError:
    """Why a machine ended that was to begin."""
    reason = instance.get("StateReason", {})
    error = meaning(reason.get("Code", "Unknown"), reason.get("Message", "") or "AWS ended it without a reason")
    return ProviderError(error.fault, f"{id} ended while it began: {error.cause}", code=error.code, hint=error.hint)
