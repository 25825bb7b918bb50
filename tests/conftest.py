"""What all tests share: a skip in CI is an error, and the machine is as it was afterwards."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tools.footprint import without_new_parents

REPOSITORY = Path(__file__).resolve().parent.parent
GUEST = REPOSITORY / "build" / "guest"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true nothing may be skipped: what cannot run there is not proven."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {report.longrepr}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Some run for who asks for them: what needs WireGuard (tests/integration/test_unified.py does), and `harm`."""
    for marker in ("wireguard", "harm"):
        if marker not in config.option.markexpr:
            apart = [item for item in items if item.get_closest_marker(marker)]
            items[:] = [item for item in items if item not in apart]
            config.hook.pytest_deselected(items=apart)


@pytest.fixture(scope="session", autouse=True)
def _parents() -> Iterator[None]:
    """Leave no new directory in /run; only where no other process of this run may still be using it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        yield
        return
    with without_new_parents():
        yield


@pytest.fixture(scope="session")
def guest() -> Path:
    """The folder of the built guest."""
    if not (GUEST / "boot.json").exists():
        pytest.fail(f"no guest in {GUEST}: run `make guest`")
    return GUEST


@pytest.fixture(scope="session")
def short_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a short path: Unix socket paths end at 107 bytes, pytest's own are long."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
