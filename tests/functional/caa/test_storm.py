"""Many pods at once, in a cloud that throttles."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.aws_cloud import config_of
from tests.moto import Refusal, ec2_server
from tests.storm import in_process

PODS = 200
THROTTLED = 5  # one call of so many


CALLS = 40  # for a pod, those among them that are refused
MEMORY = 150 << 20


@pytest.mark.timeout(180)
def test_two_hundred_pods_are_served_and_deleted_by_a_cloud_that_throttles(short_tmp: Path):
    with ec2_server() as ec2:
        config = config_of(ec2)
        calls, lock, refused = itertools.count(1), threading.Lock(), Counter[str]()

        def throttle(action: str, parameters: Mapping[str, str]) -> None:
            with lock:
                if next(calls) % THROTTLED == 0:
                    refused[action] += 1
                    raise Refusal("RequestLimitExceeded", "Request limit exceeded.", 503)

        before = ec2.objects()
        ec2.seen.clear()
        ec2.before = throttle
        storm = in_process(config, short_tmp, PODS, timeout=150)
        seen = Counter(ec2.actions)
        print(f"{PODS} up in {storm.up:.1f} s, down in {storm.down:.1f} s, {storm.cpu:.1f} s of processor time")
        print(f"MiB: {[each >> 20 for each in storm.memory]}; calls: {seen}; refused: {refused}")
        assert storm.errors == {}
        assert storm.served == PODS
        assert (storm.left, storm.records) == (0, 0)
        assert ec2.objects() == before
        assert refused["RunInstances"] > 0
        assert refused["TerminateInstances"] > 0
        assert max(storm.memory) <= MEMORY
        assert seen.total() <= CALLS * PODS
        assert storm.cpu <= 0.7 * (storm.up + storm.down)  # it waits, most of the time
