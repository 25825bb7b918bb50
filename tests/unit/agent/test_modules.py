from __future__ import annotations

from pathlib import Path

import pytest

from kata_agent import linux, modules


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel was given; it takes all but what is called broken."""
    given: list[str] = []

    def load(path: str) -> None:
        if "broken" in path:
            raise OSError(8, "Exec format error", path)
        given.append(path)

    monkeypatch.setattr(linux, "load_module", load)
    return given


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "late"
    path.write_text("/m/fuse.ko\n/m/broken.ko\n/m/virtiofs.ko.xz\n/m/overlay.ko\n")
    return path


def test_all_that_is_listed_is_loaded_in_order_and_a_broken_one_warned_of(
    listed: Path, loaded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    modules.load_late(listed=listed)

    assert loaded == ["/m/fuse.ko", "/m/virtiofs.ko.xz", "/m/overlay.ko"]
    assert "/m/broken.ko cannot be loaded: Exec format error" in caplog.text


def test_who_waits_for_one_module_waits_for_no_later_one(listed: Path, loaded: list[str]) -> None:
    modules.load_late("virtiofs", listed)

    assert loaded == ["/m/fuse.ko", "/m/virtiofs.ko.xz"]


def test_where_nothing_is_listed_nothing_is_missing(tmp_path: Path, loaded: list[str]) -> None:
    modules.load_late(listed=tmp_path / "none")

    assert loaded == []


def test_what_is_no_module_is_refused_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "text.ko"
    path.write_text("no module")

    with pytest.raises(OSError, match=r"text\.ko"):
        linux.load_module(str(path))
