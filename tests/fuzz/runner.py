"""Give each target its time, two at once:

    python -m tests.fuzz.runner [--seconds 60] [TARGET ...]

Time is the processor's, so that it is as much on a machine that has other things to do. Prints how many inputs each
had, and the first that did harm. Ends with 1 if one did.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import random
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz import TARGETS, load
from tests.fuzz.target import PATIENCE

ROUND = 100  # inputs between looks at the clock


def fuzz(name: str, seconds: float) -> tuple[int, str]:
    """Give a target inputs until its time is up; returns how many, and what went wrong."""
    logging.disable(logging.WARNING)
    target, count = load(name), 0

    def check(value: object) -> None:
        nonlocal count
        count += 1
        began = time.process_time()
        target.check(value)
        took = time.process_time() - began
        assert took < PATIENCE, f"it took {took:.1f} s"

    limits = settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    end = time.process_time() + seconds
    while time.process_time() < end:
        number = random.randrange(1 << 32)
        try:
            seed(number)(limits(given(target.inputs)(check)))()
        except Exception:
            return count, f"seed {number}\n{traceback.format_exc()}"
    return count, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.runner")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    given_ = parser.parse_args()
    names = given_.targets or TARGETS
    harm = False
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for name, (count, fault) in zip(names, pool.map(partial(fuzz, seconds=given_.seconds), names), strict=True):
            print(f"{name:16} {count:8} inputs{'   HARM: ' + fault if fault else ''}", flush=True)
            harm = harm or bool(fault)
    return int(harm)


if __name__ == "__main__":
    sys.exit(main())
