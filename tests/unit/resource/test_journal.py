from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.resource.journal import undone
from kata_py.resource.undo import RemoveFile, Undo
from tests.drivers.journal import ListJournal


def test_a_change_is_on_record_while_it_lasts_and_undone_afterwards(tmp_path: Path) -> None:
    journal = ListJournal()
    path = tmp_path / "file"
    with undone(journal, RemoveFile(str(path))):
        assert journal.entries == [RemoveFile(str(path))]
        path.touch()
    assert not path.exists()
    assert journal.entries == []


def test_a_failure_inside_undoes_the_change_too(tmp_path: Path) -> None:
    journal = ListJournal()
    path = tmp_path / "file"

    def fail() -> None:
        with undone(journal, RemoveFile(str(path))):
            path.touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not path.exists()
    assert journal.entries == []


def test_what_cannot_be_undone_stays_on_record(tmp_path: Path) -> None:
    journal = ListJournal()
    with pytest.raises(IsADirectoryError), undone(journal, RemoveFile(str(tmp_path))):
        pass
    assert journal.entries == [RemoveFile(str(tmp_path))]


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    class Full(ListJournal):
        def intend(self, undo: Undo) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), undone(Full(), RemoveFile(str(tmp_path / "file"))):
        raise AssertionError("entered")
