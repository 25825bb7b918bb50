"""How long pods had machines, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kata_caa import command, usage
from kata_caa.errors import AdaptorError, SettingError
from kata_caa.peer import Failure
from kata_caa.pool.machine import Machine
from kata_caa.providers.api import InstanceSpec
from kata_caa.surroundings import Alone
from kata_caa.usage import Cost, UsageLog, Use
from tests.unit.caa.test_record import RECORD

BEGAN = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOUR = 3600.0
MACHINE = replace(RECORD, instance_id="i-1", instance_type="m6a.large")


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.hours = 0.0

    def __call__(self) -> datetime:
        return BEGAN + timedelta(hours=self.hours)


class Told(Alone):
    """Who else is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def created(self, record: object) -> None:
        self.heard.append("created")

    async def failed(self, failure: Failure) -> None:
        self.heard.append(f"failed: {failure.message}")

    async def deleted(self, record: object) -> None:
        self.heard.append("deleted")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "usage.jsonl"


async def test_a_machine_counts_from_its_creation_to_its_end_however_often_it_is_told(path: Path):
    clock, told = Clock(), Told()
    for hours, event in ((0, "created"), (1, "created"), (3, "deleted"), (4, "deleted")):
        clock.hours = hours
        log = UsageLog(path, told, clock)  # of another adaptor each
        await (log.created(MACHINE) if event == "created" else log.deleted(MACHINE))
    began = BEGAN.timestamp()
    assert usage.read(path) == [Use("shop", "web", "m6a.large", began, began + 3 * HOUR)]
    assert told.heard == ["created", "created", "deleted", "deleted"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_machine_that_waits_counts_for_the_pool_until_a_pod_has_it(path: Path):
    clock = Clock()
    log = UsageLog(path, Alone(), clock)
    waiting = Machine("77777777", InstanceSpec(), "material", "token", instance_id="i-1", instance_type="m6a.large")
    for hours, call in ((0, log.waits(waiting)), (2, log.created(MACHINE)), (2, log.waited(waiting))):
        clock.hours = hours
        await call
    now = BEGAN.timestamp() + 5 * HOUR
    assert usage.costs(usage.read(path), 0, now, {"m6a.large": 1.0}) == [
        Cost("(warm pool)", "m6a.large", 1, 2.0, 2.0),
        Cost("shop", "m6a.large", 1, 3.0, 3.0),
    ]


async def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").touch()
    told = Told()
    log = UsageLog(tmp_path / "file" / "usage.jsonl", told)
    await log.created(MACHINE)
    await log.failed(Failure.of(MACHINE, AdaptorError("no")))
    await log.deleted(MACHINE)
    assert told.heard == ["created", "failed: no", "deleted"]
    assert "the begin of podvm-web-id is not put down" in caplog.text


async def test_lines_that_cannot_be_read_are_left_out_and_told(path: Path, caplog: pytest.LogCaptureFixture):
    await UsageLog(path, Alone(), Clock()).created(MACHINE)
    with path.open("a") as log:
        log.write('{"at": "2026-11-27T12\n[]\n{"at": "never", "sandbox": "x"}\n{"event": "begin"}\n')
    assert len(usage.read(path)) == 1
    assert caplog.text.count("is left out") == 4


@pytest.mark.parametrize(
    ("since", "now", "expected"),
    [
        (0, 10, [Cost("lab", "", 1, 9, None), Cost("shop", "large", 2, 6, 3.0), Cost("shop", "xlarge", 1, 1, None)]),
        (3, 5, [Cost("lab", "", 1, 2, None), Cost("shop", "large", 1, 1, 0.5)]),
        (20, 30, [Cost("lab", "", 1, 10, None)]),
    ],
)
def test_costs_are_those_of_the_hours_between_two_times(since: float, now: float, expected: Sequence[Cost]):
    uses = [
        Use("shop", "web", "large", 0, 2 * HOUR),
        Use("shop", "api", "large", 0, 4 * HOUR),
        Use("shop", "big", "xlarge", 1 * HOUR, 2 * HOUR),
        Use("lab", "one", "", 1 * HOUR),
    ]
    assert usage.costs(uses, since * HOUR, now * HOUR, {"large": 0.5}) == expected


@pytest.mark.parametrize(
    ("text", "said"), [("large", "Expected"), ('large = "x"', "of large is no number"), ("large = true", "no number")]
)
def test_prices_that_cannot_be_read_are_told(tmp_path: Path, text: str, said: str):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(SettingError, match=f"^-prices: {path}: .*{said}"):
        usage.prices(path)


def test_the_command_tells_the_costs_by_namespace(path: Path, capsys: pytest.CaptureFixture[str]):
    clock = Clock()

    async def used() -> None:
        log = UsageLog(path, Alone(), clock)
        await log.created(MACHINE)
        await log.created(replace(MACHINE, sandbox_id="id-2", namespace="lab", instance_type=""))
        clock.hours += 1
        await log.deleted(MACHINE)

    clock.hours = (datetime.now(UTC) - BEGAN) / timedelta(hours=1) - 2
    asyncio.run(used())
    prices = path.with_name("prices.toml")
    prices.write_text('"m6a.large" = 10\n')
    flags = ["-usage-file", str(path), "-prices", str(prices)]
    assert command.main(["aws", "costs", *flags], {}) == 0
    assert capsys.readouterr().out == "lab\t-\t1\t2.00 h\t-\nshop\tm6a.large\t1\t1.00 h\t10.00\n"
    assert command.main(["aws", "costs", *flags, "-since", "30m"], {}) == 0
    assert capsys.readouterr().out == "lab\t-\t1\t0.50 h\t-\n"


def test_without_a_log_the_command_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["aws", "costs"], {}) == 2
    assert "-usage-file (USAGE_FILE)" in capsys.readouterr().err
    assert command.main(["aws", "costs", "-usage-file", str(tmp_path / "none")], {}) == 1
    assert "cannot be read" in capsys.readouterr().err
