"""How long pods had machines of which types, and what that costs.

The log is lines of JSON, one when the cloud has made a machine and one when nothing of it is left. Each is appended by
one write to a file opened for it, so that logrotate may move the file away at any time.
"""

from __future__ import annotations

import json
import logging
import os
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kata_caa.errors import AdaptorError, SettingError
from kata_caa.peer import Failure
from kata_caa.pool.machine import Machine
from kata_caa.record import PodRecord
from kata_caa.surroundings import Surroundings
from kata_py.resource.blocking import off_loop

logger = logging.getLogger(__name__)

POOL = "(warm pool)"
"""In the place of a namespace: of machines that wait for a pod."""

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Use:
    """A machine that a pod has, or had.

    Attributes:
        namespace: The pod's.
        pod: Its name.
        instance_type: Empty where the cloud has no types.
        begin: Unix time.
        end: Unix time; None while it lasts.
    """

    namespace: str
    pod: str
    instance_type: str
    begin: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a namespace used of a type.

    Attributes:
        namespace: Whose pods.
        instance_type: Of which machines.
        machines: How many.
        hours: How long they were there, all together.
        cost: What that costs; None where nothing is known of the price.
    """

    namespace: str
    instance_type: str
    machines: int
    hours: float
    cost: float | None


class UsageLog:
    """An observer that puts machines down, and tells another one. What cannot be written is no pod's trouble.

    Args:
        path: The log.
        observer: Who else is told.
        now: The time.
    """

    def __init__(
        self, path: Path, observer: Surroundings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path = path
        self._observer = observer
        self._now = now

    async def created(self, record: PodRecord) -> None:
        """The cloud has made the machine; told again after a restart in between."""
        more = {"namespace": record.namespace, "pod": record.name, "type": record.instance_type}
        await self._put("begin", record.sandbox_id, record.instance_name, **more)
        await self._observer.created(record)

    async def failed(self, failure: Failure) -> None:
        """A pod could not be started."""
        await self._observer.failed(failure)

    async def deleted(self, record: PodRecord) -> None:
        """The cloud has confirmed that nothing is left."""
        await self._put("end", record.sandbox_id, record.instance_name)
        await self._observer.deleted(record)

    async def waits(self, machine: Machine) -> None:
        """The cloud has made a machine that waits for a pod."""
        more = {"namespace": POOL, "pod": machine.name, "type": machine.instance_type}
        await self._put("begin", machine.id, machine.name, **more)
        await self._observer.waits(machine)

    async def waited(self, machine: Machine) -> None:
        """It waits no more."""
        await self._put("end", machine.id, machine.name)
        await self._observer.waited(machine)

    async def _put(self, event: str, id: str, name: str, **more: str) -> None:
        at = self._now().isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "event": event, "sandbox": id, **more})
        try:
            await off_loop(_append, self._path, f"{line}\n".encode())
        except OSError as error:
            logger.warning("%s: the %s of %s is not put down: %s", self._path, event, name, error)


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read(path: Path) -> Sequence[Use]:
    """The machines of a log, in the order in which they were made. Lines that cannot be read are left out, and told.

    Raises:
        AdaptorError: The log cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise AdaptorError(
            f"{path} cannot be read: {error.strerror} (-usage-file is what the adaptor writes)"
        ) from error
    uses: dict[str, Use] = {}
    for number, line in enumerate(lines, 1):
        try:
            _note(uses, json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s, line %d is left out: %r", path, number, error)
    return list(uses.values())


def _note(uses: dict[str, Use], entry: Mapping[str, str]) -> None:
    at, sandbox = datetime.fromisoformat(entry["at"]).timestamp(), entry["sandbox"]
    if entry["event"] == "begin":
        uses.setdefault(sandbox, Use(entry["namespace"], entry["pod"], entry["type"], at))
    elif (use := uses.get(sandbox)) is not None and use.end is None:
        uses[sandbox] = Use(use.namespace, use.pod, use.instance_type, use.begin, at)


def prices(path: Path, flag: str = "-prices") -> Mapping[str, float]:
    """What an hour of each type costs, in whatever currency: a TOML file, `"m6a.large" = 0.0864`.

    Args:
        path: The file.
        flag: What names it, for the error.

    Raises:
        SettingError: It cannot be read, or a price is no number.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingError(f"{flag}: {path}: {error}") from error
    for name, price in content.items():
        if isinstance(price, bool) or not isinstance(price, int | float):
            raise SettingError(f'{flag}: {path}: the price of {name} is no number; write "{name}" = 0.0864')
    return content


def costs(uses: Iterable[Use], since: float, now: float, price: Mapping[str, float]) -> Sequence[Cost]:
    """What was used between two times, by namespace and type.

    Args:
        uses: The machines.
        since: From when, Unix time.
        now: Until when; those without an end last till then.
        price: What an hour of each type costs.
    """
    hours: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for use in uses:
        begin, end = max(use.begin, since), min(now if use.end is None else use.end, now)
        if begin < end:
            hours[use.namespace, use.instance_type].append((end - begin) / _HOUR)
    return [
        Cost(*key, len(each), sum(each), sum(each) * price[key[1]] if key[1] in price else None)
        for key, each in sorted(hours.items())
    ]
