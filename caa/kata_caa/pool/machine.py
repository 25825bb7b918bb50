"""What is known of a machine that waits for a pod, on disk, so that no restart of the adaptor loses one.

A file is written before the cloud is asked for anything, and goes when the cloud has confirmed that nothing is left,
or when the record of the pod that the machine has become says so.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kata_caa.instance import machine_name
from kata_caa.privatefile import replace as write
from kata_caa.providers.api import InstanceSpec, Target
from kata_caa.record import RecordError

VERSION = 1
_SUFFIX = ".json"


class Phase(enum.StrEnum):
    """Where a machine is in its life."""

    MAKING = "making"  # the cloud may have something of it
    WAITING = "waiting"  # it has answered that it waits for a pod
    BINDING = "binding"  # it may have been told of a pod
    LEAVING = "leaving"  # it is being deleted until the cloud confirms


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine.

    Attributes:
        id: Stands in the place of a sandbox's id, for the cloud.
        spec: What it is, as the cloud understands the wish that it was made for: type, size, image.
        material: With what its forwarder is dialled until it is bound (`kata_caa.tls`).
        token: Makes its creation one, however often it is tried.
        phase: Where it is in its life.
        instance_id: The cloud's id of it; empty while not known.
        addresses: Where it is reached.
        instance_type: The cloud's type of it; empty while not known, or where there are none.
        settings: A digest of the cloud's settings that it was made with.
        scratch: Whether it was told to make itself an encrypted scratch space.
    """

    id: str
    spec: InstanceSpec
    material: str
    token: str
    phase: Phase = Phase.MAKING
    instance_id: str = ""
    addresses: tuple[str, ...] = ()
    instance_type: str = ""
    settings: str = ""
    scratch: bool = False

    @property
    def name(self) -> str:
        """Its name in the cloud and, until it is bound, in its certificate."""
        return machine_name(self.id)

    @property
    def target(self) -> Target:
        """Which it is, for the cloud."""
        return Target(self.id, self.name, self.instance_id)


class MachineRecords:
    """The records of all machines of this node that no pod has; every call does I/O and blocks.

    Args:
        directory: Where they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, machine: Machine) -> None:
        """Write a machine's next state.

        Raises:
            RecordError: It cannot be written; what was there before stays.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(self._path(machine.id), json.dumps({"version": VERSION, **asdict(machine)}, indent=1))
        except OSError as error:
            raise RecordError(f"the record of machine {machine.name} cannot be written: {error}") from error

    def remove(self, id: str) -> None:
        """Forget a machine; one that is forgotten already is no error.

        Raises:
            RecordError: Its record cannot be removed.
        """
        try:
            self._path(id).unlink(missing_ok=True)
        except OSError as error:
            raise RecordError(f"{self._path(id)} cannot be removed: {error.strerror}") from error

    def ids(self) -> Iterator[str]:
        """The machines that have a record."""
        with suppress(FileNotFoundError):
            yield from sorted(entry.stem for entry in self._directory.iterdir() if entry.suffix == _SUFFIX)

    def load(self, id: str) -> Machine | None:
        """A machine's record; None if there is none.

        Raises:
            RecordError: It is damaged, or of another version.
        """
        path = self._path(id)
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise RecordError(f"{path}: {error}") from error
        if not isinstance(content, dict) or content.pop("version", None) != VERSION:
            raise RecordError(f"{path} is no record of version {VERSION}")
        try:
            content |= {
                "spec": InstanceSpec(**content["spec"]),
                "phase": Phase(content["phase"]),
                "addresses": tuple(content["addresses"]),
            }
            return Machine(**content)
        except (TypeError, ValueError, KeyError) as error:
            raise RecordError(f"{path}: {error!r}") from error

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}{_SUFFIX}"
