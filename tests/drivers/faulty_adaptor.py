"""The adaptor with faults at its own writes: the program that tests run in the place of `cloud-api-adaptor`.

Waits are shortened, so that many lives pass in a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from kata_caa import command, deletion, faults, node, pods, record
from kata_caa.dialing import Endpoint
from kata_caa.errors import Fault
from kata_caa.faults import Backoff
from kata_caa.pool import machine as machines
from kata_caa.pool import pool, unbound
from kata_caa.pool.machine import MachineRecords
from kata_caa.record import PodRecord, PodRecords
from tests.drivers.faults import Faults, faults_of_environment


def main() -> int:
    """`cloud-api-adaptor` with faults."""
    planned = faults_of_environment()
    _at_writes(planned)
    _at_tunnels(planned)
    _at_the_pool(planned)
    if sys.argv[1:2] == ["aws"]:
        _hurry_aws()
    deletion.PAUSE = 0.02
    pods.ABANDONED_AFTER = 3.0
    pool.PAUSE = 0.05
    faults.CALLS.backoffs.update(  # type: ignore[attr-defined] # a dictionary
        {fault: Backoff(again=3, first=0.05, ceiling=0.05) for fault in (Fault.TRANSIENT, Fault.THROTTLE)}
    )
    return command.main()


def _hurry_aws() -> None:
    from kata_caa.providers.aws import provider

    provider.Pace = partial(provider.Pace, 0.02, 0.1)  # type: ignore[misc,assignment]


def _at_writes(planned: Faults) -> None:
    write, write_secret, remove = record.write, record._write_secret, PodRecords.remove

    def writing(path: str, text: str) -> None:
        with planned.at(f"write {Path(path).name}"):
            write(path, text)

    def writing_secret(path: Path, text: str) -> None:
        with planned.at(f"write {path.name}"):
            write_secret(path, text)

    def removing(records: PodRecords, sandbox_id: str) -> None:
        try:
            with planned.at("remove record"):
                remove(records, sandbox_id)
        except OSError as error:
            raise record.RecordError(str(error)) from error

    record.write = writing
    record._write_secret = writing_secret
    PodRecords.remove = removing  # type: ignore[method-assign]


def _at_tunnels(planned: Faults) -> None:
    def planned_at(
        place: str, call: Callable[[node.NodeTunnel, PodRecord], Awaitable[None]]
    ) -> Callable[[node.NodeTunnel, PodRecord], Awaitable[None]]:
        async def called(tunnel: node.NodeTunnel, record: PodRecord) -> None:
            with planned.at(place):
                await call(tunnel, record)

        return called

    node.NodeTunnel.set_up = planned_at("tunnel up", node.NodeTunnel.set_up)  # type: ignore[method-assign,assignment]
    node.NodeTunnel.tear_down = planned_at("tunnel down", node.NodeTunnel.tear_down)  # type: ignore[method-assign,assignment]


def _at_the_pool(planned: Faults) -> None:
    write, remove, bind = machines.write, MachineRecords.remove, unbound.bind

    def writing(path: str, text: str) -> None:
        with planned.at("write machine.json"):
            write(path, text)

    def removing(records: MachineRecords, id: str) -> None:
        try:
            with planned.at("remove machine"):
                remove(records, id)
        except OSError as error:
            raise record.RecordError(str(error)) from error

    async def binding(endpoint: Endpoint, user_data: str) -> None:
        await planned.around("bind", lambda: bind(endpoint, user_data))

    machines.write = writing
    MachineRecords.remove = removing  # type: ignore[method-assign]
    unbound.bind = binding


if __name__ == "__main__":
    sys.exit(main())
