"""What is known of a peer pod, on disk, so that neither a kill nor a restart of the adaptor loses a machine.

A pod's directory, `<pods-dir>/<sandbox id>`, holds `pod.json`, upstream's `apf.json`, the agent's socket, and until
the machine runs what it reads when it boots. It is written before the cloud is asked for anything, and goes when the
cloud has confirmed that nothing is left.
"""

from __future__ import annotations

import enum
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kata_caa import apf
from kata_caa.errors import AdaptorError, MalformedConfig, SandboxExists
from kata_caa.instance import machine_name
from kata_caa.privatefile import flush
from kata_caa.privatefile import replace as write
from kata_caa.providers.api import InstanceSpec, Target

VERSION = 1
SOCKET = "agent.ttrpc"
_RECORD = "pod.json"
_APF = "apf.json"
_USER_DATA = "user-data"


class RecordError(AdaptorError):
    """A record cannot be read or written: damaged, or of another version."""


class State(enum.StrEnum):
    """Where a peer pod is in its life."""

    CREATED = "created"  # the runtime has announced it; nothing is in the cloud
    STARTING = "starting"  # the cloud may have something of it
    RUNNING = "running"
    STOPPING = "stopping"  # it is being deleted until the cloud confirms


@dataclass(frozen=True, slots=True)
class PodRecord:
    """One peer pod.

    Attributes:
        sandbox_id: The sandbox's id.
        name: The pod's name.
        namespace: Its Kubernetes namespace.
        netns: The path of its network namespace.
        instance_name: Its machine's name.
        material: With what its machine's forwarder is dialled (`kata_caa.tls`).
        token: Makes the creation of its machine one, however often it is tried.
        spec: How large its machine shall be.
        state: Where it is in its life.
        instance_id: The cloud's id of its machine; empty while not known.
        addresses: Where the machine is reached.
        instance_type: The cloud's type of its machine; empty while not known, or where there are none.
        machine: The id by which the cloud knows its machine, if that has waited for a pod; empty: the sandbox's.
        network: What its tunnel connects; VNI and port are in it.
    """

    sandbox_id: str
    name: str
    namespace: str
    netns: str
    instance_name: str
    material: str
    token: str
    spec: InstanceSpec
    state: State = State.CREATED
    instance_id: str = ""
    addresses: tuple[str, ...] = ()
    instance_type: str = ""
    machine: str = ""
    network: apf.PodNetwork = apf.PodNetwork()

    @property
    def target(self) -> Target:
        """Whose machine it is, for the cloud."""
        if self.machine:
            return Target(self.machine, machine_name(self.machine), self.instance_id)
        return Target(self.sandbox_id, self.instance_name, self.instance_id)

    @property
    def vnis(self) -> tuple[int, ...]:
        """The numbers of its tunnels."""
        return _vnis(self.network)


class PodRecords:
    """The records of all peer pods of this node; every call does I/O and blocks.

    Args:
        directory: Where they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def socket(self, sandbox_id: str) -> Path:
        """Where the runtime reaches a pod's agent."""
        return self._directory / sandbox_id / SOCKET

    def create(self, record: PodRecord, config: apf.ForwarderConfig, user_data: str) -> None:
        """Begin a pod's record.

        Raises:
            SandboxExists: There is one of this id.
            RecordError: It cannot be written; nothing is left.
        """
        home = self._directory / record.sandbox_id
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                home.mkdir(mode=0o700)
                return self._fill(home, record, config, user_data)
        except OSError as error:
            raise RecordError(f"{home} cannot be made: {error.strerror}") from error
        raise SandboxExists(f"there is a sandbox {record.sandbox_id} already")

    def _fill(self, home: Path, record: PodRecord, config: apf.ForwarderConfig, user_data: str) -> None:
        try:
            _write_secret(home / _APF, apf.dump(config))
            _write_secret(home / _USER_DATA, user_data)
            self.update(record)
            flush(self._directory)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def update(self, record: PodRecord) -> None:
        """Write a pod's next state.

        Raises:
            RecordError: It cannot be written; what was there before stays.
        """
        content = {"version": VERSION, **asdict(replace(record, network=apf.PodNetwork()))}
        del content["network"]  # apf.json has it
        try:
            write(self._directory / record.sandbox_id / _RECORD, json.dumps(content, indent=1))
        except OSError as error:
            raise RecordError(f"the record of {record.sandbox_id} cannot be written: {error}") from error
        if record.state is State.RUNNING:
            with suppress(OSError):
                (self._directory / record.sandbox_id / _USER_DATA).unlink()  # the machine has read it

    def user_data(self, sandbox_id: str) -> str:
        """What the pod's machine reads when it boots.

        Raises:
            RecordError: It is gone.
        """
        try:
            return (self._directory / sandbox_id / _USER_DATA).read_text()
        except OSError as error:
            raise RecordError(f"the user data of {sandbox_id} cannot be read: {error}") from error

    def load(self, sandbox_id: str) -> PodRecord | None:
        """A pod's record; None if there is none, or nothing was done yet: the record itself comes last, and goes first.

        Raises:
            RecordError: It is damaged, or of another version.
        """
        home = self._directory / sandbox_id
        try:
            content = json.loads((home / _RECORD).read_bytes())
            network = apf.load((home / _APF).read_text()).network
        except (FileNotFoundError, NotADirectoryError) as error:
            if not (home / _RECORD).exists():
                return None
            raise RecordError(f"{home}: {error.strerror}: {error.filename}") from error
        except (ValueError, RecursionError, MalformedConfig, OSError) as error:
            raise RecordError(f"{home}: {error}") from error
        if not isinstance(content, dict) or content.pop("version", None) != VERSION:
            raise RecordError(f"{home / _RECORD} is no record of version {VERSION}")
        try:
            return _record(content, network)
        except (TypeError, ValueError, KeyError) as error:
            raise RecordError(f"{home / _RECORD}: {error!r}") from error

    def known(self) -> tuple[list[PodRecord], dict[str, RecordError]]:
        """The records there are, and by sandbox what is wrong with those that cannot be read."""
        good: list[PodRecord] = []
        damaged: dict[str, RecordError] = {}
        for id in self.ids():
            try:
                record = self.load(id)
            except RecordError as error:
                damaged[id] = error
            else:
                good += [record] if record is not None else []
        return good, damaged

    def vnis(self, sandbox_id: str) -> tuple[int, ...]:
        """The numbers of a pod's tunnels, also if its record is damaged; none if what it was announced with is too."""
        try:
            return _vnis(apf.load((self._directory / sandbox_id / _APF).read_text()).network)
        except (ValueError, RecursionError, MalformedConfig, OSError):
            return ()

    def ids(self) -> Iterator[str]:
        """The sandboxes that have a directory."""
        with suppress(FileNotFoundError):
            yield from sorted(entry.name for entry in self._directory.iterdir() if entry.is_dir())

    def remove(self, sandbox_id: str) -> None:
        """Forget a pod; one that is forgotten already is no error.

        Raises:
            RecordError: Its directory cannot be removed.
        """
        home = self._directory / sandbox_id
        try:
            (home / _RECORD).unlink(missing_ok=True)  # first: what is left by a kill is no damaged record
            shutil.rmtree(home)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RecordError(f"{home} cannot be removed: {error}") from error


def _vnis(network: apf.PodNetwork) -> tuple[int, ...]:
    return tuple(filter(None, (network.vxlan_id, *(each.vxlan_id for each in network.interfaces))))


def _record(content: dict[str, Any], network: apf.PodNetwork) -> PodRecord:
    return PodRecord(
        **{
            **content,
            "spec": InstanceSpec(**content["spec"]),
            "state": State(content["state"]),
            "addresses": tuple(content["addresses"]),
            "network": network,
        }
    )


def _write_secret(path: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror}") from error
